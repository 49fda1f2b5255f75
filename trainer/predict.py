"""Predicts an attribute for pictures.

    python -m trainer.predict --run_dir=RUN --output=out.csv photo.jpg folder/ faces.zip
    python -m trainer.predict --run_dir=RUN --annotate=DIR 'photos/**/*.jpg'

A folder stands for the .jpg, .jpeg and .png files in it at any depth (zip files inside
are left alone), a zip file for those in it, a quoted pattern for what it matches. What
cannot be read is named and skipped.

The file has image_id, probability (of label 1, the attribute), label (1 or 0) and
abstained (whether the probability is in the band of --abstain, so that the label should
not be used). image_id is the file's name; where several pictures have one name, their
paths as they were given. Decoding, stretch and model are those of the evaluation, so
the files that a dataset was built from get the probabilities of `predictions.csv`.
"""

import collections
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split

from support import command, files
from support.errors import ExitCode, UserError, usage_error
from support.images import require_local
from support.live import Meter
from trainer.evaluation import calibration
from trainer.inference import annotate, pictures
from trainer.inference.pictures import Picture
from trainer.inference.predictor import COLUMNS, Predictor
from trainer.loop import runtime, wakeup

__all__ = ["PredictConfig", "Predictor", "main", "predict"]

_SUFFIXES = (".csv", ".json")
_ROWS_SHOWN = 20
_JSON_START = '{\n "model": {'


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Flags of `python -m trainer.predict`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")
    output: str | None = command.option(
        None,
        "File to write, FILE.csv or FILE.json; JSON also says which model it was and "
        "what was skipped. Left out: the table on the screen has all rows.",
    )
    annotate: str | None = command.option(
        None, "New or empty folder for the pictures with their predictions below."
    )
    abstain: float | None = command.option(
        None,
        "No decision for probabilities less than this away from 0.5; left out: as in "
        f"the run's metrics.json, else {calibration.ABSTAIN}.",
    )
    batch_size: int = command.option(64, "Pictures per step; changes no result.")

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")
        if self.output is not None:
            _check_output(self.output)
        if self.annotate is not None:
            annotate.check_folder(require_local(self.annotate, "annotate"))
        if self.abstain is not None and not 0 <= self.abstain <= 0.5:
            raise usage_error(
                f"--abstain={self.abstain} is not within 0 and 0.5.",
                "Choose a number in between.",
            )
        if self.batch_size < 1:
            raise usage_error(
                f"--batch_size={self.batch_size} is below 1.", "Choose 1 or more."
            )


def _check_output(name: str) -> None:
    path = require_local(name, "output")
    if path.suffix.lower() not in _SUFFIXES:
        raise usage_error(
            f"--output={name} is neither a .csv nor a .json file.",
            "Name it FILE.csv or FILE.json.",
        )
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise UserError(
            f"--output={name} is not a file in an existing, writable folder.",
            "Create the folder, or name another file.",
            ExitCode.OUTPUT,
        )
    if path.exists() and not _is_prediction(path):
        raise UserError(
            f"--output={name} is there already and is no prediction of this program.",
            "Name another file.",
            ExitCode.OUTPUT,
        )


def _is_prediction(path: Path) -> bool:
    """Whether a file begins as those that are written here: it may be replaced."""
    starts = (",".join(COLUMNS) + "\n", _JSON_START)
    most = max(map(len, starts))
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(most).decode(errors="replace")
    except OSError:
        return False
    return not start or start.startswith(starts)


