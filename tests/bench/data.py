"""The data sets: built once into the cache from what any Debian machine can get, and counted.

Invariant: a set with a `facts.json` is whole; what a run changes is taken back. Nothing here knows the programs
that back it up.
"""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sysconfig
from pathlib import Path

import image
import mutate
from measure import bytes_below
from peers import Apt, Unavailable

KERNEL = "linux-source-6.1"
PACKAGES = """
openjdk-17-jre-headless openjdk-17-jdk-headless llvm-14 llvm-14-dev libllvm14 libclang-cpp14 gcc-12 g++-12
libreoffice-core libreoffice-common libboost1.74-dev python3-numpy python3-scipy python3-sklearn-lib fonts-noto-cjk
fonts-noto-core golang-1.19-src gimp-data inkscape rust-src libnode108 libwebkit2gtk-4.0-37 postgresql-15
python3-pandas python3-django firefox-esr wesnoth-1.16-music locales emacs-common texlive-latex-extra
node-typescript git r-base-core
""".split()
IMAGE_FIRST = ["openjdk-17-jre-headless", "firefox-esr", "libreoffice-core", "llvm-14"]
IMAGE_REMOVED = "llvm-14"
IMAGE_ADDED = ["gcc-12", "git"]
SHARE = 0.01
GB = 10**9


def apart(function, *args):
    """In a process of its own: what it leaves in memory would be counted to the programs started later."""
    worker = multiprocessing.get_context("fork").Process(target=function, args=args)
    worker.start()
    worker.join()
    if worker.exitcode != 0:
        raise Unavailable(f"{function.__name__} ended with {worker.exitcode}")


class DataSet:
    """Some folders, with what is known of them. `needs` is room on the disk while it is built, in bytes."""

    needs = 0
    after = ()
    changes = True

    def __init__(self, name, cache):
        self.name, self.cache = name, Path(cache)
        self.dir = self.cache / "data" / name
        self.roots = [self.dir / "tree"]
        self.journal = self.cache / "data" / f"{name}.journal"

    def ensure(self, say):
        """Builds it unless it is there, and takes back what an interrupted run changed."""
        self.undo()
        if not (self.dir / "facts.json").exists():
            free = shutil.disk_usage(self.cache).free
            if free < self.needs + GB:
                raise Unavailable(f"{self.name} needs {self.needs / GB:.0f} GB of disk, {free / GB:.1f} GB are free")
            say(f"building the data set {self.name}")
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir.mkdir(parents=True)
            made_of = self.build()
            total, files = self.count()
            facts = {"files": files, "bytes": total, "made_of": made_of}
            (self.dir / "facts.json").write_text(json.dumps(facts, indent=1))
        self.facts = json.loads((self.dir / "facts.json").read_text())

    def count(self):
        sums = [bytes_below(root) for root in self.roots]
        return sum(total for total, _ in sums), sum(files for _, files in sums)

    def build(self):
        raise NotImplementedError

    def one(self):
        """A small file, always the same."""
        return next(path for path in mutate.regular_files(self.roots) if 2048 <= os.path.getsize(path) < 2**20)

    def warm(self):
        """Into the page cache, so that no program pays for another."""
        subprocess.run(
            ["bash", "-c", 'find "$@" -type f -print0 | xargs -0r cat >/dev/null', "warm", *map(str, self.roots)],
            check=True)

    def change(self, seed):
        apart(mutate.apply, self.roots, SHARE, seed, self.journal)

    def undo(self):
        if self.journal.exists():
            apart(mutate.undo, self.journal)

    def made_of(self):
        return f"`{self.name}` is {self.facts['made_of']}."

    def describe(self):
        facts = self.facts
        size = f"{facts['bytes'] / GB:.2f} GB" if facts["bytes"] >= GB / 10 else f"{facts['bytes'] / 1e6:.1f} MB"
        files = "one file" if facts["files"] == 1 else f"{facts['files']:,} files".replace(",", " ")
        return f"`{self.name}`: {size}, {files}"


class Linux(DataSet):
    needs = 2 * GB

    def build(self):
        version = Apt(self.cache).unpack(KERNEL, self.roots[0])
        sources = self.roots[0] / "usr/src"
        for archive in sources.glob("*.tar.*"):
            subprocess.run(["tar", "-xf", archive, "-C", sources], check=True)
            archive.unlink()
        return f"Debian package {version}, unpacked"

    def one(self):
        return str(next(self.roots[0].glob("usr/src/*/kernel/sched/core.c")))


class Packages(DataSet):
    needs = 5 * GB
    after = ("linux",)

    def __init__(self, name, cache):
        super().__init__(name, cache)
        self.roots = [self.dir / "tree", self.cache / "data/linux/tree"]

    def build(self):
        apt = Apt(self.cache)
        versions = [apt.unpack(package, self.roots[0] / package) for package in PACKAGES]
        return f"the set `linux` and {len(versions)} Debian packages, unpacked: {', '.join(versions)}"


