#!/usr/bin/env python3
"""Writes the figures of `make fault` (target/fault/*.json) into docs/reliability.md, between its markers.

  scripts/fault_report.py sample | long | bugs
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reliability.md"
FIGURES = ROOT / "target/fault"


def acts(long):
    found = [json.loads(path.read_text()) for path in sorted(FIGURES.glob("*.json"))
             if path.name != "bugs.json"]
    return [one for one in found if one.get("long") == long]


def points(figures):
    lines = ["| operation | changes of state | faults at them | points gone through | the run itself got through | failures | s |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    total = defaultdict(float)
    for one in figures:
        met = sum(count for count, _ in one["met"].values())
        through = sum(count for _, count in one["met"].values())
        row = (one["operations"], one["all"], met, through, len(one["failures"]), one["seconds"])
        for at, value in enumerate(row):
            total[at] += value
        lines.append(f"| {one['act']} | " + " | ".join(f"{value:.0f}" for value in row) + " |")
    lines.append("| all | " + " | ".join(f"{total[at]:.0f}" for at in range(6)) + " |")
    lines.append("")
    lines += by_fault(figures)
    missed = sum(len(one["missed"]) for one in figures)
    packs = sum(one["packs"] for one in figures)
    lines += ["", f"{missed} further points were not met again (an operation that depends on timing and did not come a "
              f"second time) and are not counted. {packs} packs were sent, none with a key or salt of another."]
    # Without what the run said: there are paths of this machine in it.
    failures = [f"* {one['act']}: {failure.split(' (the run')[0]}" for one in figures for failure in one["failures"]]
    return lines + ([""] + failures if failures else [])


def by_fault(figures):
    table = defaultdict(lambda: defaultdict(int))
    for one in figures:
        for key, (count, _) in one["met"].items():
            seam, fault = key.split("|")
            table[fault][seam] += count
    seams = sorted({seam for row in table.values() for seam in row})
    lines = ["| fault | " + " | ".join(seams) + " |", "| --- |" + " ---: |" * len(seams)]
    for fault in sorted(table):
        lines.append(f"| {fault} | " + " | ".join(str(table[fault].get(seam, 0)) for seam in seams) + " |")
    return lines


def hostile(figures):
    if not figures:
        return []
    table = defaultdict(lambda: defaultdict(int))
    for one in figures:
        for key, count in one["by"].items():
            kind, what = key.split("|")
            table[kind][what] += count
    kinds = sorted({what for row in table.values() for what in row})
    lines = ["", "| altered object | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    for kind in sorted(table):
        lines.append(f"| {kind} | " + " | ".join(str(table[kind].get(what, 0)) for what in kinds) + " |")
    for one in figures:
        lines += ["", f"{one['total']} alterations in {one['seconds']:.0f} s: {one['silent']} silent or panicking."]
    return lines


def bugs():
    lines = ["| planted bug | caught by |", "| --- | --- |"]
    for one in json.loads((FIGURES / "bugs.json").read_text()):
        tests = "; ".join(f"`{test}`" for test in one["caught_by"]) or "**nothing**"
        lines.append(f"| {one['bug']} | {tests} |")
    return lines


def main():
    what = sys.argv[1]
    if what == "bugs":
        lines = bugs()
    else:
        figures = acts(what == "long")
        lines = points([one for one in figures if "met" in one])
        lines += hostile([one for one in figures if "by" in one])
    begin, end = f"<!-- {what} -->", f"<!-- /{what} -->"
    text = PAGE.read_text()
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    PAGE.write_text(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


main()