def predict(config: PredictConfig, words: Sequence[str]) -> None:
    """Predicts what the words name; writes and prints what the options ask for.

    Raises:
      UserError: no picture is named (exit 2); a path is wrong, or none of the pictures
        can be read (3); output cannot be written (4); a damaged model (5); no memory
        for the batch (7).
    """
    if not words:
        raise usage_error(
            "No picture is named.", "Add files, folders, zip files or patterns."
        )
    found = pictures.find(words)
    predictor = Predictor(config.run_dir, config.abstain)
    with (
        _meter(len(found), "predicted") as meter,
        runtime.memory_errors(config.batch_size),
    ):
        table = predictor.predict(found, config.batch_size, meter.update)
    skipped = _report_skipped(found, table["error"])
    readable = table[table["error"] == ""]
    if readable.empty:
        raise UserError(
            f"None of {len(table):,} images could be read.",
            "Name JPEG or PNG pictures.",
            ExitCode.INPUT_DATA,
        )
    if config.output:
        _write(Path(config.output), readable, predictor.facts, skipped)
    if config.annotate:
        shown = [found[number] for number in readable.index]
        with _meter(len(shown), "annotated") as meter:
            errors = annotate.write(
                config.annotate, shown, readable, predictor.label_names, meter.update
            )
        _report_skipped(shown, errors)
    _show(readable, predictor, _ROWS_SHOWN if config.output else None)
    by_path = sum(
        pictures.in_utf8(picture.name) != image_id
        for picture, image_id in zip(found, table["image_id"], strict=True)
    )
    if by_path:
        print(f"note: {by_path:,} images share their names: image_id is their path")
    goals = ", ".join(goal for goal in (config.output, config.annotate) if goal)
    arrow = f" -> {goals}" if goals else ""
    print(f"{len(readable):,} of {len(table):,} images predicted{arrow}")


def _meter(total: int, done: str) -> contextlib.closing:
    # What stands on standard output can be piped elsewhere.
    return contextlib.closing(Meter(total, done, sys.stderr, rejected="skipped"))


def _report_skipped(
    found: Sequence[Picture], errors: Iterable[str]
) -> list[dict[str, str]]:
    """Names what was skipped on the standard error stream; returns it, too."""
    skipped = []
    for picture, error in zip(found, errors, strict=True):
        if error:
            print(f"skipped {_printable(picture.path)}: {error}", file=sys.stderr)
            skipped.append({"path": pictures.in_utf8(picture.path), "error": error})
    return skipped


def _write(
    path: Path,
    table: pd.DataFrame,
    facts: dict[str, Any],
    skipped: list[dict[str, str]],
) -> None:
    rows = table[COLUMNS]
    if path.suffix.lower() == ".csv":
        text = rows.to_csv(index=False)
    else:
        document = {
            "model": facts,
            "predictions": rows.astype({"label": int}).to_dict("records"),
            "skipped": skipped,
        }
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    with files.output_errors(path.parent):
        files.atomic_write(path, text)


def _show(table: pd.DataFrame, predictor: Predictor, most: int | None) -> None:
    """Prints the first rows, and how many pictures are called what."""
    words = np.array(predictor.label_names)[table["label"].to_numpy(int)]
    words = np.where(table["abstained"], "undecided", words)
    ids = [_printable(image_id) for image_id in table["image_id"][:most]]
    width = max(map(len, ["image", *ids]))
    print(f"probability of (perceived) {predictor.label_names[1]}")
    print(f"{'image':{width}}  probability  label")
    shown = zip(ids, table["probability"][:most], words[:most], strict=True)
    for image_id, probability, word in shown:
        print(f"{image_id:{width}}  {probability:11.3f}  {word}")
    if len(table) > len(ids):
        print(f"... and {len(table) - len(ids):,} more")
    counts = collections.Counter(words.tolist())
    parts = [f"{counts[word]:,} {word}" for word in predictor.label_names[::-1]]
    parts.append(
        f"{counts['undecided']:,} undecided (less than {predictor.abstain:g} from 0.5)"
    )
    print(", ".join(parts))


def _printable(text: str) -> str:
    """A file name with what could steer a terminal replaced."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(PredictConfig, values)
    words = command.parse(argv, values)
    with wakeup.Watch():
        predict(command.from_flags(PredictConfig, values), words)


if __name__ == "__main__":
    command.run(main)
