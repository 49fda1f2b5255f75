"""The report of a build: one HTML file that opens offline, and its charts as PNG.

It shows no pictures of faces. It holds times, so it is no part of what the manifest
vouches for. Charts need matplotlib; without it the page has its tables only.
"""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipelines.planning.selection import Plan
from beam_pipelines.reporting import summary
from beam_pipelines.reporting.summary import GROUPS, Summary
from schemas import celeba
from schemas.manifest import Manifest
from support import files, page
from support.page import Html, tag

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
    "official": "The splits are CelebA's own.",
    "random": "Images were split at random, so one person can be in several splits.",
}
_FIRST_NAMES = 3  # of the images left out for one reason
_PERCENT = "\u00a0%"  # with a space that does not break


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
      plan: what it holds and what it was chosen from.
      rejected: (file name, reason, detail) of the images left out.
      facts: what `build.json` holds, see `build`.

    Returns:
      file name -> content, for `FILE_NAMES`; without charts if they cannot be drawn.
    """
    numbers = summary.summarize(plan)
    positive = manifest.attribute.replace("_", " ")
    pictures, elements = {}, {}
    if can_draw():
        from beam_pipelines.reporting import charts

        pictures, elements = charts.draw(numbers, positive)
    body = "\n".join(
        [
            _header(manifest, numbers, positive),
            _cards(manifest, numbers, rejected, facts),
            _classes(manifest, numbers, positive, elements),
            _people(numbers, elements),
            _attributes(numbers, elements),
            _left_out(numbers, rejected),
            _time(facts),
            _options(facts),
            _sources(manifest),
            tag("footer", tag("p", celeba.DATA_TERMS), class_="small"),
        ]
    )
    html = page.render(f"CelebA dataset: {positive}", body)
    return {FILE_NAME: html.encode(), **pictures}


def _header(manifest: Manifest, numbers: Summary, positive: str) -> Html:
    selected, share = numbers.images[1:].sum(), _share(numbers.class_counts[1:].sum(0))
    annotated = numbers.images[0] + numbers.missing
    return tag(
        "header",
        tag("p", f"Build report · perceived attribute: {positive}", class_="eyebrow"),
        tag("h1", f"CelebA by {positive}"),
        tag(
            "p",
            f"{selected:,} examples from {annotated:,} annotated images; {share} of "
            f"the examples are labeled {positive}. "
            f"{_SPLIT_RULES[manifest.config['split']]}",
            class_="lead",
        ),
    )


def _cards(
    manifest: Manifest,
    numbers: Summary,
    rejected: Sequence[tuple[str, str, str]],
    facts: Mapping[str, Any],
) -> Html:
    size = files.megabytes(sum(shard.bytes for shard in manifest.shards))
    height, width, _ = manifest.image_shape
    rate = facts["images_per_second"]
    cards = [
        ("Examples", f"{numbers.images[1:].sum():,}", f"{width} × {height} pixels"),
        ("Shards", f"{len(manifest.shards):,}", size),
        ("Left out", f"{len(rejected):,}", "missing or unusable images"),
        ("Images/s", f"{rate:,.0f}" if rate else "–", facts["runner"]),
    ]
    return tag(
        "div",
        *[
            tag(
                "div",
                tag("div", name, class_="name"),
                tag("div", value, class_="value"),
                tag("div", detail, class_="detail"),
                class_="card",
            )
            for name, value, detail in cards
        ],
        class_="grid cards",
    )


def _classes(
    manifest: Manifest, numbers: Summary, positive: str, charts: Mapping[str, list[str]]
) -> Html:
    rows = [
        [group, f"{zeros:,}", f"{ones:,}", _share((zeros, ones)), f"{zeros + ones:,}"]
        for group, (zeros, ones) in zip(GROUPS, numbers.class_counts, strict=True)
    ]
    weights = " and ".join(f"{weight:.4g}" for weight in manifest.class_weights)
    return _section(
        "Classes",
        tag(
            "p",
            f"All images are the {numbers.images[0]:,} that are annotated and there; "
            f"the options leave {numbers.candidates:,} to choose the splits from. "
            f"Class weights of not {positive} and {positive}: {weights}.",
        ),
        _table(["", f"not {positive}", positive, "share", "images"], rows),
        _charts(charts, "report-classes.png"),
    )


def _people(numbers: Summary, charts: Mapping[str, list[str]]) -> Html:
    if not numbers.people[0]:
        note = "Who is in which image is not known: no identity file was read."
        return _section("People", tag("p", note))
    rows = [
        [group, f"{people:,}", *_spread(counts)]
        for group, people, counts in zip(
            GROUPS, numbers.people, numbers.per_person, strict=True
        )
    ]
    note = "Mean, median and most are of the images of one person."
    if numbers.unknown[0]:
        note += f" Who is in {numbers.unknown[0]:,} images is not known."
    return _section(
        "People and leakage",
        _leakage(numbers),
        _table(["", "people", "mean", "median", "most"], rows),
        tag("p", note, class_="small"),
        _charts(charts, "report-people.png"),
    )


def _leakage(numbers: Summary) -> Html:
    share = numbers.leakage
    if share is None:
        text = "No test image shows a known person, so leakage cannot be measured."
        return tag("p", text)
    if not numbers.leaked:
        text = "No test image shows a person who is also in the training split."
        return tag("p", text)
    return tag(
        "p",
        f"{numbers.leaked:,} test images ({_percent(share)}) show a person who is also "
        "in the training split. A model can recognize people instead of the "
        "attribute, which flatters its test accuracy; ",
        tag("code", "--split=identity"),
        " avoids that.",
        class_="note",
    )


def _attributes(numbers: Summary, charts: Mapping[str, list[str]]) -> Html:
    rows = [
        [name.replace("_", " "), *(_percent(share, "") for share in shares)]
        for name, shares in zip(celeba.ATTRIBUTES, numbers.prevalence.T, strict=True)
    ]
    table = _table(["", "all", *GROUPS[1:]], rows)
    if charts:
        head = tag("summary", "All 40 attributes in per cent")
        table = tag("details", head, tag("div", table))  # the div keeps the margins
    return _section(
        "Attributes",
        tag(
            "p",
            "The share of images in which annotators perceived each attribute. Where "
            "the splits stand apart from all images, the selection changed more than "
            "the label; where they stand apart from each other, chance did.",
        ),
        _charts(charts, "report-attributes.png"),
        table,
    )


def _left_out(numbers: Summary, rejected: Sequence[tuple[str, str, str]]) -> Html:
    if not rejected:
        return _section("Images left out", tag("p", "None: every image was usable."))
    names: dict[str, list[str]] = {}
    for name, reason, _ in sorted(rejected):
        names.setdefault(reason, []).append(name)
    rows = [
        [reason, f"{len(found):,}", _some(found)]
        for reason, found in sorted(names.items(), key=lambda item: -len(item[1]))
    ]
    return _section(
        "Images left out",
        tag("p", "Missing or unusable; rejected.csv has each with what was found."),
        _table(["reason", "images", "such as"], rows, numbers=(1,)),
    )


def _time(facts: Mapping[str, Any]) -> Html:
    stages = facts["stages"]
    total = sum(stages.values()) or 1.0
    rows = [
        [name, f"{seconds:.2f}\u00a0s", _percent(seconds / total)]
        for name, seconds in stages.items()
    ]
    described = {
        "Runner": facts["runner"],
        "Images read": f"{facts['images_read']:,}",
        "Images/s": f"{facts['images_per_second']:,.0f} in the runner",
        "Rounds": f"{facts['rounds']:,}",
        "Machine": f"{facts['host']}, {facts['platform']}",
        "Versions": f"Python {facts['python']}, Apache Beam {facts['beam']}",
        "Finished": facts["finished"],
    }
    return _section(
        "Where the time went",
        _table(["stage", "time", "share"], rows),
        _facts(described),
    )


def _options(facts: Mapping[str, Any]) -> Html:
    described = {f"--{name}": _words(value) for name, value in facts["config"].items()}
    return _section("Options", _facts(described))


def _sources(manifest: Manifest) -> Html:
    described = {
        name: ", ".join(map(_fingerprint, fingerprint, fingerprint.values()))
        for name, fingerprint in manifest.sources.items()
    }
    described["manifest"] = f"sha256 {manifest.digest}"
    return _section("Sources", _facts(described))


def _fingerprint(key: str, value: Any) -> str:
    if key == "official":
        return "the official file" if value else "not the official file"
    if key == "file":
        return str(value)
    return f"{value:,} {key}" if isinstance(value, int) else f"{key} {value}"


def _section(heading: str, *content: str) -> Html:
    return tag("section", tag("h2", heading), *content)


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[int] | None = None,
) -> Html:
    """A table of plain text; `numbers` are the columns to align right, else all."""
    right = set(range(1, len(head)) if numbers is None else numbers)

    def row(kind: str, cells: Sequence[str]) -> Html:
        return tag(
            "tr",
            *[
                tag(
                    "th" if not column else kind,
                    cell,
                    class_="number" if column in right else "",
                )
                for column, cell in enumerate(cells)
            ],
        )

    return tag(
        "div",
        tag(
            "table",
            tag("thead", row("th", head)),
            tag("tbody", *[row("td", cells) for cells in rows]),
        ),
        class_="scroll",
    )


def _charts(charts: Mapping[str, list[str]], name: str) -> Html:
    figures = [tag("figure", Html(svg), class_="chart") for svg in charts.get(name, ())]
    return tag("div", *figures, class_="grid charts") if figures else Html()


def _facts(described: Mapping[str, str]) -> Html:
    pairs = [
        part
        for name, value in described.items()
        for part in (tag("dt", name), tag("dd", value))
    ]
    return tag("dl", *pairs, class_="facts")


def _spread(counts: np.ndarray) -> tuple[str, str, str]:
    """Mean, median and maximum."""
    if not len(counts):
        return "–", "–", "–"
    return f"{counts.mean():.1f}", f"{np.median(counts):g}", f"{counts.max():,}"


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _FIRST_NAMES else ""
    return ", ".join(names[:_FIRST_NAMES]) + more


def _share(class_counts: Sequence[int]) -> str:
    zeros, ones = class_counts
    return _percent(ones / (zeros + ones)) if zeros + ones else "–"


def _percent(share: float, unit: str = _PERCENT) -> str:
    """0.4165 -> "41.7 %"; NaN is a dash."""
    return "–" if np.isnan(share) else f"{100 * share:.1f}{unit}"


def _words(value: Any) -> str:
    """An option's value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return str(value) if value != "" else "–"
