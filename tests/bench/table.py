"""From the records of runs to the Markdown of docs/benchmarks.md. Pure: no number comes from anywhere else.

A block stands between two markers that name its cell; a run replaces the blocks of what it measured and leaves the
others, with their date and commit, as they were.
"""

import re
from statistics import median

from stats import NOTHING, megabytes, number, per_round, present, ratios, spread
from tools import TOOLS
from works import BACKUPS, GOALS, TITLES

PEERS = [key for key in TOOLS if not key.startswith("everhold")]
METRICS = {
    "wall": "wall", "cpu": "CPU, the program alone", "cpu_all": "CPU, all processes", "rss": "peak memory",
    "stored": "stored",
}


def key_of(cell):
    return "/".join(cell)


def replace(text, key, block):
    """The document with the block of `key` replaced, or added at its end."""
    start, end = f"<!-- bench:{key} -->", f"<!-- /bench:{key} -->"
    fresh = f"{start}\n{block.strip()}\n{end}"
    if start not in text:
        return f"{text.rstrip()}\n\n{fresh}\n"
    before, rest = text.split(start, 1)
    if end not in rest:
        raise ValueError(f"the marker {end} is missing")
    return before + fresh + rest.split(end, 1)[1]


GOAL_HEADER = ["goal", "must", "stretch", "measured", "reached"]


def overview(text):
    """Every goal of every block of the document in one table: read from the blocks, so it cannot differ from them."""
    lines = []
    for key, body in re.findall(r"<!-- bench:(\S+) -->\n(.*?)<!-- /bench:\1 -->", text, re.DOTALL):
        if key == "goals" or rows(GOAL_HEADER, []) not in body:
            continue
        day = re.search(r"^(\d{4}-\d\d-\d\d) .*?commit (\w+)", body, re.MULTILINE)
        below = body.split(rows(GOAL_HEADER, []), 1)[1].strip().split("\n\n", 1)[0]
        for line in below.splitlines():
            lines.append([key, *line.strip("| ").split(" | "), f"{day[1]}, {day[2]}" if day else NOTHING])
    return rows(["", *GOAL_HEADER, "when, commit"], lines)


class Series:
    """What one cell's runs of every tool gave, a value or None for each round."""

    def __init__(self, records, rounds):
        self.rounds = rounds
        self.by_tool = {}
        for record in records:
            self.by_tool.setdefault(record["tool"], {})[record["round"]] = record

    def tools(self):
        return [key for key in TOOLS if key in self.by_tool]

    def ran(self, tool):
        return [r for r in self.by_tool.get(tool, {}).values() if "failed" not in r]

    def values(self, tool, metric, rejected=False):
        """`wall` of rejected runs is None unless asked for."""
        found = []
        for index in range(self.rounds):
            record = self.by_tool.get(tool, {}).get(index)
            if record is None or "failed" in record:
                found.append(None)
            elif metric == "wall" and record["rejected"] and not rejected:
                found.append(None)
            elif metric in ("rss", "stored"):
                found.append(megabytes(record.get(metric)))
            elif metric == "cpu_all":
                found.append(record["cpu"] + record["servers_cpu"])
            else:
                found.append(record[metric])
        return found

    def peer_over_own(self, peer, metric, own="everhold"):
        return ratios(self.values(peer, metric), self.values(own, metric))


def wall(series, tool):
    good = series.values(tool, "wall")
    if present(good):
        return spread(good)
    return f"rejected ({spread(series.values(tool, 'wall', rejected=True))})"


def rows(header, lines):
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])


def measured(phase, series):
    stored = {"first": ["stored MB"], "unchanged": ["adds MB"], "changed": ["adds MB"]}.get(phase, [])
    lines = []
    for tool in series.tools():
        if not series.ran(tool):
            continue
        cells = [spread(series.values(tool, metric)) for metric in ("cpu", "cpu_all", "rss")]
        if stored:
            cells.append(spread(series.values(tool, "stored")))
        lines.append([TOOLS[tool][2], wall(series, tool), *cells])
    return rows(["", "wall s", "CPU s, the program", "CPU s, all processes", "peak MB", *stored], lines)


