"""What results say of us beside others, as Markdown.

A row compares one thing of ours with what was measured in turns with it, as the median
of the rounds' ratios: what slowed the machine slowed one round's cases alike. Rows are
known by the names of benchmark and cases; what was not measured is left out.
"""

import dataclasses
import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import harness

Document = dict[str, Any]

_WARP = "warp"
_WARP_OTHERS = ("Keras layers", "ImageDataGenerator", "ImageProjectiveTransformV3")
_INPUT = "trainer, streaming"
_INPUT_OTHERS = (
    "tf.data, loose files",
    "image_dataset_from_directory",
    "ImageDataGenerator",
    "DataLoader and PIL",
    "WebDataset",
    "MosaicML Streaming",
    "litdata",
    "NVIDIA DALI",
)
#: What case names say -> what the table says.
_BUILD_OTHERS = {
    "webdataset": "WebDataset's writer",
    "litdata": "litdata's",
    "streaming": "MosaicML Streaming's",
    "tfds": "TensorFlow Datasets'",
}
_STEP_OTHERS = {
    "stock": "its own layers unfused",
    "keras": "Keras' train_on_batch",
    "pytorch": "PyTorch",
    "torchvision": "torchvision's own network",
}
_STEP_CASE = re.compile(r"(\w+) (\d+) (\w+)(?: batch (\d+))?, (\w+)")
_BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing of ours beside others.

    Attributes:
      what: it is.
      rate: ours, images/s.
      ratios: name of another -> our rate in units of its rate.
      noise: how far the ratio of two runs of the same is from 1, in the median of the
        rounds; where the same was not run twice, the farthest that a round's ratio
        lies from their median: of three rounds one wild one must show.
      topic: rows of one topic differ in settings only; the README has the fastest.
    """

    what: str
    rate: float
    ratios: dict[str, float]
    noise: float
    topic: str


@dataclasses.dataclass(frozen=True)
class StepCase:
    """What the name of a case of the train step says."""

    model: str
    size: int
    precision: str
    batch: int | None
    case: str

    @property
    def task(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        return f"{self.model} at {self.size}, {self.precision}{batch}"

    @classmethod
    def parse(cls, name: str) -> "StepCase | None":
        found = _STEP_CASE.fullmatch(name)
        if not found:
            return None
        model, size, precision, batch, case = found.groups()
        return cls(model, int(size), precision, int(batch) if batch else None, case)


def kind_of(document: Document) -> str:
    """What was measured: build, input, warp, step, ladder."""
    return document["benchmark"].partition("-")[0]


def rows(document: Document) -> list[Row]:
    """The comparisons that a document holds; none for benchmarks without peers."""
    make = _KINDS.get(kind_of(document))
    return [row for row in make(document) if row.ratios] if make else []


def short(
    documents: Mapping[str, Document], figures: Sequence[str], folder: str
) -> str:
    """The part of the README: a table for each machine, the figures, where more is.

    Args:
      documents: the newest results by file name.
      figures: names of files to show.
      folder: of the results, as the README links to it.
    """
    parts = []
    for machine in dict.fromkeys(map(machine_of, documents.values())):
        lines = [
            _row_line(row, f"[{document['date'][:10]}]({folder}/{name})")
            for name, document in documents.items()
            if machine_of(document) == machine
            for row in _fastest(rows(document))
        ]
        if lines:
            parts.append(f"On {machine}:\n\n" + "\n".join([*_head("measured"), *lines]))
    parts.append(
        "All of a row was measured in one run, taking turns. ≈ marks what is within "
        "the noise: the difference between two runs of the same or, where nothing ran "
        "twice, how far the farthest round lies from the rounds' median. All cases, "
        f"other benchmarks and figures: [{folder}]({folder}/README.md)."
    )
    parts += [f"![{_title(name)}]({folder}/{name})" for name in figures]
    return "\n\n".join(parts)


def full(documents: Mapping[str, Document], figures: Sequence[str]) -> str:
    """The results' own page: every case of every document, and all figures."""
    parts = [
        "# Results",
        "Written by `python -m benchmarks.publish` from the newest file of each "
        "benchmark. Rates are medians of rounds; the spread is half the distance "
        "between the quartiles. Ratios hold within one run only.",
    ]
    parts += [f"![{_title(name)}]({name})" for name in figures]
    for name, document in documents.items():
        parts += [f"## {document['benchmark']}", _source(name, document)]
        compared = [_row_line(row) for row in rows(document)]
        if compared:
            parts.append("\n".join([*_head(), *compared]))
        parts.append(harness.table(document))
    return "\n\n".join(parts) + "\n"


def machine_of(document: Document) -> str:
    """The machine in a few words."""
    hardware = document["hardware"]
    processor = f"{hardware['cpu']}, {hardware['cores']} cores"
    gpu = f"{hardware['gpu']} with " if hardware["gpu"] else ""
    return f"{gpu}{processor}, {hardware['memory_gib']:g} GiB, {hardware['system']}"