class Tiny(DataSet):
    """Real text in pieces of 64 to 4095 bytes, sizes spread evenly by their logarithm, 250 to a folder."""

    needs = 2 * GB
    after = ("linux",)
    number = 400_000
    pool = 64 << 20

    def build(self):
        apart(self.cut)
        return "64 B to 4 KiB of text each, cut from the set `linux`"

    def text(self):
        pool = bytearray()
        for path in mutate.regular_files([self.cache / "data/linux/tree"]):
            if path.endswith((".c", ".h", ".rst")):
                pool += Path(path).read_bytes()
                if len(pool) >= self.pool:
                    break
        return pool

    def cut(self):
        dice, pool = random.Random(1), self.text()
        for index in range(self.number):
            folder = self.roots[0] / f"{index // 250 % 64:02}" / f"{index // 250:05}"
            if index % 250 == 0:
                folder.mkdir(parents=True)
            start, size = dice.randrange(len(pool) - 4096), int(2 ** dice.uniform(6, 12))
            with open(folder / f"{index:06}.txt", "wb", buffering=0) as file:
                file.write(pool[start:start + size])


class Noise(DataSet):
    needs = 3 * GB
    size = 2**31
    changes = False

    def build(self):
        apart(self.write)
        return "incompressible, from a seeded generator"

    def write(self):
        dice = random.Random(2)
        self.roots[0].mkdir()
        with open(self.roots[0] / "noise.bin", "wb") as file:
            for _ in range(self.size >> 20):
                file.write(dice.randbytes(1 << 20))


class Image(DataSet):
    """A raw disk image that takes the place of its former self when it changes."""

    needs = 8 * GB
    after = ("linux",)
    size = 4 << 30

    def __init__(self, name, cache):
        super().__init__(name, cache)
        self.now, self.old, self.new = (self.dir / part for part in ("tree/disk.raw", "before.raw", "after.raw"))

    def build(self):
        stage, added = self.dir / "stage", self.dir / "added"
        self.now.parent.mkdir()
        versions, removed, new = self.fill(stage, added)
        image.make(self.now, stage, self.size)
        image.changed_copy(self.now, self.new, stage, removed, added, SHARE)
        shutil.rmtree(stage)
        shutil.rmtree(added)
        return f"raw ext4 of {self.size >> 20} MiB holding {versions}; the second version has 1 % of its files " \
            f"changed in place, {removed} removed and {new} added"

    def fill(self, stage, added):
        apt = Apt(self.cache)
        stage.mkdir()
        # Links instead of copies: the tree is read once and gone again.
        subprocess.run(["cp", "-al", self.cache / "data/linux/tree", stage / "linux"], check=True)
        versions = ["the set `linux`"] + [apt.unpack(package, stage / package) for package in IMAGE_FIRST]
        new = [apt.unpack(package, added / package) for package in IMAGE_ADDED]
        return ", ".join(versions), IMAGE_REMOVED, ", ".join(new)

    def change(self, seed):
        os.rename(self.now, self.old)
        os.rename(self.new, self.now)

    def undo(self):
        if self.old.exists():
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.now, self.new)
            os.rename(self.old, self.now)


class Smoke(DataSet):
    """Whatever Python brings along: enough to see every part of the bench work, too little to mean anything."""

    number = 3000

    def build(self):
        source = Path(sysconfig.get_path("stdlib"))
        paths = (path for path in mutate.regular_files([source]) if path.endswith((".py", ".txt", ".h")))
        for path, _ in zip(paths, range(self.number)):
            target = self.roots[0] / os.path.relpath(path, source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        return "the first files of Python's library on this machine"


class SmokeImage(Image):
    needs = GB
    after = ("smoke",)
    size = 128 << 20

    def fill(self, stage, added):
        tree = self.cache / "data/smoke/tree"
        first, *others = sorted(path for path in tree.iterdir() if path.is_dir())
        shutil.copytree(tree, stage)
        shutil.copytree(first, added / "again")
        return "the set `smoke`", others[0].name, f"{first.name} once more"


class SmokeNoise(Noise):
    needs = GB
    size = 32 << 20


SETS = {
    "linux": Linux, "packages": Packages, "tiny": Tiny, "image": Image, "random": Noise,
    "smoke": Smoke, "smoke-image": SmokeImage, "smoke-random": SmokeNoise,
}


def open_set(name, cache, say):
    """The set, built if need be with those it is made from."""
    for needed in SETS[name].after:
        open_set(needed, cache, say)
    found = SETS[name](name, cache)
    found.ensure(say)
    return found
