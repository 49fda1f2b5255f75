"""Predicts an attribute for images.

    python -m trainer.predict --run_dir=RUN --output=out.csv photo.jpg folder/ faces.zip
    python -m trainer.predict --run_dir=RUN --annotate=DIR 'photos/**/*.jpg'
    python -m trainer.predict --run_dir=RUN --align --output=out.csv photos/

A directory stands for the JPEG and PNG files in it at any depth, by their suffixes, a
zip file for those in it, a quoted pattern for its matches. Files that cannot be read
and those with other suffixes are named and skipped; transparent images are put on
white.

The output has image_id, probability (of label 1, the attribute), label (1 or 0) and
abstained (whether the probability is in the band of --abstain, so that the label should
not be used). image_id is the file's name; where several images have one name, their
paths as they were given. Decoding, resize and model are those of the evaluation, so the
files of a dataset get the probabilities of `predictions.csv`.

With --align (the extra `align`) the faces in photos are found and brought to where
CelebA's aligned images have them. The output then has a row for each face and one for
each image without any or that cannot be read, and more columns: face (1, 2, ... from
left to right), x, y, width and height of its box, score (of the detector) and error.
"""

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from absl import flags

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split

from support import command, files
from support.errors import input_error, output_error, usage_error
from support.images import require_local
from support.progress import Progress
from support.text import printable
from trainer.config import FROM_1, check_numbers
from trainer.evaluation import calibration
from trainer.inference import annotate, images
from trainer.inference.detector import detector
from trainer.inference.images import InputImage
from trainer.inference.predictor import (
    COLUMNS,
    FACE_COLUMNS,
    NO_FACE,
    AspectWarning,
    Predictor,
)
from trainer.loop import runtime, wakeup

__all__ = ["PredictConfig", "Predictor", "main", "predict"]

_SUFFIXES = (".csv", ".json")
_ROWS_SHOWN = 20
#: The first characters of the files that are written here, which may be replaced.
_STARTS = (
    ",".join(COLUMNS) + "\n",
    ",".join([*COLUMNS, *FACE_COLUMNS, "error"]) + "\n",
    '{\n "model": {',
)
_ABSTAINED = "abstained"


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Flags of `python -m trainer.predict`."""

    run_dir: str | None = command.option(None, "Directory of a finished run.")
    output: str | None = command.option(
        None,
        "File to write, FILE.csv or FILE.json; JSON also describes the model and the "
        "skipped images. Default: the table in the terminal has all rows.",
    )
    annotate: str | None = command.option(
        None, "New or empty directory for the images with their predictions below."
    )
    abstain: float | None = command.option(
        None,
        "Abstain where the probability is less than this away from 0.5; default: as in "
        f"the run's metrics.json, else {calibration.ABSTAIN}.",
        (0, 0.5),
    )
    align: bool = command.option(
        False, "Find the faces in photos, and predict each, aligned as CelebA's images."
    )
    batch_size: int = command.option(64, "Images per step; changes no result.", FROM_1)

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")
        if self.output is not None:
            _check_output(self.output)
        if self.annotate is not None:
            annotate.check_folder(require_local(self.annotate, "annotate"))
        check_numbers(self)


def _check_output(name: str) -> None:
    path = Path(os.path.realpath(require_local(name, "output")))
    if Path(name).suffix.lower() not in _SUFFIXES:
        raise usage_error(
            f"--output={name} is neither a .csv nor a .json file.",
            "Name it FILE.csv or FILE.json.",
        )
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise output_error(
            f"--output={name} is not a file in an existing, writable directory.",
            "Create the directory, or name another file.",
        )
    if path.exists() and not _is_prediction(path):
        raise output_error(
            f"--output={name} exists already and is no prediction of this program.",
            "Name another file.",
        )


def _is_prediction(path: Path) -> bool:
    """Whether a file is empty or begins as those that are written here."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                start = file.read(max(map(len, _STARTS))).decode(errors="replace")
            return not start or start.startswith(_STARTS)
    except OSError:
        pass
    return False


