"""`make profile`: where the agent's time goes in each work, and the least this machine needs for it.

Everhold alone, each work once, with perf beside it; the tables go into docs/performance.md. What a work needs at
least is what other people's tools take for the part of it that nobody can leave out: reading, compressing, looking at
every file, writing them. Owns what counts as such, and which function belongs to which kind of work.
"""

import argparse
import datetime
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import peers
import table
import tools
from data import open_set
from machine import PROJECT, commit, described, fresh_folder, say, words
from measure import run
from stats import number

# What each set is good for, in the order of a round.
CASES = {
    "linux": ["first", "unchanged", "restore", "one", "changed"], "packages": ["first"],
    "tiny": ["first", "unchanged", "changed"], "image": ["first", "changed"], "random": ["first"],
}
# Large files are compressed in haste: what they need at least is a low level.
LEVELS = {"linux": 3, "tiny": 3, "packages": 1, "image": 1}
# By the name of the function; the first that fits. The kernel is told by where its functions are.
KINDS = {
    "zstd, compressing": r"^(ZSTD_(?!decompress|.*[dD]ecod)|HUF_(compress|build|write|sort|opt|card|mini|val)|HIST_|FSE_(?!decomp|buildD))",
    "zstd, decoding": r"^(ZSTD_|HUF_|FSE_)",
    "BLAKE3": r"blake3",
    "SHA-256": r"sha256|sha2::",
    "AES-GCM": r"gcm|aes|ghash|polyval",
    "FastCDC": r"fastcdc|chunk::",
    "copies": r"^__?mem|^mem(cpy|move|set|cmp)",
    "allocator": r"^_rjem|malloc|dealloc",
}
REST = "our own"


def kind_of(place, function):
    """The kind of work a sample is of, by the file its code is in and its function."""
    if "kernel" in place or place.startswith("[") and place != "[vdso]":
        return "kernel"
    return next((kind for kind, names in KINDS.items() if re.search(names, function)), REST)


def shares(report):
    """Kind of work → share of the samples, out of lines of perf: percent|file|function."""
    found = {}
    for line in report.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[0].endswith("%"):
            kind = kind_of(parts[1], re.sub(r"^\[[.kgu]\] ", "", parts[2]))
            found[kind] = found.get(kind, 0.0) + float(parts[0][:-1]) / 100
    return found


