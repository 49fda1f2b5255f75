"""Numbers in words: per cent, decimals, intervals, durations."""

import re

from support import live

PERCENT = "\u00a0%"  # with a space that does not break


def percent(value: float | None) -> str:
    """0.943 -> "94.3 %"; an undefined value is a dash."""
    return "–" if value is None else f"{100 * value:.1f}{PERCENT}"


def decimal(value: float | None) -> str:
    """0.98765 -> "0.988"; an undefined value is a dash."""
    return "–" if value is None else f"{value:.3f}"


def interval(bounds: tuple[float, float] | None, formatter=decimal) -> str:
    """(0.928, 0.956) -> "92.8–95.6 %" or "0.928–0.956"; none is a dash."""
    if bounds is None:
        return "–"
    low, high = (formatter(bound) for bound in bounds)
    return low.removesuffix(PERCENT) + "–" + high


def duration(seconds: float) -> str:
    """200 -> "3 min 20 s", where no line ends between a number and its unit."""
    return re.sub(r"(?<=\d) ", "\u00a0", live.duration(seconds))


def points(value: float | None) -> str:
    """-0.0253 -> "−2.5", percentage points; an undefined value is a dash."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")
