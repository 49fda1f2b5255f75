"""The figures of a build's report. They need matplotlib, which is an extra.

Each function returns a panel, which `support.figures` draws as PNG or SVG.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from beam_pipelines.reporting.summary import GROUPS, Summary
from schemas import celeba
from support import figures
from support.figures import MUTED, PAPER, PRIMARY, SECONDARY, Layout, Panel

#: PNG file -> layout of its panels.
_LAYOUTS = {
    "report-classes.png": Layout(4.6, 3.5, left=0.9, right=0.35, bottom=0.8, top=0.4),
    "report-people.png": Layout(4.6, 3.5, left=0.9, right=0.35, bottom=0.8, top=0.4),
    "report-attributes.png": Layout(4.6, 6, left=1.6, right=0.2, bottom=0.65, top=0.4),
}
_HALVES = 2  # the chart of attributes has two columns


def draw(
    summary: Summary, positive: str
) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Draws everything.

    Args:
      summary: the numbers.
      positive: the attribute as words, for example "Wearing Hat".

    Returns:
      PNG files by name; and, by the same names, their panels as `<svg>` elements.
    """
    panels = {
        "report-classes.png": [_shares(summary, positive), _counts(summary, positive)],
        "report-attributes.png": _attributes(summary),
    }
    if summary.people[0]:
        panels["report-people.png"] = [_people(summary), _images_per_person(summary)]
    pictures, elements = {}, {}
    for name, members in panels.items():
        layout = _LAYOUTS[name]
        pictures[name] = figures.png(members, layout)
        stem = name.removesuffix(".png")
        elements[name] = [
            figures.svg(panel, f"{stem}-{number}", layout)
            for number, panel in enumerate(members, 1)
        ]
    return pictures, elements


def _shares(summary: Summary, positive: str) -> Panel:
    """Each group as one bar of 100 %."""

    def draw(axes: Axes) -> None:
        totals = np.maximum(summary.images, 1)
        start = np.zeros(len(GROUPS))
        for label, name, color in _classes(positive):
            share = summary.class_counts[:, label] / totals
            axes.barh(GROUPS, share, 0.62, start, color=color, label=name)
            for group, (left, width) in enumerate(zip(start, share, strict=True)):
                if width > 0.12:
                    axes.text(
                        left + width / 2,
                        group,
                        f"{100 * width:.1f} %",
                        color=PAPER,
                        ha="center",
                        va="center",
                    )
            start = start + share
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set(xlim=(0, 1))
        _bars_from_top(axes, "Perceived label: shares")
        _legend_below(axes)

    return draw


def _counts(summary: Summary, positive: str) -> Panel:
    """Images of each class in each split."""

    def draw(axes: Axes) -> None:
        counts = summary.class_counts[1:]
        place = np.arange(len(counts))
        for label, name, color in _classes(positive):
            shift = (label - 0.5) * 0.36
            bars = axes.barh(
                place + shift, counts[:, label], 0.34, color=color, label=name
            )
            axes.bar_label(bars, fmt="{:,.0f}", padding=4, color=MUTED, fontsize=9)
        axes.set_yticks(place, celeba.SPLITS)
        axes.margins(x=0.16)
        _count_axis(axes)
        axes.set(xlabel="images")
        _bars_from_top(axes, "Perceived label: images")
        _legend_below(axes)

    return draw


def _people(summary: Summary) -> Panel:
    def draw(axes: Axes) -> None:
        bars = axes.barh(celeba.SPLITS, summary.people[1:], 0.55, color=PRIMARY)
        axes.bar_label(bars, fmt="{:,.0f}", padding=4, color=MUTED, fontsize=9)
        axes.margins(x=0.16)
        _count_axis(axes)
        axes.set(xlabel="people")
        _bars_from_top(axes, "People in each split")

    return draw


def _images_per_person(summary: Summary) -> Panel:
    """How many people have how many images, before and after the selection."""

    def draw(axes: Axes) -> None:
        selected = np.concatenate(summary.per_person[1:])
        for counts, color, opacity, width, name in (
            (summary.per_person[0], MUTED, 0.35, 0.9, "all images"),
            (selected, PRIMARY, 1, 0.5, "selected, in one split"),
        ):
            people = np.bincount(counts)
            axes.bar(
                np.arange(len(people)),
                people,
                width,
                color=color,
                alpha=opacity,
                label=name,
                linewidth=0,
            )
        axes.set_xlim(left=0.4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(False, axis="x")
        axes.set(xlabel="images of one person", ylabel="people")
        axes.set_title("Images per person")
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, -0.19),
            ncols=2,
            fontsize=9,
            borderpad=0,
        )

    return draw


def _attributes(summary: Summary) -> list[Panel]:
    """Prevalence of every attribute, the most frequent first, in columns."""
    order = np.argsort(-summary.prevalence[0], kind="stable")
    return [
        _prevalence(summary, part, number)
        for number, part in enumerate(np.array_split(order, _HALVES))
    ]


def _prevalence(summary: Summary, columns: np.ndarray, number: int) -> Panel:
    styles = (
        ("|", MUTED, 13, "all images"),
        ("o", PRIMARY, 7, "train"),
        ("D", MUTED, 4, "validation"),
        ("o", SECONDARY, 4, "test"),
    )

    def draw(axes: Axes) -> None:
        place = np.arange(len(columns))
        names = [celeba.ATTRIBUTES[column].replace("_", " ") for column in columns]
        for shares, (marker, color, size, name) in zip(
            summary.prevalence[:, columns], styles, strict=True
        ):
            axes.plot(
                shares,
                place,
                marker,
                color=color,
                markersize=size,
                markeredgewidth=2 if marker == "|" else 0,
                label=name,
                clip_on=False,
                zorder=3,
            )
        axes.set_yticks(place, names)
        highest = float(np.nanmax(summary.prevalence[:, columns]))
        axes.set_xlim(0, max(0.01, 1.02 * highest))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(len(columns) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.set_title("Prevalence" if not number else "Prevalence, continued")
        _legend_below(axes)

    return draw


def _classes(positive: str) -> tuple[tuple[int, str, str], ...]:
    """Label, name and color of each class, as they are drawn."""
    return (0, f"not {positive}", MUTED), (1, positive, PRIMARY)


def _bars_from_top(axes: Axes, title: str) -> None:
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_title(title)


def _count_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _legend_below(axes: Axes) -> None:
    figure = axes.get_figure()
    handles, names = axes.get_legend_handles_labels()
    if figure is not None and not figure.legends:
        figure.legend(handles, names, loc="lower left", ncols=len(names), fontsize=9)
