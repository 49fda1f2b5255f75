"""Forest plots: a row per group with its value, interval and name."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from support import figures
from support.figures import INK, MUTED, PRIMARY, SECONDARY, Panel

_NAME_WIDTH = 24  # characters of a line of a group's name


def forest(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[Sequence[float]],
    colors: Sequence[str],
    markers: Sequence[str] = "o",
    ticks: Sequence[Sequence[float]] = (),
    zero: bool = False,
) -> Panel:
    """Draws values in percent, the first row at the top.

    Args:
      title: of the figure.
      names: of the rows.
      values: of the rows, as fractions.
      intervals: (low, high) as fractions, NaN where unknown.
      colors: of the rows.
      markers: of the rows, repeated.
      ticks: further values of each row, drawn small.
      zero: whether the values are differences: marks zero.
    """

    def draw(axes: Axes) -> None:
        if zero:
            axes.axvline(0, color=INK, linewidth=1)
        for row, (value, bounds) in enumerate(zip(values, intervals, strict=True)):
            color, marker = colors[row], markers[row % len(markers)]
            axes.hlines(row, *[100 * bound for bound in bounds], color)
            axes.plot(100 * value, row, marker, color=color, markersize=7)
        for row, further in enumerate(ticks):
            for value in further:
                axes.plot(100 * value, row + 0.22, "|", color=SECONDARY)
        # Names may contain dollar signs, which matplotlib would take for formulas.
        labels = [wrapped(name) for name in names]
        axes.set_yticks(range(len(names)), labels, parse_math=False, fontsize=9)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlabel("percentage points" if zero else "percent")
        axes.set_title(title)

    return draw


def subgroup_gaps(rows: pd.DataFrame) -> Markup:
    """Accuracy gaps of rows of `evaluation.subgroups` as an `<svg>` element."""
    colors = rows["accuracy_gap"].lt(0).map({True: SECONDARY, False: PRIMARY})
    panel = forest(
        "Accuracy gap to the rest",
        names=list(rows["title"]),
        values=rows["accuracy_gap"],
        intervals=rows[["accuracy_gap_low", "accuracy_gap_high"]].to_numpy(),
        colors=list(colors.mask(rows["small"] == 1, MUTED)),
        markers=list(rows["accuracy_gap_survives"].map({1: "o", 0: "|"})),
        zero=True,
    )
    height = 1.0 + 0.28 * len(rows)
    layout = figures.Layout(4.8, height, left=2.0, right=0.12, bottom=0.5, top=0.4)
    return Markup(figures.svg(panel, "subgroup-gaps", layout))


def wrapped(name: str) -> str:
    """A name in lines that fit next to a figure."""
    return textwrap.fill(name, _NAME_WIDTH)
