"""The report of a build: one HTML file that opens offline, and its charts as PNG.

It shows no images of faces. It contains times, so the manifest does not cover it.
Charts need matplotlib; without it the page has its tables only.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from beam_pipelines.planning.selection import Plan
from beam_pipelines.reporting import summary
from beam_pipelines.reporting.summary import GROUPS, Summary
from schemas.manifest import Manifest
from support import files, page
from support.text import PERCENT, percent, thousands

FILE_NAME = "report.html"

#: All files that `make` may return.
FILE_NAMES = (
    FILE_NAME,
    "report-classes.png",
    "report-people.png",
    "report-attributes.png",
)

NO_CHARTS = (
    "report.html has no charts: they need matplotlib (pip install matplotlib, or this "
    "package's extra named report)"
)

_SPLIT_RULES = {
    "identity": "Splits go by person: nobody appears in two.",
    "official": "The splits are the data set's own.",
    "random": "Images were split at random, so one person can be in several splits.",
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def make(
    manifest: Manifest,
    plan: Plan,
    rejected: Sequence[tuple[str, str, str]],
    facts: Mapping[str, Any],
) -> dict[str, bytes]:
    """Makes the report of a finished build.

    Args:
      manifest: of the dataset.
      plan: the selected images and the candidates.
      rejected: (file name, reason, detail) of the excluded images.
      facts: the content of `build.json`, see `build`.

    Returns:
      file name -> content, for `FILE_NAMES`; without charts if they cannot be drawn.
    """
    numbers = summary.summarize(plan)
    positive = manifest.attribute.replace("_", " ")
    images, elements = {}, {}
    if can_draw():
        from beam_pipelines.reporting import charts

        images, elements = charts.draw(numbers, positive)
    environment = page.environment(Path(__file__).parent / "templates")
    html = environment.get_template(FILE_NAME).render(
        manifest=manifest,
        positive=positive,
        split_rule=_SPLIT_RULES[manifest.config["split"]],
        size=files.megabytes(sum(shard.bytes for shard in manifest.shards)),
        numbers=numbers,
        groups=GROUPS,
        classes=_classes(numbers),
        people=_people(numbers),
        attributes=_attributes(numbers),
        charts={name: list(map(Markup, svgs)) for name, svgs in elements.items()},
        rejected=rejected,
        reasons=_reasons(rejected),
        facts=facts,
        stages=_stages(facts["stages"]),
        fraction=_fraction,
    )
    return {FILE_NAME: html.encode(), **images}


def _classes(numbers: Summary) -> list[list[str]]:
    return [
        [group, *map(thousands, row), percent(_fraction(row)), thousands(row.sum())]
        for group, row in zip(GROUPS, numbers.class_counts, strict=True)
    ]


def _people(numbers: Summary) -> list[list[str]]:
    """Each group's number of people, and mean, median and maximum of their images."""
    rows = []
    for group, counts in zip(GROUPS, numbers.per_person, strict=True):
        spread = ["–"] * 3
        if len(counts):
            median = f"{np.median(counts):g}"
            spread = [f"{counts.mean():.1f}", median, thousands(counts.max())]
        rows.append([group, thousands(len(counts)), *spread])
    return rows


def _attributes(numbers: Summary) -> list[list[str]]:
    return [
        [name.replace("_", " "), *(percent(x).removesuffix(PERCENT) for x in fractions)]
        for name, fractions in zip(
            numbers.attributes, numbers.prevalence.T, strict=True
        )
    ]


def _reasons(
    rejected: Sequence[tuple[str, str, str]],
) -> list[tuple[str, list[str]]]:
    """Each reason with the names of its images, the most frequent reason first."""
    names: dict[str, list[str]] = {}
    for name, reason, _ in sorted(rejected):
        names.setdefault(reason, []).append(name)
    return sorted(names.items(), key=lambda item: -len(item[1]))


def _stages(stages: Mapping[str, float]) -> list[list[str]]:
    total = sum(stages.values()) or 1.0
    return [
        [name, f"{seconds:.2f}\u00a0s", percent(seconds / total)]
        for name, seconds in stages.items()
    ]


def _fraction(class_counts: np.ndarray) -> float | None:
    """The fraction of images with the attribute; None of no images."""
    total = class_counts.sum()
    return class_counts[1] / total if total else None
