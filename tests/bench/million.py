"""A million files: backed up, changed, backed up again, searched, restored and compared; both backups and the restore are
killed in their middle first.

`make million` runs it against a platform of its own and writes what it saw into docs/reliability.md. Every number there
comes from here; what does not hold ends the run with words.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import mutate
from data import apart
from measure import Failed, bytes_below, launched
from tools import Everhold, Platform

HERE = Path(__file__).resolve().parents[2]
PAGE = HERE / "docs/reliability.md"
# Of all files, so many are names of one folder.
CROWD = 0.1
SHARE = 0.01


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def text():
    """What small files are made of: Python's own library."""
    pool = bytearray()
    for path in mutate.regular_files([sysconfig.get_path("stdlib")]):
        if path.endswith((".py", ".txt", ".h")):
            pool += Path(path).read_bytes()
            if len(pool) >= 32 << 20:
                break
    return pool


def grow(root, count):
    """Files of 64 to 4095 bytes: a tenth in one folder, the others 250 to a folder, two levels deep."""
    dice, pool = random.Random(1), text()
    crowd = int(count * CROWD)
    for index in range(count):
        folder = root / "crowd" if index < crowd else root / f"{index // 250 % 64:02}" / f"{index // 250:05}"
        if index == 0 or index >= crowd and (index % 250 == 0 or index == crowd):
            folder.mkdir(parents=True, exist_ok=True)
        start, size = dice.randrange(len(pool) - 4096), int(2 ** dice.uniform(6, 12))
        with open(folder / f"{index:07}.txt", "wb", buffering=0) as file:
            file.write(pool[start:start + size])


def change(root):
    dice = random.Random(2)
    for path, kind in mutate.chosen(list(mutate.regular_files([root])), SHARE, 2):
        mutate.change(path, kind, dice)


def compare(source, target):
    """Every file, folder, byte, mode, owner and time; on a difference it ends the process."""
    todo = [(source, target)]
    while todo:
        here, there = todo.pop()
        with os.scandir(here) as entries:
            names = sorted(entry.name for entry in entries)
        with os.scandir(there) as entries:
            if sorted(entry.name for entry in entries) != names:
                sys.exit(f"{there} has other names than {here}")
        for name in [*names, "."]:
            one, two = os.path.join(here, name), os.path.join(there, name)
            a, b = os.lstat(one), os.lstat(two)
            facts = [(x.st_mode, x.st_uid, x.st_gid, x.st_mtime_ns) for x in (a, b)]
            if facts[0] != facts[1]:
                sys.exit(f"{two} differs: {facts}")
            if stat.S_ISDIR(a.st_mode):
                todo += [(one, two)] if name != "." else []
            elif Path(one).read_bytes() != Path(two).read_bytes():
                sys.exit(f"{two} has other bytes than {one}")


