"""What is measured on which data, and the goals it is held to. Pure; the goals are those of the issue."""

from dataclasses import dataclass

TITLES = {
    "first": "First backup", "unchanged": "Unchanged, backed up again", "changed": "1 % of the files changed",
    "restore": "Restore", "one": "One small file restored", "memory": "Peak memory of a first backup",
}
# In the order in which one round does them: what changes the data comes last.
PHASES = ["first", "unchanged", "restore", "one", "changed"]
BACKUPS = {"first", "unchanged", "changed"}

# Work: (its phases, its data sets when none are named).
WORKS = {
    "first": (["first"], ["linux", "packages", "tiny"]),
    "unchanged": (["unchanged"], ["linux", "tiny"]),
    "changed": (["changed"], ["linux", "tiny"]),
    "restore": (["restore"], ["linux"]),
    "one": (["one"], ["linux"]),
    "image": (["first", "changed"], ["image"]),
    "random": (["first"], ["random"]),
    "memory": (["memory"], ["linux", "packages", "tiny"]),
}
TREES = ["linux", "packages", "tiny", "smoke"]
SMALL = {"image": "smoke-image", "random": "smoke-random"}


def cells(only, data):
    """[(phase, set)] in the order of the tables.

    Without data sets each work has its own; with some, a work takes those it can use, and `smoke` stands in for all.
    """
    found = []
    for work in only or WORKS:
        phases, sets = WORKS[work]
        if data:
            if work in SMALL:
                sets = [name for name in data if name == work] + ([SMALL[work]] if "smoke" in data else [])
            else:
                sets = [name for name in data if name in TREES]
        found += [(phase, name) for name in sets for phase in phases]
    return list(dict.fromkeys(found))


def work_of(cell):
    phase, name = cell
    for work, stand_in in SMALL.items():
        if name in (work, stand_in):
            return work
    return next(work for work, (phases, _) in WORKS.items() if phase in phases and work not in SMALL)


def phases_to_run(wanted):
    """What a round does to measure the wanted phases: everything starts with a first backup."""
    needed = {"first" if phase == "memory" else phase for phase in wanted} | {"first"}
    return [phase for phase in PHASES if phase in needed]


@dataclass(frozen=True)
class Goal:
    """`metric` of a peer divided by Everhold's must reach `must` (and is hoped to reach `stretch`).

    With `at_most` it is Everhold's value that is divided by the peer's; without a peer it is Everhold's value.
    """

    cell: tuple
    metric: str
    peer: str | None
    must: float
    stretch: float | None = None
    at_most: bool = False
    tool: str = "everhold"

    def met(self, value):
        def reached(bound):
            return value <= bound if self.at_most else value >= bound

        if self.stretch is not None and reached(self.stretch):
            return "stretch"
        return "must" if reached(self.must) else "missed"


def at_most(cell, metric, peer, must, stretch=None, tool="everhold"):
    return Goal(cell, metric, peer, must, stretch, True, tool)


GOALS = [
    Goal(("first", "linux"), "wall", "restic", 2.5, 3.5),
    Goal(("first", "linux"), "cpu", "restic", 2.3, 3.2),
    at_most(("first", "linux"), "stored", "restic", 0.87, 0.83),
    Goal(("first", "packages"), "wall", "restic", 2.5, 3.5),
    at_most(("first", "packages"), "stored", "restic", 0.95, 0.92),
    Goal(("first", "tiny"), "wall", "restic", 3, 5),
    at_most(("first", "tiny"), "stored", "restic", 0.75, 0.65),
    Goal(("unchanged", "tiny"), "wall", "restic", 5, 12),
    Goal(("changed", "tiny"), "wall", "restic", 4, 8),
    at_most(("changed", "tiny"), "stored", "restic", 0.6, 0.3),
    Goal(("restore", "linux"), "wall", "restic", 3, 5.5),
    Goal(("restore", "linux"), "wall", "rustic", 2, 4),
    at_most(("restore", "linux"), "rss", None, 128),
    Goal(("first", "image"), "wall", "rustic", 1.8, 2.5),
    at_most(("changed", "image"), "stored", "restic", 0.75, 0.6),
    Goal(("first", "random"), "wall", "rustic", 1.3, 2),
    Goal(("one", "linux"), "cpu", "restic", 4, 10),
    *(at_most(("memory", name), "rss", None, 192, 128) for name in WORKS["memory"][1]),
    *(at_most(("memory", name), "rss", None, 96, tool="everhold-small") for name in WORKS["memory"][1]),
]