def predict(config: PredictConfig, words: Sequence[str]) -> None:
    """Predicts the named images; writes and prints what the options ask for.

    Raises:
      UserError: no image is named, or --align without its extra or for a model of
        another data set (exit 2); a path is wrong, or none of the images can be read
        (3); output cannot be written (4); a damaged model or detector (5); no memory
        for the batch (7).
    """
    if not words:
        raise usage_error(
            "No image is named.", "Add files, directories, zip files or patterns."
        )
    if config.align:
        detector()  # or refuse at once
    others: list[str] = []
    found = images.find(words, others)
    predictor = Predictor(config.run_dir, config.abstain)
    table = _predicted(config, predictor, found)
    if others:
        print(f"skipped {printable(images.counted(others))}", file=sys.stderr)
    number = table["image"] if config.align else table.index
    skipped = _report_skipped([found[n] for n in number], table["error"])
    readable = table[table["error"].isin(["", NO_FACE])]
    predicted = table[table["error"] == ""]
    if readable.empty:
        cause = f"None of {len(found):,} images could be read."
        raise input_error(cause, "Name JPEG or PNG images.")
    if config.output:
        rows = table if config.align else predicted
        _write(config.output, rows, predictor.facts, skipped)
    if config.annotate:
        shown = [found[n] for n in dict.fromkeys(number[readable.index])]
        with Progress(len(shown), "annotating") as progress:
            errors = annotate.write(
                config.annotate, shown, readable, predictor.label_names, progress.update
            )
        _report_skipped(shown, errors)
    _show(predicted, predictor, _ROWS_SHOWN if config.output else len(predicted))
    _print_counts(config, found, table.assign(image=number))


def _predicted(
    config: PredictConfig, predictor: Predictor, found: Sequence[InputImage]
) -> pd.DataFrame:
    """Predicts with a progress bar; what Python would warn of is one line."""
    with (
        Progress(len(found), "predicting") as progress,
        runtime.memory_errors(config.batch_size),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", AspectWarning)
        table = predictor.predict(
            found, config.batch_size, progress.update, config.align
        )
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return table


def _print_counts(
    config: PredictConfig, found: Sequence[InputImage], table: pd.DataFrame
) -> None:
    """Prints the notes on a table with a column `image`, and how much was predicted."""
    images_of = table.drop_duplicates("image")
    names = [images.in_utf8(image.name) for image in found]
    by_path = (images_of["image_id"] != names).sum()
    if by_path:
        print(f"note: {by_path:,} images share their names: image_id is their path")
    if transparent := images_of["transparent"].sum():
        print(f"note: {transparent:,} transparent images were put on white")
    outputs = ", ".join(name for name in (config.output, config.annotate) if name)
    arrow = f" -> {outputs}" if outputs else ""
    predicted = table[table["error"] == ""]
    what = f"{len(predicted):,} faces in " if config.align else ""
    count = predicted["image"].nunique()
    print(f"{what}{count:,} of {len(found):,} images predicted{arrow}")


def _report_skipped(
    found: Sequence[InputImage], errors: Iterable[str]
) -> list[dict[str, str]]:
    """Names the skipped images on the standard error stream; returns them, too."""
    skipped = []
    for image, error in zip(found, errors, strict=True):
        if error:
            print(f"skipped {printable(image.path)}: {error}", file=sys.stderr)
            skipped.append({"path": images.in_utf8(image.path), "error": error})
    return skipped


def _write(
    name: str,
    table: pd.DataFrame,
    facts: dict[str, Any],
    skipped: list[dict[str, str]],
) -> None:
    rows = table[COLUMNS]
    if "face" in table:
        rows = table[[*COLUMNS, *FACE_COLUMNS, "error"]]
    if name.lower().endswith(".csv"):
        text = rows.to_csv(index=False)
    else:
        document = {
            "model": facts,
            "predictions": rows.astype(object)
            .where(rows.notna(), None)
            .to_dict("records"),
            "skipped": skipped,
        }
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    path = Path(os.path.realpath(name))  # a link keeps its place
    with files.output_errors(path.parent):
        files.atomic_write(path, text)


def _show(table: pd.DataFrame, predictor: Predictor, most: int) -> None:
    """Prints the first rows, and the number of images of each label."""
    labels = table["label"].map(dict(enumerate(predictor.label_names)))
    labels = labels.mask(table["abstained"], _ABSTAINED)
    shown = table[["image_id", "probability"]].assign(label=labels).head(most)
    ids = [printable(image_id) for image_id in shown["image_id"]]
    if "face" in table:
        boxes = table[FACE_COLUMNS[:-1]].itertuples(index=False)
        ids = [
            f"{image_id} {face}: {width}x{height} at {x}, {y}"
            for image_id, (face, x, y, width, height) in zip(ids, boxes, strict=False)
        ]
    width = max(map(len, ["image", *ids]))
    print(f"probability of (perceived) {predictor.label_names[1]}")
    print(f"{'image':{width}}  probability  label")
    for row in shown.assign(image_id=ids).itertuples():
        print(f"{row.image_id:{width}}  {row.probability:11.3f}  {row.label}")
    if len(table) > most:
        print(f"... and {len(table) - most:,} more")
    counts = [
        f"{(labels == name).sum():,} {name}"
        for name in (*predictor.label_names[::-1], _ABSTAINED)
    ]
    print(f"{', '.join(counts)} (less than {predictor.abstain:g} from 0.5)")


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(PredictConfig, values)
    words = command.parse(argv, values)
    with wakeup.Watch():
        predict(command.from_flags(PredictConfig, values), words)


if __name__ == "__main__":
    command.run(main)
