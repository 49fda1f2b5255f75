"""The figures of results: the ladder, and rates and cost as something grows."""

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import Image  # matplotlib needs it, too

from benchmarks import harness
from benchmarks.published import Document, StepCase, kind_of
from support.figures import INK, MUTED, PAPER, PRIMARY, SECONDARY, Layout, Panel, png

#: Okabe and Ito's other colors, darkened like those of the reports.
_COLORS = (PRIMARY, SECONDARY, "#00795a", "#a8447f", "#6f5f00", "#3d8fc4", MUTED, INK)
_MARKERS = "osD^vPX"
_PALETTE = 128  # colors of a file
_PYTORCH = ", PyTorch"
_LADDER, _BATCH, _WORKERS, _COST = "ladder", "batch-size", "workers", "cost"
_LIMIT = "limit"
#: Cases of the input that are limits, not loaders.
_INPUT_LIMITS = ("decode only",)
_INPUT_LEFT_OUT = ("again", "evaluation", "1 core", "memory")
#: A name above a bar, and a bar below it, in rows.
_NAME, _HEIGHT = 0.30, 0.46
_ROW_INCHES = 0.42
#: Axes to the left, the names of the lines to the right.
_LINES_LAYOUT = Layout(7.2, 3.7, 0.9, 2.5, 0.6, 0.5)
#: Highest over lowest of an axis: below, 1, 2 and 5 are ticks, not only powers of ten.
_NARROW = 200

