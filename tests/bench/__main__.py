"""`make bench`: Everhold beside restic, rustic and Borg, on the same data, in turns. See docs/benchmarks.md.

Owns the order of things: sets ≺ rounds ≺ phases ≺ tools, each round in another order; and that nothing it started,
mounted, changed or wrote outlives it but the cache, the record of runs and the tables.
"""

import argparse
import datetime
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import peers
import table
import tools
import works
from data import GB, open_set
from machine import PROJECT, commit, described, fresh_folder, say, words
from measure import Failed, bytes_below, run
from peers import Unavailable
from stats import number, rotated


def options():
    parser = argparse.ArgumentParser(prog="make bench", description="Options are make variables: ONLY=first,unchanged")
    add = parser.add_argument
    add("--only", type=words, default="", help=f"works: {', '.join(works.WORKS)}")
    add("--data", type=words, default="", help=f"data sets: {', '.join(works.TREES)}, image, random")
    add("--tools", type=words, default="", help=f"programs: {', '.join(tools.TOOLS)}")
    add("--rounds", type=int, help="rounds, each with every program (3; 1 on smoke)")
    add("--extra", type=int, help="further rounds at most while walls were rejected (2; 0 on smoke)")
    add("--cache", type=Path, help="folder of programs, data and runs (~/.cache/everhold-bench)")
    add("--out", type=Path, help="document to write (docs/benchmarks.md)")
    add("--bin", type=Path, default=PROJECT / "target/dist", help="folder of everhold and everhold-agent")
    chosen = parser.parse_args()
    for given, known in ((chosen.only, works.WORKS), (chosen.data, [*works.TREES, *works.SMALL]),
                         (chosen.tools, tools.TOOLS)):
        unknown = [word for word in given if word not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen.cache = (chosen.cache or home / "everhold-bench").resolve()
    # Programs run in folders of their own: relative names would be lost there.
    chosen.bin = chosen.bin.resolve()
    if not (chosen.bin / "everhold").exists() or not (chosen.bin / "everhold-agent").exists():
        sys.exit(f"bench: everhold and everhold-agent are not in {chosen.bin}: make build")
    smoke = "smoke" in chosen.data
    chosen.rounds = chosen.rounds or (1 if smoke else 3)
    chosen.extra = (0 if smoke else 2) if chosen.extra is None else chosen.extra
    chosen.out = chosen.out or (chosen.cache / "smoke.md" if smoke else PROJECT / "docs/benchmarks.md")
    return chosen


class Programs:
    """What can be run here: paths and versions, and why the others cannot."""

    def __init__(self, options):
        self.paths, self.versions, self.missing = {}, {}, {}
        self.commit = commit()
        agent = options.bin / "everhold-agent"
        self.paths["everhold"] = agent
        self.versions["everhold"] = peers.call(agent, "--version").strip().replace("everhold-agent", "everhold")
        wanted = options.tools or [
            key for key in tools.TOOLS if key != "everhold-small" or self.has_small(agent)]
        for name in ("restic", "rustic", "borg"):
            if not any(tools.TOOLS[key][1] == name for key in wanted):
                continue
            try:
                if name == "rustic" and "smoke" in options.data and not (options.cache / "rustic").exists():
                    raise Unavailable("not built yet, and a smoke run does not build for half an hour")
                self.paths[name], self.versions[name] = peers.obtain(name, options.cache, say)
            except Unavailable as reason:
                self.missing[name] = str(reason)
                say(f"without {name}: {reason}")
        self.keys = [key for key in tools.TOOLS if key in wanted and tools.TOOLS[key][1] in self.paths]

    @staticmethod
    def has_small(agent):
        return "--memory" in peers.call(agent, "backup", "--help")


class Bench:
    """All rounds of one data set."""

    def __init__(self, dataset, phases, programs, options, records):
        self.set, self.phases, self.programs, self.options = dataset, phases, programs, options
        self.records, self.run = records, options.cache / "run"
        self.platform = tools.Platform(options.bin / "everhold", self.run / "p", self.run / "platform.log")
        self.single = self.set.one() if "one" in phases else None

    def rounds(self):
        # Repositories of one round: one at a time, or of all programs until its end, compressed.
        room = self.set.facts["bytes"] * max(1, len(self.phases) > 1 and len(self.programs.keys) / 4) + GB
        free = shutil.disk_usage(self.run).free
        if free < room:
            raise Unavailable(f"a round needs {room / GB:.0f} GB of disk, {free / GB:.1f} GB are free")
        for index in range(self.options.rounds + self.options.extra):
            if index >= self.options.rounds and not self.rejected():
                break
            say(f"{self.set.name}: round {index + 1}")
            self.round(index)

    def rejected(self):
        """Whether a program still lacks undisturbed walls."""
        good = {}
        for record in self.records:
            if record["set"] == self.set.name and "failed" not in record:
                key = record["phase"], record["tool"]
                good[key] = good.get(key, 0) + (not record["rejected"])
        return any(count < self.options.rounds for count in good.values())

    def round(self, index):
        shutil.rmtree(self.run / "t", ignore_errors=True)
        try:
            self.platform.start()
            running = [self.tool(key) for key in self.programs.keys]
            for phase in self.phases:
                if phase == "changed":
                    self.set.change(index)
                for tool in rotated([tool for tool in running if self.takes_part(tool, phase)], index):
                    record = {"set": self.set.name, "phase": phase, "tool": tool.key, "round": index}
                    try:
                        record |= self.measure(phase, tool, index)
                    except Failed as reason:
                        record["failed"] = str(reason)
                        running = [other for other in running if other is not tool]
                    self.keep(record)
                    if len(self.phases) == 1:
                        tool.discard()
        finally:
            self.platform.stop()
            self.set.undo()
            shutil.rmtree(self.run / "t", ignore_errors=True)

    @staticmethod
    def takes_part(tool, phase):
        """The small profile is there for the memory of a first backup alone."""
        return tool.key != "everhold-small" or phase == "first"

    def tool(self, key):
        cls, program, _ = tools.TOOLS[key]
        return cls(key, self.programs.paths[program], self.platform, self.run / "t" / key)

    def keep(self, record):
        self.records.append(record)
        with open(self.options.cache / "runs.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        said = record.get("failed") or "wall {} s, CPU {} s, {} MB{}".format(
            number(record["wall"]), number(record["cpu"]), number(record["rss"] / 1e6),
            f", rejected: others {number(record['others'])} cores" if record["rejected"] else "")
        say(f"  {record['phase']:10} {record['tool']:15} {said}")

    def measure(self, phase, tool, index):
        if phase in works.BACKUPS:
            # Each time: while others were at work the system may have given the pages to somebody else.
            self.set.warm()
            before = tool.stored()
            if phase == "first":
                tool.prepare()
                # What a new repository holds counts as stored: only a shared store's former content does not.
                before = before if tool.on_platform else 0
            record = self.cost(phase, tool, tool.backup(self.set.roots))
            record["stored"] = tool.stored() - before
            return record
        with fresh_folder(self.run, self.set.facts["bytes"] * 2 + (1 << 30)) as target:
            argv = tool.restore(target) if phase == "restore" else tool.one(self.single, target)
            record = self.cost(phase, tool, argv, target)
            self.check(phase, target)
            if phase == "restore" and index == 0:
                self.compare(target)
        return record

    def cost(self, phase, tool, argv, cwd=None):
        log = self.run / f"{tool.key}-{phase}.log"
        cost, said = run(argv, log, tool.env, cwd or self.run, self.platform.roots())
        used = cost.servers_cpu if tool.on_platform else 0.0
        record = {
            "wall": cost.wall, "cpu": cost.cpu, "servers_cpu": used, "rss": cost.rss, "others": cost.others,
            "rejected": cost.rejected, "command": self.shown(argv, tool, cwd),
        }
        return record | ({"reported": tool.reported(said)} if phase in works.BACKUPS else {})

    def shown(self, argv, tool, cwd):
        """The command as one would type it, without secrets."""
        settings = [f"{name}={'…' if 'KEY' in name else value}" for name, value in tool.environment().items()]
        line = " ".join([*settings, shlex.join([Path(argv[0]).name, *map(str, argv[1:])])])
        for path, name in ((cwd, "$TARGET"), (tool.home, "$HERE"), (self.options.cache / "data", "$DATA")):
            line = line.replace(str(path), name) if path else line
        return line

    def check(self, phase, target):
        """A restore that did not bring everything back was no restore."""
        size, files = bytes_below(target)
        expected = (os.path.getsize(self.single), 1) if phase == "one" else (self.set.facts["bytes"], self.set.facts["files"])
        if (size, files) != expected:
            raise Failed(f"restored {files} files of {size} bytes, not {expected[1]} of {expected[0]}")


    def compare(self, target):
        """Every byte, once: programs differ in how much of the path they lay out again."""
        for root in self.set.roots:
            parts = root.parts[1:]
            here = next(path for cut in range(len(parts) + 1)
                        if (path := target.joinpath(*parts[cut:])).exists())
            differing = subprocess.run(
                ["diff", "-rq", "--no-dereference", root, here], capture_output=True, text=True).stdout.splitlines()
            if differing:
                raise Failed(f"the restore differs: {differing[0]} and {len(differing) - 1} more")


def about(cell, dataset, programs, options, seconds, rounds):
    data = "smoke" if dataset.name.startswith("smoke") else dataset.name
    command = f"make bench ONLY={works.work_of(cell)} DATA={data} ROUNDS={options.rounds}"
    command += f" TOOLS={','.join(options.tools)}" if options.tools else ""
    lines = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, commit {programs.commit}; {described()}.",
        ", ".join(programs.versions.values()) + "".join(
            f"; without {name} ({reason})" for name, reason in programs.missing.items()) + ".",
        f"Data {dataset.describe()}.",
        f"All works on this set took {seconds:.0f} s in {rounds} round{'s' * (rounds > 1)}. `{command}`",
    ]
    return "\n".join(lines)


