"""The figures of a build's report. They need matplotlib, which is an extra."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from beam_pipelines.reporting.summary import GROUPS, Summary
from schemas import celeba
from support import figures
from support.figures import MUTED, PAPER, PRIMARY, SECONDARY, Layout

_SMALL = Layout(4.6, 3.5, left=0.9, right=0.35, bottom=0.8, top=0.4)
#: PNG file -> layout of its panels.
_LAYOUTS = {
    "report-classes.png": _SMALL,
    "report-people.png": _SMALL,
    "report-attributes.png": Layout(4.6, 6, left=1.6, right=0.2, bottom=0.65, top=0.4),
}
#: Marker, color, size and name of each of `GROUPS` in the charts of attributes.
_MARKERS = (
    ("|", MUTED, 13, "all images"),
    ("o", PRIMARY, 7, "train"),
    ("D", MUTED, 4, "validation"),
    ("o", SECONDARY, 4, "test"),
)


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
    # The most frequent attribute first, in two columns if there are two.
    order = np.argsort(-summary.prevalence[0], kind="stable")
    columns = np.array_split(order, min(2, len(order)))
    titles = "Prevalence", "Prevalence, continued"
    counts = summary.class_counts[1:]
    classes = [(name, color, counts[:, c]) for c, name, color in _classes(positive)]
    people = [("people", PRIMARY, summary.people[1:])]
    panels = {
        "report-classes.png": [
            functools.partial(_fractions, summary, positive),
            functools.partial(_counts, classes, "images", "Perceived label: images"),
        ],
        "report-attributes.png": [
            functools.partial(_prevalence, summary, *column)
            for column in zip(columns, titles, strict=False)
        ],
    }
    if summary.people[0]:
        panels["report-people.png"] = [
            functools.partial(_counts, people, "people", "People in each split"),
            functools.partial(_images_per_person, summary),
        ]
    files, elements = {}, {}
    for name, members in panels.items():
        layout = _LAYOUTS[name]
        files[name] = figures.png(members, layout)
        stem = name.removesuffix(".png")
        elements[name] = [
            figures.svg(panel, f"{stem}-{number}", layout)
            for number, panel in enumerate(members, 1)
        ]
    return files, elements


def _fractions(summary: Summary, positive: str, axes: Axes) -> None:
    """Each group as one bar of 100 %."""
    fractions = summary.class_counts / np.maximum(summary.images, 1)[:, None]
    start = np.zeros(len(GROUPS))
    for label, name, color in _classes(positive):
        widths = fractions[:, label]
        bars = axes.barh(GROUPS, widths, 0.62, start, color=color, label=name)
        texts = [f"{100 * width:.1f} %" if width > 0.12 else "" for width in widths]
        axes.bar_label(bars, texts, label_type="center", color=PAPER)
        start = start + widths
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set(xlim=(0, 1))
    _bars_from_top(axes, "Perceived label: fractions")
    _legend_below(axes)


def _counts(
    series: Sequence[tuple[str, str, np.ndarray]], what: str, title: str, axes: Axes
) -> None:
    """Counts of each split; `series` are name, color and counts (3,) of each bar."""
    height = 0.72 / len(series)
    for number, (name, color, counts) in enumerate(series):
        places = np.arange(len(counts)) + (number + 0.5) * height - 0.36
        bars = axes.barh(places, counts, height - 0.02, color=color, label=name)
        axes.bar_label(bars, fmt="{:,.0f}", padding=4, color=MUTED, fontsize=9)
    axes.margins(x=0.16)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_yticks(np.arange(len(celeba.SPLITS)), celeba.SPLITS)
    axes.set(xlabel=what)
    _bars_from_top(axes, title)
    if len(series) > 1:
        _legend_below(axes)


def _images_per_person(summary: Summary, axes: Axes) -> None:
    """How many people have how many images, before and after the selection."""
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
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(False, axis="x")
    axes.set(xlabel="images of one person", ylabel="people")
    axes.set_title("Images per person")
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.19), ncols=2, fontsize=9, borderpad=0
    )


def _prevalence(summary: Summary, columns: np.ndarray, title: str, axes: Axes) -> None:
    """The fraction of images with each attribute of `columns`, in each group."""
    prevalence = summary.prevalence[:, columns]
    places = np.arange(len(columns))
    for fractions, (marker, color, size, name) in zip(
        prevalence, _MARKERS, strict=True
    ):
        axes.plot(
            fractions,
            places,
            marker,
            color=color,
            markersize=size,
            markeredgewidth=2 if marker == "|" else 0,
            label=name,
            clip_on=False,
            zorder=3,
        )
    axes.set_yticks(
        places, [summary.attributes[column].replace("_", " ") for column in columns]
    )
    axes.set_xlim(0, max(0.01, 1.02 * float(np.nanmax(prevalence))))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_ylim(len(columns) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.set_title(title)
    _legend_below(axes)


def _classes(positive: str) -> tuple[tuple[int, str, str], ...]:
    """Label, name and color of each class, in the order of drawing."""
    return (0, f"not {positive}", MUTED), (1, positive, PRIMARY)


def _bars_from_top(axes: Axes, title: str) -> None:
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_title(title)


def _legend_below(axes: Axes) -> None:
    figure = axes.get_figure()
    handles, names = axes.get_legend_handles_labels()
    if figure is not None and not figure.legends:
        figure.legend(handles, names, loc="lower left", ncols=len(names), fontsize=9)