class Drill:
    def __init__(self, program, platform, work):
        self.tool = Everhold("everhold", program, platform, work / "agent")
        self.platform, self.log, self.lines = platform, work / "log", []
        self.tool.prepare()

    def run(self, *argv):
        """(Seconds, peak bytes, output) of a run to its end."""
        out = Path(f"{self.log}.out")
        with open(self.log, "ab") as err, open(out, "wb") as said:
            told, _ = launched([str(word) for word in argv], 3600, env=self.tool.env, stdout=said, stderr=err,
                               stdin=subprocess.DEVNULL)
        if told is None or told[0] != 0:
            raise Failed(f"{argv[1]} ended with {told and told[0]}: see {self.log}")
        return told[1], int(told[3]) * 1024, out.read_text()

    def kill(self, progress, enough, *argv):
        """Kills it by SIGKILL once `progress()` has grown by `enough`; its peak memory until then."""
        before, began = progress(), time.monotonic()
        with open(self.log, "ab") as log:
            child = subprocess.Popen([str(word) for word in argv], env=self.tool.env, stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log)
        while progress() - before < enough:
            if child.poll() is not None:
                raise Failed(f"{argv[1]} came to its end before it was killed")
            time.sleep(0.02)
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        return time.monotonic() - began, peak

    def snapshots(self):
        return len(json.loads(self.run(self.tool.program, "snapshots", "--json")[2]))

    def note(self, what, seconds, peak, seen, most=192):
        """`most`: the megabytes that are promised."""
        if peak > most * 1e6:
            raise Failed(f"{what} took {peak / 1e6:.0f} MB of memory, {most} are promised")
        say(f"{what}: {seconds:.1f} s, {peak / 1e6:.0f} MB; {seen}")
        self.lines.append(f"| {what} | {seconds:.1f} | {peak / 1e6:.0f} | {seen} |")

    def backup(self, what, root, progress, enough, expected):
        """Killed, then to its end."""
        argv = self.tool.backup([root])
        before = self.platform.stored()
        seconds, peak = self.kill(progress, enough, *argv)
        there = self.platform.stored() - before
        if self.snapshots() != expected:
            raise Failed("a backup that was killed left a snapshot")
        self.note(f"{what}, kill -9", seconds, peak, f"{there / 1e6:.1f} MB were stored, no snapshot of it")
        seconds, peak, said = self.run(*argv)
        done = json.loads(said.splitlines()[-1])
        if self.snapshots() != expected + 1:
            raise Failed("a backup left no snapshot")
        added = self.platform.stored() - before - there
        self.note(f"{what}, again", seconds, peak, f"{done['files']:,} files, {added / 1e6:.1f} MB more were stored")

    def find(self, name):
        seconds, peak, said = self.run(self.tool.program, "find", name, "--json")
        if len(said.splitlines()) != 1 or name not in said:
            raise Failed(f"find {name} gave {said[:200]!r}")
        self.note(f"find `{name}`", seconds, peak, "found")

    def restore(self, target, enough):
        argv = self.tool.restore(target)
        target.mkdir()
        seconds, peak = self.kill(lambda: -os.statvfs(target).f_ffree, enough, *argv)
        there = sum(1 for _ in mutate.regular_files([target]))
        self.note("restore, kill -9", seconds, peak, f"{there:,} files were there", 128)
        seconds, peak, _ = self.run(*argv)
        self.note("restore, again", seconds, peak, "the rest came", 128)


def commit():
    done = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def write(lines, count):
    page, start, end = PAGE.read_text(), "<!-- million -->", "<!-- /million -->"
    before, rest = page.split(start)
    block = [f"{time.strftime('%Y-%m-%d')}, {commit()}, {count:,} files of 64 B to 4 KiB, a tenth of them in one folder.", "",
             "| what | s | peak MB of the agent | seen |", "| --- | ---: | ---: | --- |", *lines]
    PAGE.write_text(before + "\n".join([start, *block, end]) + rest.split(end)[1])


def main():
    parser = argparse.ArgumentParser(prog="make million", description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=HERE / "target/dist")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True, help="a folder with 12 GB of room; emptied")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    work = options.work.resolve()
    work.mkdir(parents=True)
    count, source, target = options.count, work / "source", work / "target"
    platform = Platform(str(options.bin / "everhold"), work / "platform", work / "platform.log")
    with contextlib.ExitStack() as after:
        after.callback(shutil.rmtree, work, ignore_errors=True)
        say(f"makes {count:,} files")
        apart(grow, source, count)
        platform.start()
        after.callback(platform.stop)
        drill = Drill(options.bin / "everhold-agent", platform, work)
        total = bytes_below(source)[0]
        drill.backup("first backup", source, platform.stored, total // 8, 0)
        say("changes 1 % of them")
        apart(change, source)
        # What it adds is stored at its very end: killed by the clock.
        drill.backup("backup of 1 % changed", source, time.monotonic, count / 1e6, 1)
        drill.find(f"{count - 2:07}.txt")
        drill.restore(target, count // 3)
        say("compares")
        apart(compare, str(source), str(target) + str(source))
        drill.lines.append("| compare with the source: names, bytes, modes, owners, times | | | equal |")
        say("equal")
        if count >= 1_000_000:
            write(drill.lines, count)


if __name__ == "__main__":
    main()
