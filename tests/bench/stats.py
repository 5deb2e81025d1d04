"""Medians, ratios and how they are written. Pure."""

from statistics import median

NOTHING = "–"


def ratios(above, below):
    """Per-round quotients of two series with a value or None for each round; None where either is missing."""
    return [a / b if a is not None and b else None for a, b in zip(above, below)]


def present(values):
    return [value for value in values if value is not None]


def number(value):
    """Two or three digits that matter, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 0.1 or value == 0:
        return f"{value:.2f}"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def spread(values):
    """`2.79 [2.71–3.00]`; one value alone; a dash when there is none."""
    values = present(values)
    if not values:
        return NOTHING
    text = number(median(values))
    if len(values) > 1:
        text += f" [{number(min(values))}–{number(max(values))}]"
    return text


def per_round(values):
    """`3.71 (3.81 3.45 3.71)`: the median, then every round in order."""
    known = present(values)
    if not known:
        return NOTHING
    if len(values) == 1:
        return number(known[0])
    return f"{number(median(known))} ({' '.join(NOTHING if v is None else number(v) for v in values)})"


def rotated(items, by):
    """Round `by`'s order: everybody is first once."""
    by %= len(items) or 1
    return items[by:] + items[:by]


def megabytes(count):
    return None if count is None else count / 1e6