def compared(phase, series):
    """Peers over Everhold, per round; nothing without both."""
    metrics = ["wall", "cpu", "cpu_all", "rss"] + (["stored"] if phase in BACKUPS else [])
    lines = []
    for peer in PEERS:
        if not (series.ran(peer) and series.ran("everhold")):
            continue
        lines.append([TOOLS[peer][2]] + [per_round(series.peer_over_own(peer, metric)) for metric in metrics])
    if not lines:
        return ""
    return rows(["divided by Everhold", *(METRICS[metric] for metric in metrics)], lines)


def goal_words(goal):
    sign = "≤" if goal.at_most else "≥"
    if goal.peer is None:
        what = f"{TOOLS[goal.tool][2]}, {METRICS[goal.metric]}, MB"
    elif goal.at_most:
        what = f"{METRICS[goal.metric]}, Everhold ÷ {goal.peer}"
    else:
        what = f"{METRICS[goal.metric]}, {goal.peer} ÷ Everhold"
    stretch = NOTHING if goal.stretch is None else f"{sign} {goal.stretch:g}"
    return what, f"{sign} {goal.must:g}", stretch


def goal_values(goal, series):
    """[(where the peer's repository was, value)]; nothing where it was not measured."""
    if goal.peer is None:
        known = present(series.values(goal.tool, goal.metric))
        return [("", max(known))] if known else []
    found = []
    for peer, where in ((goal.peer, "folder"), (f"{goal.peer}-s3", "same S3")):
        values = present(series.peer_over_own(peer, goal.metric, goal.tool))
        if values:
            value = median(values)
            found.append((where, 1 / value if goal.at_most and value else value))
    return found


def goals(cell, series):
    lines = []
    for goal in (goal for goal in GOALS if goal.cell == cell):
        values = goal_values(goal, series)
        if goal.tool not in series.by_tool and goal.tool != "everhold":
            continue
        said = ", ".join(f"{number(value)} {where}".strip() for where, value in values) or NOTHING
        verdict = goal.met(values[0][1]) if values else "not measured"
        lines.append([*goal_words(goal), said, verdict])
    return rows(GOAL_HEADER, lines) if lines else ""


def rejections(series):
    """The rejected walls by name."""
    lines = []
    for tool in series.tools():
        walls = [
            f"round {record['round'] + 1} {number(record['wall'])} s beside {number(record['others'])} cores"
            for record in series.ran(tool) if record["rejected"]]
        if walls:
            lines.append(f"* {TOOLS[tool][2]}: {', '.join(walls)}")
    if lines:
        lines = ["Walls rejected because others used more than 0.1 core:\n" + "\n".join(lines)]
    return lines


def memory(series):
    lines = [[TOOLS[tool][2], spread(series.values(tool, "rss"))] for tool in series.tools() if series.ran(tool)]
    return rows(["", "peak MB of the largest process"], lines)


def failures(series):
    failed = {
        TOOLS[tool][2]: record["failed"]
        for tool in series.tools() for record in series.by_tool[tool].values() if "failed" in record
    }
    return [f"Failed: {name}: `{why.replace('`', '')}`." for name, why in failed.items()]


def commands(records, made_of):
    """What was run on what, from the records themselves."""
    seen = {}
    for record in records:
        if "command" in record:
            seen.setdefault(TOOLS[record["tool"]][2], record["command"])
    listed = "\n".join(f"{name}: {line}" for name, line in seen.items())
    return f"<details><summary>Data and commands</summary>\n\n{made_of}\n\n```\n{listed}\n```\n\n</details>"


def block(cell, records, rounds, about, made_of):
    """One cell's part of the document. `about` says when, where and how, `made_of` on what: the caller knows."""
    phase, name = cell
    mine = [r for r in records if r["set"] == name and r["phase"] == ("first" if phase == "memory" else phase)]
    if phase != "memory":
        mine = [r for r in mine if r["tool"] != "everhold-small"]
    series = Series(mine, rounds)
    parts = [f"### {TITLES[phase]}: {name}", about]
    if phase == "memory":
        parts += [memory(series), goals(cell, series)]
    else:
        parts += [measured(phase, series), compared(phase, series), goals(cell, series)]
        own = [r["reported"] for r in mine if r.get("reported") is not None]
        if own:
            parts.append(f"Everhold's agent reported {number(median(own) / 1e6)} MB stored.")
        parts += rejections(series)
    parts += [*failures(series), commands(mine, made_of)]
    return "\n\n".join(part for part in parts if part)
