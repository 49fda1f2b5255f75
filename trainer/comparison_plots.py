"""The figures of a comparison: a forest plot, and accuracy against what it costs.

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
from trainer.comparison import Comparison

_NAME_WIDTH = 22  # characters of a line of a group's name
#: Costs that differ by more than this factor get a logarithmic axis.
_LOGARITHMIC = 8


def forest(comparison: Comparison) -> Panel:
    """Accuracy of each group with its interval, and of each of its seeds as a tick."""

    def draw(axes: Axes) -> None:
        rows = np.arange(len(comparison.groups))
        for row, group in enumerate(comparison.groups):
            color = _color(comparison, row)
            bounds = comparison.intervals[row]
            if bounds:
                axes.plot(bounds, [row, row], color=color)
            axes.plot(comparison.accuracy[row], row, "o", color=color, markersize=7)
            if len(group.seeds) > 1:
                each = group.accuracies
                axes.plot(each, np.full(len(each), row + 0.22), "|", color=SECONDARY)
        axes.set_yticks(rows, [_wrapped(group.name) for group in comparison.groups])
        for text in axes.get_yticklabels():
            text.set_parse_math(False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_title("Test accuracy")

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
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel(name)

    return draw


def _point(axes: Axes, comparison: Comparison, row: int, cost: float) -> None:
    color, accuracy = _color(comparison, row), comparison.accuracy[row]
    bounds = comparison.intervals[row]
    if bounds:
        axes.plot([cost, cost], bounds, color=color, linewidth=1.2, alpha=0.6)
    axes.plot(cost, accuracy, "o", color=color, markersize=7)
    # In the right half the name stands to the left, where there is room for it.
    left = axes.transAxes.inverted().transform(
        axes.transData.transform((cost, accuracy))
    )[0]
    side = 1 if left < 0.5 else -1
    axes.annotate(
        _wrapped(comparison.groups[row].name),
        (cost, accuracy),
        (7 * side, 5),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        fontsize=9,
        color=color,
        parse_math=False,
    )


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