def _source(name: str, document: Document) -> str:
    versions = document["versions"].items()
    packages = ", ".join(f"{package} {version}" for package, version in versions)
    return f"[{name}]({name}), {machine_of(document)}; {packages}."


def _title(figure: str) -> str:
    return figure.removesuffix(".png").replace("-", " ")


def _head(*more: str) -> tuple[str, str]:
    columns = ["what", "images/s", "times as fast as", *more]
    return f"| {' | '.join(columns)} |", "|---|---:|---|" + "---|" * len(more)


def _row_line(row: Row, *more: str) -> str:
    ratios = ", ".join(
        f"{name} {_times(ratio, row.noise)}" for name, ratio in row.ratios.items()
    )
    return f"| {' | '.join([row.what, harness.rate(row.rate), ratios, *more])} |"


def _times(ratio: float, noise: float) -> str:
    sign = "≈ " if abs(ratio - 1) <= noise else ""
    return f"{sign}{ratio:.0f}×" if ratio >= 9.95 else f"{sign}{ratio:#.2g}×"


def _fastest(found: Iterable[Row]) -> list[Row]:
    """Of rows that differ in their settings only the fastest."""
    best: dict[str, Row] = {}
    for row in found:
        if row.topic not in best or row.rate > best[row.topic].rate:
            best[row.topic] = row
    return list(best.values())


def _compare(
    cases: Mapping[str, Any],
    what: str,
    ours: str,
    others: Mapping[str, str],
    again: str = "",
    topic: str = "",
) -> Iterator[Row]:
    """The row of one case of ours, if it was measured.

    Args:
      cases: of a document.
      what: the row is called.
      ours: our case.
      others: other cases, and what the table calls them.
      again: the case that does the same as ours.
      topic: of the row; empty: its own.
    """
    if ours not in cases:
        return
    rounds = {
        called: _ratios(cases[ours], cases[name])
        for name, called in others.items()
        if name in cases
    }
    ratios = {name: statistics.median(found) for name, found in rounds.items()}
    if again in cases:
        noise = statistics.median(_distances(_ratios(cases[ours], cases[again]), 1))
    else:
        distances = (_distances(rounds[name], ratios[name]) for name in rounds)
        noise = max(itertools.chain.from_iterable(distances), default=0.0)
    yield Row(what, cases[ours]["median"], ratios, noise, topic or what)


def _distances(found: Iterable[float], middle: float) -> list[float]:
    """How far each is from `middle`, as a part of it."""
    return [abs(ratio / middle - 1) for ratio in found]


def _ratios(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    pairs = zip(one["samples"], other["samples"], strict=True)
    return [first / second for first, second in pairs]


def _warp_rows(document: Document) -> Iterator[Row]:
    settings = document["settings"]
    backend = _BACKENDS[settings["backend"]]
    size = settings["size"]
    what = f"warp {settings['width']}×{settings['height']} to {size}×{size}, "
    others = {name: name for name in _WARP_OTHERS}
    again = "the same again (noise)"
    yield from _compare(document["cases"], what + backend, _WARP, others, again)


def _input_rows(document: Document) -> Iterator[Row]:
    names = document["cases"]
    height, width, _ = document["settings"]["image_shape"]
    topic = f"read, decode, batch {width}×{height}"
    for suffix in dict.fromkeys(
        name[len(_INPUT) :] for name in names if _is_ours(name)
    ):
        workers = int(re.sub(r"\D", "", suffix) or document["settings"]["workers"])
        what = f"{topic} on {workers} core{'s' if workers > 1 else ''}"
        others = {name + suffix: name for name in _INPUT_OTHERS}
        again = f"{_INPUT}, again{suffix}"
        yield from _compare(names, what, _INPUT + suffix, others, again, topic)


def _is_ours(name: str) -> bool:
    return bool(re.fullmatch(rf"{_INPUT}(, workers=\d+)?", name))


def _build_rows(document: Document) -> Iterator[Row]:
    count = f"{document['settings']['num_images']:,}"
    others = {
        f"{name}, unchecked, {count}": called for name, called in _BUILD_OTHERS.items()
    }
    what = f"build of {count} images, each one checked"
    yield from _compare(document["cases"], what, f"build, folder, {count}", others)


def _step_rows(document: Document) -> Iterator[Row]:
    for name in document["cases"]:
        step = StepCase.parse(name)
        if step is None or step.case != "ours":
            continue
        task = name.removesuffix("ours")
        others = {task + case: called for case, called in _STEP_OTHERS.items()}
        what = f"train step, {step.task}, TensorFlow"
        topic = f"{step.model} {step.size}"
        again = task + "again"
        yield from _compare(document["cases"], what, name, others, again, topic)


_KINDS: dict[str, Callable[[Document], Iterator[Row]]] = {
    "build": _build_rows,
    "input": _input_rows,
    "warp": _warp_rows,
    "step": _step_rows,
}
