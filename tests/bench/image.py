"""Raw ext4 images without root, mounts or loop devices: made by mke2fs from a folder, changed through debugfs.

The second version is what a running system leaves behind: most blocks stay where they are, edited files change in
place, new files go where others were. Deterministic but for inode times of creation.
"""

import os
import random
import re
import shutil
import subprocess

import mutate

UUID = "11111111-2222-3333-4444-555555555555"
BLOCK = 4096
THEN = "1700000000"


def sbin(program):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return shutil.which(program, path=path) or program


def make(target, folder, size):
    """An ext4 of `size` bytes with the content of `folder`, sparse on disk."""
    subprocess.run(
        [sbin("mke2fs"), "-q", "-t", "ext4", "-b", str(BLOCK), "-U", UUID, "-d", folder,
         "-E", f"hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", target, f"{size >> 10}k"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": THEN})
    subprocess.run(["fallocate", "--dig-holes", target], check=True)


def debugfs(target, commands, write=False):
    """What debugfs says to a list of commands."""
    done = subprocess.run(
        [sbin("debugfs"), *(["-w"] if write else []), "-f", "-", target], input="\n".join(commands) + "\n",
        capture_output=True, text=True, errors="replace", check=True,
        env={**os.environ, "DEBUGFS_PAGER": "cat", "E2FSPROGS_FAKE_TIME": THEN})
    return done.stdout


def quoted(path):
    return '"' + str(path).replace('"', '""') + '"'


def parse_blocks(said):
    """Physical blocks from the answers to a list of `bmap` commands, in order; 0 where there is none."""
    answers, current = [], None
    for line in said.splitlines():
        if line.startswith("debugfs: bmap"):
            answers.append(0)
            current = len(answers) - 1
        elif current is not None and re.fullmatch(r"\d+", line.strip()):
            answers[current] = int(line)
    return answers


def removal(folder, inside):
    """Commands that remove a tree: files first, folders from the bottom."""
    commands = []
    for where, folders, names in os.walk(folder, topdown=False):
        below = os.path.join(inside, os.path.relpath(where, folder)).removesuffix("/.")
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        commands += [f"rm {quoted(os.path.join(below, name))}" for name in sorted(names + links)]
        commands.append(f"rmdir {quoted(below)}")
    return commands


def addition(folder, inside):
    """Commands that write a tree."""
    commands = [f"mkdir {quoted(inside)}"]
    for where, folders, names in os.walk(folder):
        folders.sort()
        below = os.path.join(inside, os.path.relpath(where, folder)).removesuffix("/.")
        commands += [f"mkdir {quoted(os.path.join(below, name))}" for name in folders]
        for name in sorted(names):
            path = os.path.join(where, name)
            if not os.path.islink(path):
                commands.append(f"write {quoted(path)} {quoted(os.path.join(below, name))}")
    return commands


def changed_copy(before, after, stage, removed, added, share):
    """Writes the second version of an image made from `stage`."""
    subprocess.run(["cp", "--sparse=always", before, after], check=True)
    kept = (path for path in mutate.regular_files([stage]) if not path.startswith(f"{stage}/{removed}/"))
    # debugfs takes a name with a quote for two.
    changes = mutate.chosen([path for path in kept if '"' not in path and os.path.getsize(path)], share, 3)
    inside = {path: "/" + os.path.relpath(path, stage) for path, _ in changes}
    middle = {path: os.path.getsize(path) // 2 for path, _ in changes}
    blocks = parse_blocks(debugfs(after, [f"bmap {quoted(inside[p])} {middle[p] // BLOCK}" for p, _ in changes]))
    dice, commands = random.Random(3), []
    with open(after, "r+b") as disk:
        for (path, kind), block in zip(changes, blocks, strict=True):
            if kind != "touch" and block:
                start = middle[path] % BLOCK
                disk.seek(block * BLOCK + start)
                disk.write(dice.randbytes(min(mutate.EDITED, BLOCK - start, os.path.getsize(path) - middle[path])))
            commands.append(f"sif {quoted(inside[path])} mtime @{int(THEN) + 86400}")
    debugfs(after, commands + removal(stage / removed, f"/{removed}") + addition(added, "/added"), write=True)