def write(cells, dataset, programs, options, records, seconds):
    """Tables of one set, as soon as it is done: a later failure does not take them away."""
    mine = [record for record in records if record["set"] == dataset.name]
    rounds = max(record["round"] for record in mine) + 1
    text = options.out.read_text() if options.out.exists() else "# Benchmarks\n"
    for cell in (cell for cell in cells if cell[1] == dataset.name):
        head = about(cell, dataset, programs, options, seconds, rounds)
        block = table.block(cell, mine, rounds, head, dataset.made_of())
        text = table.replace(text, table.key_of(cell), block)
        print(f"\n{block}")
    options.out.write_text(table.replace(text, "goals", table.overview(text)))


def main():
    # Whatever ends us, `finally` stops the platform and takes back what was changed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    chosen = options()
    cells = works.cells(chosen.only, chosen.data)
    if not cells:
        sys.exit("bench: these works have nothing to do with these data sets")
    chosen.cache.mkdir(parents=True, exist_ok=True)
    lock = open(chosen.cache / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"bench: another bench is using {chosen.cache}")
    shutil.rmtree(chosen.cache / "run", ignore_errors=True)
    (chosen.cache / "run").mkdir()
    programs = Programs(chosen)
    say(", ".join(programs.versions.values()))
    records, failed = [], False
    for name in dict.fromkeys(name for _, name in cells):
        phases = works.phases_to_run(phase for phase, other in cells if other == name)
        try:
            dataset = open_set(name, chosen.cache, say)
            start = time.monotonic()
            Bench(dataset, phases, programs, chosen, records).rounds()
        except (Unavailable, OSError, subprocess.CalledProcessError) as reason:
            say(f"without {name}: {reason}")
            failed = True
            continue
        write(cells, dataset, programs, chosen, records, time.monotonic() - start)
    say(f"written: {chosen.out}")
    sys.exit(1 if failed or any("failed" in record for record in records) else 0)


if __name__ == "__main__":
    main()
