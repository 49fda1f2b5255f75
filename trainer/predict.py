"""Predictions for pictures: `python -m trainer.predict --run_dir=RUN PATH...`.

Decoding, stretch and model are those of the evaluation, so the files that a dataset
was built from get the probabilities that stand in `predictions.csv`.
"""

import collections
import dataclasses
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import tensorflow as tf

from support import command, files, images
from support.errors import ExitCode, UserError, usage_error
from trainer import calibration, models, wakeup, warp

COLUMNS = ["image_id", "probability", "label"]
THRESHOLD = 0.5

_SUFFIXES = (".jpg", ".jpeg", ".png")
_PNG = b"\x89PNG"
#: A batch ends at so many images or pixels, whichever comes first.
_IMAGES, _PIXELS = 64, 50_000_000
_ROWS_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Flags of `python -m trainer.predict`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")
    output: str | None = command.option(None, "CSV file to write.")

    def __post_init__(self):
        for name, like in (("run_dir", "runs/NAME"), ("output", "predictions.csv")):
            if not getattr(self, name):
                raise usage_error(f"--{name} is missing.", f"Add --{name}={like}.")
        if (
            Path(self.output).is_dir()
            or not Path(self.output).absolute().parent.is_dir()
        ):
            raise UserError(
                f"--output={self.output} is not a file in an existing folder.",
                "Create the folder, or name another file.",
                ExitCode.OUTPUT,
            )


class Predictor:
    """A run's best model, ready for pictures.

    Attributes:
      attribute: the perceived attribute that label 1 stands for.
      size: side of the model's input, pixels.
    """

    def __init__(self, run_dir: str | os.PathLike):
        """Loads the model by its name and weights; no code is read from the run.

        Raises:
          UserError: not a finished run (exit 3); a damaged or foreign file (exit 5).
        """
        run = models.read_run(run_dir)
        self._model = models.load(run_dir)
        self._temperature: float = run.get("temperature", 1.0)
        self.attribute: str = run["attribute"]
        self.size: int = run["input_size"]

    def predict(self, paths: Iterable[str | os.PathLike]) -> pd.DataFrame:
        """Predicts JPEG and PNG files of any size, stretched to the model's input.

        Returns:
          One row per file, in the order given: image_id (the file's name),
          probability (of label 1, 0..1; NaN if unreadable), label (1 if the
          probability is at least 0.5, else 0; <NA> if unreadable), error (why it is
          unreadable, "" if it is not).
        """
        paths = [Path(path) for path in paths]
        probabilities = np.full(len(paths), np.nan)
        errors = [""] * len(paths)
        for batch in _batches(paths, errors):
            numbers, pictures = zip(*batch, strict=True)
            probabilities[list(numbers)] = self._probabilities(pictures)
        labels = pd.array((probabilities >= THRESHOLD).astype("int64"), "Int64")
        labels[np.isnan(probabilities)] = pd.NA
        names = [path.name for path in paths]
        return pd.DataFrame(
            dict(zip(COLUMNS, (names, probabilities, labels), strict=True))
            | {"error": errors}
        )

    def _probabilities(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(height, width, 3) uint8 pictures of any shapes to (n,) probabilities."""
        stretched = np.empty((len(pictures), self.size, self.size, 3), np.float32)
        by_shape = collections.defaultdict(list)
        for number, picture in enumerate(pictures):
            by_shape[picture.shape].append(number)
        for numbers in by_shape.values():
            same = np.stack([pictures[number] for number in numbers])
            # Not the compiled warp: that would compile anew for each shape.
            stretched[numbers] = warp.stretch(tf.constant(same), self.size)
        logits = self._model.predict_on_batch(stretched)[:, 0]
        return calibration.probabilities(logits, self._temperature)


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG file; a JPEG is turned upright by its EXIF orientation.

    Returns:
      (height, width, 3) uint8, RGB.

    Raises:
      images.BadImage: not a picture of these kinds, damaged, or too large.
    """
    if data.startswith(_PNG):
        # The header comes first, so that a forged size is never allocated.
        width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
        if width * height > images.MAX_PIXELS:
            raise images.BadImage("size", f"{width}x{height} pixels")
        try:
            return tf.io.decode_png(data, channels=3).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise images.BadImage("damaged", "the PNG decoder refuses it") from error
    jpeg, _, _ = images.prepare_jpeg(data)
    return images.decode_rgb(jpeg)


def find_images(words: Sequence[str]) -> list[Path]:
    """The files that are named, and the JPEG and PNG files of the folders named.

    Raises:
      UserError: a path does not exist, or a folder holds no picture (exit 3).
    """
    found = []
    for word in words:
        path = Path(word)
        if not path.exists():
            raise UserError(
                f"{path} does not exist.", "Check the path.", ExitCode.INPUT_DATA
            )
        if not path.is_dir():
            found.append(path)
            continue
        inside = [file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES]
        if not inside:
            raise UserError(
                f"{path} holds no .jpg, .jpeg or .png file.",
                "Name the folder in which the pictures lie.",
                ExitCode.INPUT_DATA,
            )
        found += sorted(inside)
    return found


def _batches(
    paths: Sequence[Path], errors: list[str]
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Yields (number, picture) batches; fills in `errors` for what cannot be read."""
    batch, pixels = [], 0
    for number, path in enumerate(paths):
        try:
            picture = decode(path.read_bytes())
        except OSError as error:
            errors[number] = error.strerror or type(error).__name__
            continue
        except images.BadImage as error:
            errors[number] = f"{error.reason}: {error.detail}"
            continue
        batch.append((number, picture))
        pixels += picture.shape[0] * picture.shape[1]
        if len(batch) == _IMAGES or pixels >= _PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _show(table: pd.DataFrame, attribute: str) -> None:
    """Prints the first rows; `label` is what the model calls a picture."""
    shown = table[COLUMNS].head(_ROWS_SHOWN)
    print(f"probability of (perceived) {attribute}")
    print(shown.to_string(index=False, float_format="{:.3f}".format))
    if len(table) > len(shown):
        print(f"... and {len(table) - len(shown):,} more")


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(PredictConfig, values)
    words = command.parse(argv, values)
    config = command.from_flags(PredictConfig, values)
    if not words:
        raise usage_error("No picture is named.", "Add files or folders.")
    paths = find_images(words)
    with wakeup.Watch():
        predictor = Predictor(config.run_dir)
        table = predictor.predict(paths)
    for path, error in zip(paths, table["error"], strict=True):
        if error:
            print(f"skipped {path}: {error}", file=sys.stderr)
    readable = table[table["error"] == ""]
    if readable.empty:
        raise UserError(
            f"None of {len(table):,} files could be read.",
            "Name JPEG or PNG pictures.",
            ExitCode.INPUT_DATA,
        )
    with files.output_errors(Path(config.output).parent):
        files.atomic_write(config.output, readable[COLUMNS].to_csv(index=False))
    _show(readable, predictor.attribute)
    print(f"{len(readable):,} of {len(table):,} files -> {config.output}")


if __name__ == "__main__":
    command.run(main)
