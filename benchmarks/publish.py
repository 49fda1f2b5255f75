"""Puts the newest results into the README and benchmarks/results/README.md.

    python -m benchmarks.publish
    python -m benchmarks.publish --check

reads the newest file of each benchmark in benchmarks/results, on a GPU and without one.
The README gets, between its two marks, the comparisons of `ROWS` and a figure of them;
the results' own page gets every case. With --check nothing is written; it ends with
exit code 5 if that would change anything.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from benchmarks import harness
from support import command
from support.errors import ExitCode, UserError
from support.figures import MUTED, PRIMARY, Layout, Panel, png
from support.files import atomic_write

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
FOLDER, FIGURE = "benchmarks/results", "speed.png"
Document = Mapping[str, Any]
#: What is measured, pattern of the benchmark's name, pattern of our case, its group the
#: task, and name of another case of that task -> its name in the README.
ROWS = (
    (
        "build, every image checked",
        r"build-\d+",
        r"build, folder, (.+)",
        {"hand-written loop, {task}": "hand-written loop"},
    ),
    (
        "read, decode and batch",
        "input",
        "trainer, streaming()",
        {
            "tf.data, loose files": "tf.data on loose files",
            "NVIDIA DALI": "NVIDIA DALI",
            "DataLoader and PIL": "PyTorch DataLoader",
        },
    ),
    (
        "train step",
        r"step-.+",
        r"(resnet50 .+), ours",
        {"{task}, keras": "Keras train_on_batch", "{task}, pytorch": "PyTorch"},
    ),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Our rate, images/s; the others' with the rounds' median ratio of ours to it."""

    title: str
    source: Path
    document: Document
    rate: float
    others: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class PublishConfig:
    """Writing or checking."""

    check: bool = command.option(
        False, "Write nothing; fail if the files differ from what results give."
    )


def main(argv: list[str]) -> None:
    config = command.parse_config(PublishConfig, argv)
    publish(harness.ROOT, config.check)


def newest(folder: Path) -> dict[Path, Document]:
    """The newest result of each benchmark, on a GPU and without one, by its file.

    Raises:
      UserError: a file is not a result (exit 5).
    """
    found: dict[tuple[str, bool], tuple[Path, Document]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text())
            harness.check(document)
        except (ValueError, AttributeError, KeyError) as error:
            raise UserError(
                f"{path} is not a result: {error}.",
                "Measure again, or remove it.",
                ExitCode.INTEGRITY,
            ) from error
        key = document["benchmark"], bool(document["hardware"]["gpu"])
        # All dates are UTC, to the second.
        if key not in found or document["date"] >= found[key][1]["date"]:
            found[key] = path, document
    return dict(found.values())


def compare(documents: Mapping[Path, Document]) -> list[Comparison]:
    """The rows for which there are results, the fastest of each."""
    found = [list(_results_of(documents, *row)) for row in ROWS]
    return [max(each, key=lambda one: one.rate) for each in found if each]


def _results_of(
    documents: Mapping[Path, Document],
    what: str,
    benchmark: str,
    ours: str,
    names: Mapping[str, str],
) -> Iterator[Comparison]:
    for source, document in documents.items():
        cases = document["cases"]
        fits = re.fullmatch(benchmark, document["benchmark"])
        for match in filter(None, (re.fullmatch(ours, name) for name in cases)):
            case, task, others = cases[match[0]], match[1], {}
            for pattern, name in names.items():
                if other := cases.get(pattern.format(task=task)):
                    ratio = harness.ratio(case["samples"], other["samples"])
                    others[name] = other["median"], ratio
            if fits and others:
                title = f"{what} ({task})" if task else what
                yield Comparison(title, source, document, case["median"], others)


def short(comparisons: Sequence[Comparison]) -> str:
    """The README's part: the figure, a row for each comparison, and the sources."""
    rows = []
    for one in comparisons:
        others = [
            f"{name} {harness.rate(rate)} ({ratio:#.2g}×)"
            for name, (rate, ratio) in one.others.items()
        ]
        date = f"[{one.document['date'][:10]}]({FOLDER}/{one.source.name})"
        measured = f"{date}, {machine_of(one.document)}"
        rows.append([one.title, harness.rate(one.rate), ", ".join(others), measured])
    header = ["what", "images/s", "compared with (ours is … times as fast)", "measured"]
    return (
        f"![Images per second, compared]({FOLDER}/{FIGURE})\n\n"
        f"{harness.markdown(header, rows, pad=False)}\n\n"
        "The cases of a row were interleaved in one run; medians of rounds. All "
        f"results: [{FOLDER}]({FOLDER}/README.md)."
    )


def full(documents: Mapping[Path, Document]) -> str:
    """The results' own page: every case of every document."""
    parts = [
        "# Results",
        "Written by `python -m benchmarks.publish` from the newest file of each "
        "benchmark. Rates are medians of rounds; the spread is half the distance "
        "between the quartiles. Ratios hold within one run only.",
    ]
    for path, document in documents.items():
        packages = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
        code = f"; code {document['code']}" if document.get("code") else ""
        parts += [
            f"## {document['benchmark']}",
            f"[{path.name}]({path.name}), {machine_of(document)}; {packages}{code}.",
            harness.table(document),
        ]
    return "\n\n".join(parts) + "\n"


def machine_of(document: Document) -> str:
    """The machine in a few words."""
    hardware = document["hardware"]
    gpu = f"{hardware['gpu']}, " if hardware["gpu"] else ""
    return f"{gpu}{hardware['cpu']}, {hardware['cores']} cores"


def _panel(one: Comparison) -> Panel:
    names = ["this project", *one.others]
    rates = [one.rate, *(rate for rate, _ in one.others.values())]

    def draw(axes: Axes) -> None:
        bars = axes.barh(names, rates, 0.6, color=[PRIMARY, *[MUTED] * len(one.others)])
        axes.bar_label(bars, map(harness.rate, rates), padding=4, fontsize=9)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xticks([])
        axes.set_title(f"{one.title.partition(' (')[0]}, images/s", fontsize=9)

    return draw


def publish(root: Path, check: bool) -> None:
    """Writes texts and figure, and prints their paths; or only checks the texts.

    The figure's bytes depend on matplotlib's version, and are not compared.

    Raises:
      UserError: the README has not both marks; with `check` a text is not what the
        results give (exit 5).
    """
    readme, documents = root / "README.md", newest(root / FOLDER)
    parts = re.split(f"(?<={BEGIN}).*?(?={END})", readme.read_text(), flags=re.DOTALL)
    if len(parts) != 2:
        raise UserError(
            f"{readme} has no {BEGIN} before an {END}.",
            "Write both where the numbers should be.",
            ExitCode.INTEGRITY,
        )
    comparisons, page = compare(documents), root / FOLDER / "README.md"
    texts = {
        readme: f"{parts[0]}\n{short(comparisons)}\n{parts[1]}",
        page: full(documents),
    }
    stale = [
        path.relative_to(root).as_posix()
        for path, text in texts.items()
        if not path.exists() or path.read_text() != text
    ]
    if check and stale:
        raise UserError(
            f"Not what the newest results give: {', '.join(stale)}.",
            "Run `python -m benchmarks.publish`.",
            ExitCode.INTEGRITY,
        )
    if not check:
        layout = Layout(4.2, 1.9, 1.7, 0.55, 0.3, 0.4)
        figure = png(list(map(_panel, comparisons)), layout)
        for path, content in (texts | {root / FOLDER / FIGURE: figure}).items():
            atomic_write(path, content)
            print(path)


if __name__ == "__main__":
    command.run(main)
