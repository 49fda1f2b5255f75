"""Puts the newest results into the README, and draws them.

    python -m benchmarks.publish
    python -m benchmarks.publish --check

reads the newest file of each benchmark in benchmarks/results, on a GPU and without one,
and writes the README's part between its two marks, the results' own README and their
figures. With --check nothing is written; it ends with exit code 5 if that would change
anything.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags

from benchmarks import harness, plots, published
from support import command
from support.errors import ExitCode, UserError
from support.files import atomic_write

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
#: Kinds of benchmarks in the order in which an image meets what they measure.
_ORDER = ("build", "planner", "input", "warp", "step", "ladder")
#: At most so many bytes for a figure: they lie in the repository.
_LARGEST = 100_000


@dataclasses.dataclass(frozen=True)
class PublishConfig:
    """What to write."""

    check: bool = command.option(
        False, "Write nothing; fail if what is there is not what results give."
    )


@dataclasses.dataclass(frozen=True)
class Pages:
    """What the results give.

    Attributes:
      texts: file -> its text.
      figures: file -> what to draw.
    """

    texts: dict[Path, str]
    figures: dict[Path, plots.Picture]


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(PublishConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(PublishConfig, values)
    root = harness.RESULTS.parent.parent
    if config.check:
        check(root)
    else:
        for path in write(root):
            print(path)


def newest(folder: Path) -> dict[str, published.Document]:
    """The newest result of each benchmark, on a GPU and without one, by file name.

    Raises:
      UserError: a file is not a result (exit 5).
    """
    found: dict[tuple[str, bool], tuple[str, published.Document]] = {}
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
            found[key] = path.name, document
    return dict(sorted(found.values(), key=lambda result: _place(result[1])))


def pages(root: Path) -> Pages:
    """What the results below a project's folder give for it.

    Raises:
      UserError: the README has not both marks, once each (exit 5).
    """
    folder, readme = root / "benchmarks" / "results", root / "README.md"
    documents = newest(folder)
    drawn = plots.pictures(list(documents.values()))
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(
            f"{readme} has not one {BEGIN} and one {END}.",
            "Write both where the numbers should stand.",
            ExitCode.INTEGRITY,
        )
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    where = folder.relative_to(root).as_posix()
    part = published.short(documents, plots.first(drawn), where)
    return Pages(
        {
            readme: f"{before}{BEGIN}\n{part}\n{END}{after}",
            folder / "README.md": published.full(documents, list(drawn)),
        },
        {folder / name: picture for name, picture in drawn.items()},
    )


def write(root: Path) -> list[Path]:
    """Writes texts and figures, removes figures that are no more; returns the files.

    Raises:
      UserError: see `pages`; a figure is too large to keep (exit 4).
    """
    made = pages(root)
    for path in set((root / "benchmarks" / "results").glob("*.png")) - set(
        made.figures
    ):
        path.unlink()
    for path, picture in made.figures.items():
        data = picture.png()
        if len(data) > _LARGEST:
            raise UserError(
                f"{path} would have {len(data):,} bytes, over {_LARGEST:,}.",
                "Show less in it.",
                ExitCode.OUTPUT,
            )
        atomic_write(path, data)
    for path, text in made.texts.items():
        atomic_write(path, text)
    return [*made.texts, *made.figures]


def check(root: Path) -> None:
    """Raises UserError (exit 5) unless texts and names of figures are what they give.

    The figures' bytes depend on matplotlib's version, and are not compared.
    """
    made = pages(root)
    stale = [
        path
        for path, text in made.texts.items()
        if not path.exists() or path.read_text() != text
    ]
    there = set((root / "benchmarks" / "results").glob("*.png"))
    stale += sorted(there.symmetric_difference(made.figures))
    if stale:
        names = ", ".join(path.relative_to(root).as_posix() for path in stale)
        raise UserError(
            f"Not what the newest results give: {names}.",
            "Run `python -m benchmarks.publish`.",
            ExitCode.INTEGRITY,
        )


def _place(document: published.Document) -> tuple:
    kind = published.kind_of(document)
    place = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return bool(document["hardware"]["gpu"]), place, document["benchmark"]


if __name__ == "__main__":
    command.run(main)
