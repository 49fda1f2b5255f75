"""The figures of a comparison: forest plots, and accuracy against cost.

Each function returns a panel, which `support.figures` draws as PNG or SVG. Blue: the
best group and those that cannot be told apart from it; gray: the others.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from support.figures import MUTED, PRIMARY, Panel
from trainer.evaluation.comparison import Comparison
from trainer.reporting.forest import forest, wrapped

_MARKERS = "osD^v<>pPX*hd"
#: Costs that differ by more than this factor get a logarithmic axis.
_LOGARITHMIC = 8


def accuracies(comparison: Comparison) -> Panel:
    """Accuracy of each group with its interval, and of each of its seeds as a tick."""
    groups = comparison.groups
    return forest(
        "Test accuracy",
        names=[group.name for group in groups],
        values=comparison.accuracy,
        intervals=comparison.intervals,
        colors=_colors(comparison),
        ticks=[group.accuracies if len(group.seeds) > 1 else () for group in groups],
    )


def differences(comparison: Comparison) -> Panel:
    """Difference of each group to the best, with its simultaneous interval."""
    rows = range(1, len(comparison.groups))
    return forest(
        "Difference to the best",
        names=[comparison.groups[row].name for row in rows],
        values=comparison.difference[1:, 0],
        intervals=[comparison.bounds(row, 0) for row in rows],
        colors=_colors(comparison)[1:],
        zero=True,
    )


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
        colors = _colors(comparison)
        for row in known:
            style = {"color": colors[row], "marker": _MARKERS[row % len(_MARKERS)]}
            label = wrapped(comparison.groups[row].name)
            point = (costs[row], comparison.accuracy[row])
            axes.plot(*point, **style, markersize=7, linestyle="", label=label)
            axes.vlines(costs[row], *comparison.intervals[row], colors[row], alpha=0.6)
        values = [costs[row] for row in known]
        _scale_x(axes, min(values), max(values))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel(name)
        for text in axes.legend(fontsize=8).get_texts():
            text.set_parse_math(False)

    return draw


def _scale_x(axes: Axes, low: float, high: float) -> None:
    """Chooses a logarithmic axis where the points are far apart."""
    axes.margins(x=0.15)
    if low > 0 and high / low > _LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _colors(comparison: Comparison) -> list[str]:
    return [MUTED if worse else PRIMARY for worse in comparison.better[0]]
