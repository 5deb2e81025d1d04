"""This machine, this checkout, and words for whoever watches."""

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def say(text):
    print(f"bench: {text}", flush=True)


def words(value):
    return [word for word in (value or "").replace(",", " ").split() if word]


@contextlib.contextmanager
def fresh_folder(parent, size):
    """An empty folder on a file system of its own where that is possible.

    ext4 grows ten times slower after a large deletion, so a second restore into it measures the first one's removal.
    """
    folder = Path(tempfile.mkdtemp(prefix="restore-", dir=parent))
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "everhold-bench", folder],
        capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def git(*argv):
    return subprocess.run(["git", "-C", PROJECT, *argv], capture_output=True, text=True).stdout.strip()


def commit():
    """Taken when the programs are, not hours later."""
    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return name + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def described():
    name = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"