#: Name of a line -> its points, x to y.
Lines = dict[str, dict[float, float]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """Panels side by side, and the size of each."""

    panels: Sequence[Panel]
    layout: Layout

    def png(self) -> bytes:
        """The picture in few colors: a third of the bytes."""
        image = Image.open(io.BytesIO(png(self.panels, self.layout))).convert("RGB")
        buffer = io.BytesIO()
        few = image.quantize(_PALETTE, dither=Image.Dither.NONE)
        few.save(buffer, "png", optimize=True)
        return buffer.getvalue()


def pictures(documents: Sequence[Document]) -> dict[str, Picture]:
    """File name -> picture, of all that the results have numbers for."""
    kinds: dict[str, list[Document]] = {}
    for document in documents:
        kinds.setdefault(kind_of(document), []).append(document)
    found = {_ladder_name(one): ladder(one) for one in kinds.get(_LADDER, ())}
    by_batch = [panel for one in kinds.get("step", ()) for panel in _batch_panels(one)]
    by_workers = [panel for one in kinds.get("input", ()) for panel in _workers(one)]
    by_count = _cost(kinds.get("build", ()))
    others = {_BATCH: by_batch, _WORKERS: by_workers, _COST: by_count}
    return found | {
        f"{name}.png": Picture(panels, _LINES_LAYOUT)
        for name, panels in others.items()
        if panels
    }


def first(names: Iterable[str]) -> list[str]:
    """Of the figures those that the README shows."""
    return [name for name in names if name.startswith(_LADDER)][:1]


def ladder(document: Document) -> Picture:
    """Every rung's rate as a bar, its limit as a line across, and its share of it."""
    cases = {
        name: case
        for name, case in document["cases"].items()
        if not name.endswith(", again")
    }

    def draw(axes: Axes) -> None:
        rates = [case["median"] for case in cases.values()]
        limits = [case["facts"].get(_LIMIT, 0.0) for case in cases.values()]
        low = min(rates) / 10  # room for the numbers in the shortest bar
        for row, (name, case) in enumerate(cases.items()):
            _bar(axes, row, low, name, case)
        axes.set_xscale("log")
        axes.set_xlim(low, max(rates + limits) * 1.6)
        axes.set_ylim(len(cases) - 0.55, -0.65)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        _plain(axes, "x")
        axes.set_xlabel("images/s, and percent of the limit, the orange line")
        axes.set_title(document["benchmark"].replace("-", " "))

    height = 1.1 + _ROW_INCHES * len(cases)
    return Picture([draw], Layout(6.4, height, 0.2, 0.3, 0.6, 0.5))


def _bar(axes: Axes, row: int, low: float, name: str, case: Mapping[str, Any]) -> None:
    rate, limit = case["median"], case["facts"].get(_LIMIT)
    axes.barh(row + 0.12, rate - low, _HEIGHT, low, color=PRIMARY)
    said = harness.rate(rate)
    if limit:
        ends = (row + 0.12 - _HEIGHT / 2, row + 0.12 + _HEIGHT / 2)
        axes.plot([limit, limit], ends, color=SECONDARY, solid_capstyle="butt")
        said += f"  ({rate / limit:.0%})"
    axes.annotate(
        name, (low, row - _NAME), va="center", fontsize=9, color=INK, parse_math=False
    )
    axes.annotate(
        said,
        (low, row + 0.12),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=PAPER,
    )


def _ladder_name(document: Document) -> str:
    gpu = "-gpu" if document["hardware"]["gpu"] else ""
    return f"{document['benchmark']}{gpu}.png"


def _batch_panels(document: Document) -> list[Panel]:
    """Rate against batch size; one panel for each size of input and precision."""
    found: dict[str, Lines] = {}
    for name, case in document["cases"].items():
        step = StepCase.parse(name)
        if step is None or step.batch is None or step.case not in ("ours", "pytorch"):
            continue
        line = step.model + ("" if step.case == "ours" else _PYTORCH)
        lines = found.setdefault(f"{step.size} pixels, {step.precision}", {})
        lines.setdefault(line, {})[step.batch] = case["median"]
    return [
        _lines(lines, title, "images in a batch", "images/s of the train step")
        for title, lines in found.items()
        if any(len(points) > 1 for points in lines.values())
    ]


def _workers(document: Document) -> list[Panel]:
    """Rate against the number of cores, if more than one was measured."""
    lines: Lines = {}
    for name, case in document["cases"].items():
        workers = case.get("facts", {}).get("workers")
        line = name.partition(", workers=")[0]
        if workers and not any(word in line for word in _INPUT_LEFT_OUT):
            lines.setdefault(line, {})[workers] = case["median"]
    if all(len(points) < 2 for points in lines.values()):
        return []
    return [_lines(lines, "Decoded images", "cores", "images/s", dashed=_INPUT_LIMITS)]


def _cost(documents: Sequence[Document]) -> list[Panel]:
    """Seconds of the build against the number of images.

    A number that several results have is taken from the largest of them.
    """
    lines: Lines = {}
    for document in sorted(documents, key=lambda one: one["settings"]["num_images"]):
        for name, case in document["cases"].items():
            kind, _, count = name.rpartition(", ")
            images = int(count.replace(",", ""))
            lines.setdefault(kind, {})[images] = images / case["median"]
    if all(len(points) < 2 for points in lines.values()):
        return []
    return [_lines(lines, "Cost of the build", "images", "seconds")]


def _lines(
    lines: Lines, title: str, x: str, y: str, dashed: Sequence[str] = ()
) -> Panel:
    """Lines through points on two logarithmic axes, the numbers of x as ticks."""

    def draw(axes: Axes) -> None:
        kinds = list(dict.fromkeys(name.removesuffix(_PYTORCH) for name in lines))
        for name, points in lines.items():
            places = sorted(points)
            number = kinds.index(name.removesuffix(_PYTORCH))
            axes.plot(
                places,
                [points[place] for place in places],
                "--" if name in dashed or name.endswith(_PYTORCH) else "-",
                marker=_MARKERS[number % len(_MARKERS)],
                color=_COLORS[number % len(_COLORS)],
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({place for points in lines.values() for place in points})
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        if high / low < _NARROW:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        _plain(axes, "x")
        _plain(axes, "y")
        axes.set(xlabel=x, ylabel=y, title=title)
        axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))

    return draw


def _plain(axes: Axes, which: str) -> None:
    """Numbers in full on a logarithmic axis."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(_number))
    axis.set_minor_formatter(NullFormatter())


def _number(value: float, _place: int | None = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
