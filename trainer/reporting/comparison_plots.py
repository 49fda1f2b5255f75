"""The figures of a comparison: forest plots, and accuracy against what it costs.

Each function returns a panel, which `support.figures` draws as PNG or SVG. Blue: the
best group and those that cannot be told apart from it; gray: the others.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from support.figures import MUTED, PRIMARY, SECONDARY, Panel
from trainer.evaluation.comparison import Comparison

_NAME_WIDTH = 22  # characters of a line of a group's name
#: Costs that differ by more than this factor get a logarithmic axis.
_LOGARITHMIC = 8
#: Points that a letter and a line of a name at a point take, about.
_LETTER, _LINE = 5.0, 11.0
#: Where such a name may stand: side, points upward.
_PLACES = ((1, 4), (-1, 4), (1, -4), (-1, -4), (1, 16), (-1, 16), (1, -16), (-1, -16))


def forest(comparison: Comparison) -> Panel:
    """Accuracy of each group with its interval, and of each of its seeds as a tick."""

    def draw(axes: Axes) -> None:
        for row, group in enumerate(comparison.groups):
            color = _color(comparison, row)
            bounds = comparison.intervals[row]
            if bounds:
                axes.plot(bounds, [row, row], color=color)
            axes.plot(comparison.accuracy[row], row, "o", color=color, markersize=7)
            if len(group.seeds) > 1:
                each = group.accuracies
                axes.plot(each, np.full(len(each), row + 0.22), "|", color=SECONDARY)
        _name_rows(axes, [group.name for group in comparison.groups])
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_title("Test accuracy")

    return draw


def differences(comparison: Comparison) -> Panel:
    """How far each group is from the best, with its simultaneous interval."""

    def draw(axes: Axes) -> None:
        rows = range(1, len(comparison.groups))
        axes.axvline(0, color=SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
        for row in rows:
            color, bounds = _color(comparison, row), comparison.bounds(row, 0)
            if bounds:
                axes.plot([100 * bound for bound in bounds], [row - 1] * 2, color=color)
            middle = 100 * comparison.difference[row, 0]
            axes.plot(middle, row - 1, "o", color=color, markersize=7)
        _name_rows(axes, [comparison.groups[row].name for row in rows])
        axes.set_xlabel("percentage points")
        axes.set_title("Difference to the best")

    return draw


def against(comparison: Comparison, costs: Sequence[float | None], name: str) -> Panel:
    """Accuracy with its interval against a cost; a line of text if none is known.

    Args:
      comparison: of the groups.
      costs: of each group, None where unknown.
      name: of the cost, with its unit.
    """

    def draw(axes: Axes) -> None:
        axes.set_title(f"Accuracy and {name}")
        known = [row for row, cost in enumerate(costs) if cost is not None]
        if not known:
            axes.text(0.5, 0.5, "not recorded", ha="center", color=MUTED)
            axes.set(xticks=[], yticks=[])
            return
        values = [costs[row] for row in known]
        _scale(axes, min(values), max(values))
        for row in known:
            _point(axes, comparison, row, costs[row])
        _name_points(axes, comparison, {row: costs[row] for row in known})
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel(name)

    return draw


def _point(axes: Axes, comparison: Comparison, row: int, cost: float) -> None:
    color, accuracy = _color(comparison, row), comparison.accuracy[row]
    bounds = comparison.intervals[row]
    if bounds:
        axes.plot([cost, cost], bounds, color=color, linewidth=1.2, alpha=0.6)
    axes.plot(cost, accuracy, "o", color=color, markersize=7)


def _name_points(axes: Axes, comparison: Comparison, points: dict[int, float]) -> None:
    """Puts each name beside its point, where it meets no other name or point."""
    scale = axes.figure.dpi / 72
    frame = axes.bbox
    taken = []
    for row, cost in points.items():
        x, y = axes.transData.transform((cost, comparison.accuracy[row])) / scale
        taken.append((x - 4, y - 4, x + 4, y + 4))
    for row, cost in points.items():
        x, y = axes.transData.transform((cost, comparison.accuracy[row])) / scale
        name = _wrapped(comparison.groups[row].name)
        width = _LETTER * max(map(len, name.split("\n")))
        height = _LINE * (1 + name.count("\n"))
        boxes = {}
        for side, up in _PLACES:
            left = x + 6 if side > 0 else x - 6 - width
            low = y + up - (height if up < 0 else 0)
            box = (left, low, left + width, low + height)
            cut = max(frame.x0 / scale - box[0], box[2] - frame.x1 / scale, 0)
            boxes[side, up] = cut + sum(_overlap(box, other) for other in taken), box
        side, up = min(boxes, key=lambda place: boxes[place][0])
        taken.append(boxes[side, up][1])
        axes.annotate(
            name,
            (cost, comparison.accuracy[row]),
            (6 * side, up),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="bottom" if up >= 0 else "top",
            fontsize=9,
            color=_color(comparison, row),
            parse_math=False,
        )


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes (left, low, right, high) share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from top to bottom, each with its name."""
    axes.set_yticks(range(len(names)), [_wrapped(name) for name in names])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _scale(axes: Axes, low: float, high: float) -> None:
    """Room beside the points; a logarithmic axis where they lie far apart."""
    if low > 0 and high / low > _LOGARITHMIC:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.15 * (high - low) or 0.2 * abs(high) or 1
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _color(comparison: Comparison, row: int) -> str:
    return MUTED if comparison.better[0, row] else PRIMARY


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, _NAME_WIDTH)) or name