def cpu_of(*argv):
    """CPU seconds of a command and all it starts."""
    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
    before = spent()
    subprocess.run(list(map(str, argv)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return spent() - before


def every_file(dataset, command):
    return ["bash", "-c", f'find "$@" -type f -print0 | xargs -0r {command}', "all", *dataset.roots]


def zstd_speeds(dataset, level, work):
    """Bytes a second and core, compressing and decoding, in blocks of 128 KiB as bundles have them."""
    with tempfile.NamedTemporaryFile(dir=work) as together:
        subprocess.run(every_file(dataset, "cat"), stdout=together, check=True)
        said = subprocess.run(
            ["zstd", f"-b{level}", "-i3", "-B131072", together.name], check=True, capture_output=True, text=True)
    speeds = re.findall(r"([\d.]+) MB/s", (said.stdout + said.stderr).rsplit("\r", 1)[-1])
    return [float(speed) * 1e6 for speed in speeds[-2:]]


class Least:
    """CPU seconds that the works on one set need at least, with what they are for."""

    def __init__(self, dataset, work):
        self.set, self.work = dataset, work
        size = dataset.facts["bytes"]
        dataset.warm()
        self.reading = cpu_of(*every_file(dataset, "cat"))
        self.looking = cpu_of("find", *dataset.roots, "-printf", "%s %T@ %C@ %i\n")
        if dataset.name in LEVELS:
            self.level = LEVELS[dataset.name]
            compress, decode = zstd_speeds(dataset, self.level, work)
            self.compressing, self.decoding = size / compress, size / decode

    def of(self, phase):
        if phase == "first" and self.set.name == "random":
            return {"cat": self.reading, "openssl sha256": cpu_of(*every_file(self.set, "openssl dgst -sha256"))}
        if phase == "first":
            return {"cat": self.reading, f"zstd -{self.level} -B128K": self.compressing}
        if phase == "restore":
            together = self.work / "all.tar"
            subprocess.run(["tar", "-cPf", together, *self.set.roots], check=True)
            with fresh_folder(self.work, self.set.facts["bytes"] * 2 + (1 << 30)) as target:
                writing = cpu_of("tar", "-xf", together, "-C", target)
            together.unlink()
            return {"tar -x to tmpfs": writing, "zstd -d": self.decoding}
        if phase in ("unchanged", "changed") and self.set.name != "image":
            return {"find -printf": self.looking}
        if phase == "changed":
            return {"cat": self.reading}
        return {}


class Profile:
    """All works on one set."""

    def __init__(self, dataset, options, folder):
        self.set, self.options, self.folder = dataset, options, folder
        self.platform = tools.Platform(options.bin / "everhold", folder / "p", folder / "platform.log")
        self.agent = tools.Everhold("everhold", options.bin / "everhold-agent", self.platform, folder / "t")

    def run(self, phases):
        """[(phase, cost, shares, CPU needed at least by what)]."""
        least, found = Least(self.set, self.folder), []
        try:
            self.platform.start()
            self.agent.prepare()
            for phase in CASES[self.set.name]:
                if phase == "changed":
                    self.set.change(0)
                cost, kinds = self.measure(phase)
                if phase in phases:
                    found.append((phase, cost, kinds, least.of(phase)))
                    say(f"  {self.set.name} {phase}: wall {number(cost.wall)} s, CPU {number(cost.cpu)} s")
        finally:
            self.platform.stop()
            self.set.undo()
        return found

    def measure(self, phase):
        self.set.warm()
        if phase not in ("restore", "one"):
            return self.recorded(phase, self.agent.backup(self.set.roots))
        with fresh_folder(self.folder, self.set.facts["bytes"] * 2 + (1 << 30)) as target:
            whole = self.agent.restore(target)
            return self.recorded(phase, whole if phase == "restore" else self.agent.one(self.set.one(), target))

    def recorded(self, phase, argv):
        samples = self.folder / "perf.data"
        perf = ["perf", "record", "-q", "-F", "499", "-o", samples, "--"]
        cost, _ = run([*perf, *argv], self.folder / f"{phase}.log", self.agent.env, self.folder, self.platform.roots())
        report = subprocess.run(
            ["perf", "report", "-i", samples, "--stdio", "-q", "--percent-limit", "0", "-t", "|",
             "--sort", "dso,sym"],
            check=True, capture_output=True, text=True).stdout
        found = shares(report)
        if sum(found.values()) < 0.95:
            sys.exit(f"profile: perf's report of {phase} tells of {percent(sum(found.values()))} of the samples")
        return cost, found


def percent(share):
    return "–" if share < 0.005 else f"{share * 100:.0f} %"


def written(results, versions):
    """The two tables, from {set: [(phase, cost, shares, least)]}."""
    kinds = ["kernel", *KINDS, REST]
    cores = os.cpu_count()
    spent, needed = [], []
    for name, rows in results.items():
        for phase, cost, parts, least in rows:
            total = sum(parts.values()) or 1
            busy = (cost.cpu + cost.servers_cpu) / (cost.wall * cores)
            spent.append([f"{phase}/{name}", number(cost.wall), number(cost.cpu), number(cost.servers_cpu), percent(busy),
                          *(percent(parts.get(kind, 0) / total) for kind in kinds)])
            if least:
                floor = sum(least.values()) / cores
                needed.append([f"{phase}/{name}", number(floor),
                               ", ".join(f"{what} {number(cpu)}" for what, cpu in least.items()),
                               number(cost.wall), number(cost.wall / floor)])
    return "\n".join([
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}; {described()}. {versions}. Each work once.",
        "", table.rows(["work", "wall s", "CPU s, agent", "CPU s, servers", "both, of all cores", *kinds], spent),
        "", table.rows(["work", f"at least s, on {cores} cores", "CPU s, and of what", "Everhold, wall s", "times as long"], needed)])


def options():
    parser = argparse.ArgumentParser(prog="make profile", description="Options are make variables: DATA=linux,tiny")
    add = parser.add_argument
    add("--only", type=words, default="", help="works, of those below")
    add("--data", type=words, default="", help=", ".join(f"{name} ({' '.join(works)})" for name, works in CASES.items()))
    add("--cache", type=Path, help="folder of data (~/.cache/everhold-bench), as for make bench")
    add("--out", type=Path, default=PROJECT / "docs/performance.md", help="document to write")
    add("--bin", type=Path, default=PROJECT / "target/dist", help="folder of everhold and everhold-agent")
    chosen = parser.parse_args()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen.cache, chosen.bin = (chosen.cache or home / "everhold-bench").resolve(), chosen.bin.resolve()
    missing = [program for program in ("perf", "zstd", "openssl") if not shutil.which(program)]
    if missing:
        sys.exit(f"profile: {' and '.join(missing)} not found; on Debian they are in linux-perf, zstd and openssl")
    for names, known in ((chosen.data, list(CASES)), (chosen.only, sorted({work for works in CASES.values() for work in works}))):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return chosen


def main():
    chosen = options()
    versions = peers.call("zstd", "--version").strip().strip("*").strip()
    results = {}
    for name in chosen.data or CASES:
        dataset = open_set(name, chosen.cache, say)
        with tempfile.TemporaryDirectory(prefix="profile-", dir=chosen.cache) as folder:
            results[name] = Profile(dataset, chosen, Path(folder)).run(chosen.only or CASES[name])
    block = written(results, versions)
    print(block)
    if chosen.data or chosen.only:
        return say("a part is only printed; make profile of everything writes the tables")
    chosen.out.write_text(table.replace(chosen.out.read_text(), "profile", block))


if __name__ == "__main__":
    main()
