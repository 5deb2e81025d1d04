"""Runs one program and says what it cost.

Owns the reading of /proc and of the kernel's accounts. A run's own CPU comes from wait4 (the program and every
child it waited for); that of servers it talks to from the accounts of their process trees, before and after.
What is left of the machine's busy time is other people's: a wall clock measured beside it says nothing.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
KTHREADD = 2
# More of other people's work than this, in cores, and a wall clock is rejected.
QUIET = 0.1


class Failed(Exception):
    """A program that was to be measured did not do its work."""


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat. Times in seconds; `seconds` holds children that were waited for."""

    pid: int
    parent: int
    seconds: float


def parse_stat(line):
    """A process name may hold spaces and brackets: the fields begin behind the last bracket."""
    pid, rest = line.split(" (", 1)
    fields = rest.rsplit(")", 1)[1].split()
    return Process(int(pid), int(fields[1]), sum(map(int, fields[11:15])) * TICK)


def parse_busy(line):
    """Seconds the machine worked for programs (user, nice, system) or was taken from us (steal).

    Interrupts are left out: the kernel books them to nobody, also those of our own loopback traffic.
    """
    name, *ticks = line.split()
    if name != "cpu":
        raise ValueError(f"not the machine's line: {line!r}")
    user, nice, system, _idle, _wait, _irq, _softirq, steal = map(int, ticks[:8])
    return (user + nice + system + steal) * TICK


def processes():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                process = parse_stat(Path("/proc", entry, "stat").read_text(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[process.pid] = process
    return found


def tree(found, roots):
    """The processes of `found` that are a root or descend from one."""
    children = {}
    for process in found.values():
        children.setdefault(process.parent, []).append(process.pid)
    members, todo = {}, [pid for pid in roots if pid in found]
    while todo:
        pid = todo.pop()
        if pid not in members:
            members[pid] = found[pid]
            todo += children.get(pid, [])
    return members


@dataclass(frozen=True)
class Account:
    """CPU seconds at one moment, by whose they are."""

    at: float
    machine: float
    harness: float
    kernel: float
    servers: float

    @classmethod
    def take(cls, roots):
        found = processes()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/stat") as stat:
            machine = parse_busy(stat.readline())
        # Write-back and the like is the kernel's, and mostly the run's own doing.
        kernel = sum(p.seconds for p in found.values() if p.parent == KTHREADD)
        servers = sum(p.seconds for p in tree(found, roots).values())
        return cls(time.monotonic(), machine, usage.ru_utime + usage.ru_stime, kernel, servers)


@dataclass(frozen=True)
class Cost:
    """Seconds, bytes, and the cores that other people's processes used meanwhile."""

    wall: float
    cpu: float
    servers_cpu: float
    rss: int
    others: float

    @property
    def rejected(self):
        return self.others > QUIET


def others(before, after, own_cpu):
    """Cores used by none of ours between two accounts."""
    spent = after.machine - before.machine - own_cpu
    for part in ("harness", "kernel", "servers"):
        spent -= getattr(after, part) - getattr(before, part)
    return max(0.0, spent / max(after.at - before.at, TICK))


def run(argv, log, env=None, cwd=None, servers=(), limit=3600):
    """Runs `argv` to its end and returns (Cost, standard output).

    Raises Failed with the end of its log when it exits with anything but 0. `servers` are the process ids of the
    roots of what it talks to. Everything written before is on the disk first, so that nobody pays for another.
    """
    argv = list(map(str, argv))
    os.sync()
    with open(log, "ab") as err, open(f"{log}.out", "wb") as out:
        err.write(f"\n$ {' '.join(argv)}\n".encode())
        err.flush()
        before = Account.take(servers)
        told, total = launched(argv, limit, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        after = Account.take(servers)
    said = Path(f"{log}.out").read_text(errors="replace")
    if told is None or told[0] != 0:
        how = f"exited with {told[0]:.0f}" if told else f"was stopped after {after.at - before.at:.0f} s"
        raise Failed(f"{Path(argv[0]).name} {how}: {last_words(log, said)}")
    _, wall, cpu, peak = told
    return Cost(wall, cpu, after.servers - before.servers, int(peak) * 1024, others(before, after, total)), said


def launched(argv, limit, **kwargs):
    """((exit code, wall, CPU, peak KiB) of the program or None, CPU of it and its launcher)."""
    reader, writer = os.pipe()
    launcher = [sys.executable, "-I", "-S", "-B", Path(__file__).with_name("launch.py"), str(writer), *argv]
    child = subprocess.Popen(launcher, pass_fds=[writer], start_new_session=True, **kwargs)
    os.close(writer)
    watchdog = threading.Timer(limit, os.killpg, (child.pid, signal.SIGKILL))
    watchdog.start()
    try:
        _, _, usage = os.wait4(child.pid, 0)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        watchdog.cancel()
    child.returncode = 0  # It was waited for: Popen must not.
    with os.fdopen(reader) as told:
        figures = [float(figure) for figure in told.read().split()]
    return figures or None, usage.ru_utime + usage.ru_stime


def last_words(log, said, count=3):
    """The end of what this run wrote to its log; of its output when there is nothing."""
    lines = Path(log).read_text(errors="replace").rsplit("\n$ ", 1)[-1].splitlines()[1:]
    return " / ".join([line for line in lines if line.strip()][-count:] or said.splitlines()[-count:])[-400:]


def bytes_below(folder):
    """Sizes of the files below a folder, added up, and their number."""
    total = count = 0
    todo = [folder]
    while todo:
        try:
            entries = os.scandir(todo.pop())
        except FileNotFoundError:
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
                    count += 1
    return total, count
