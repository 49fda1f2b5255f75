"""Numbers as text for reports: percentages, decimals, intervals, durations."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from support import progress

PERCENT = "\u00a0%"  # with a space that does not break


def percent(value: float | None) -> str:
    """0.943 -> "94.3 %"; None and NaN are a dash."""
    return _formatted(value, lambda number: f"{100 * number:.1f}{PERCENT}")


def decimal(value: float | None) -> str:
    """0.98765 -> "0.988"; None and NaN are a dash."""
    return _formatted(value, "{:.3f}".format)


def points(value: float | None) -> str:
    """-0.0253 -> "−2.5", percentage points; None and NaN are a dash."""
    text = _formatted(value, lambda number: f"{100 * number:+.1f}")
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def thousands(value: float | None) -> str:
    """1234.5 -> "1,234"; None and NaN are a dash."""
    return _formatted(value, "{:,.0f}".format)


def interval(
    bounds: Sequence[float | None] | None, formatter: Callable[[float], str] = decimal
) -> str:
    """(0.928, 0.956) -> "92.8–95.6 %", of points "−1.0 to +2.0"; None is a dash."""
    low, high = map(formatter, (None, None) if bounds is None else bounds)
    if low == "–":
        return low
    between = " to " if formatter is points else "–"  # signed: no other dash
    return low.removesuffix(PERCENT) + between + high


def estimate(
    value: float | None,
    bounds: Sequence[float] | None,
    formatter: Callable[[float], str] = decimal,
) -> str:
    """0.943, (0.928, 0.956) -> "94.3 % (92.8–95.6 %)"; without bounds the value."""
    shown = interval(bounds, formatter)
    return formatter(value) + ("" if shown == "–" else f" ({shown})")


def images_of_people(metrics: Mapping[str, Any]) -> str:
    """What was evaluated: "1,000 images of 523 people", as far as that is known."""
    images = f"{thousands(metrics['n'])} images"
    if metrics["bootstrap"]["over"] == "images":
        return images
    return f"{images} of {thousands(metrics['people'])} people"


def resampled(metrics: Mapping[str, Any]) -> str:
    """What the draws of a bootstrap are made of."""
    if metrics["bootstrap"]["over"] == "images":
        return "resampling images: whom they show is unknown, so it may be too narrow"
    return "resampling people"


def duration(seconds: float) -> str:
    """200 -> "3 min 20 s", with spaces that do not break."""
    return re.sub(r"(?<=\d) ", "\u00a0", progress.duration(seconds))


def option(value: object) -> str:
    """An option's value as it is written on the command line; "" is a dash."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return "–" if value == "" else str(value)


def printable(text: str) -> str:
    """A text in which all characters that could steer a terminal are replaced."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _formatted(value: float | None, formatter: Callable[[float], str]) -> str:
    return "–" if value is None or math.isnan(value) else formatter(value)


#: For templates, by name.
FILTERS = {
    function.__name__: function
    for function in (
        *(percent, decimal, points, thousands),
        *(interval, estimate, duration, option, images_of_people, resampled),
    )
}
