"""Forest plots: a row per group with its value, interval and name."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from support.figures import INK, Panel

_NAME_WIDTH = 24  # characters of a line of a group's name


def forest(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[Sequence[float] | None],
    colors: Sequence[str],
    markers: str | Sequence[str] = "o",
    zero: bool = False,
) -> Panel:
    """Draws values in percent, the first row at the top.

    Args:
      title: of the figure.
      names: of the rows.
      values: as fractions.
      intervals: (low, high) as fractions, None where unknown.
      colors: of the rows.
      markers: one for all rows, or one per row.
      zero: whether to mark zero, for differences.
    """

    def draw(axes: Axes) -> None:
        if zero:
            axes.axvline(0, color=INK, linewidth=1)
        for row, (value, bounds, color) in enumerate(
            zip(values, intervals, colors, strict=True)
        ):
            if bounds is not None:
                ends = [100 * bound for bound in bounds]
                axes.plot(ends, [row, row], color=color, linewidth=1.5)
            marker = markers[row % len(markers)]
            axes.plot(100 * value, row, marker, color=color, markersize=7)
        wrapped = [textwrap.fill(name, _NAME_WIDTH) for name in names]
        # Names may contain dollar signs, which matplotlib would take for formulas.
        axes.set_yticks(range(len(names)), wrapped, parse_math=False, fontsize=9)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlabel("percentage points" if zero else "percent")
        axes.set_title(title)

    return draw
