"""Exports a run's model: `python -m trainer.export --run_dir=RUN --format=onnx`.

The export takes images and gives probabilities: preprocessing and temperature are
inside. Before it takes its name, a fresh process loads it without this project's code,
and its probabilities are compared with the original's on real images. Next to it,
`<export>.json` describes inputs and outputs, the largest difference, and the digests
that lead back to the model and its data.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import tensorflow as tf

from schemas.manifest import FILE_NAME
from support import command, files
from support.documents import DocumentError, read_text
from support.errors import ExitCode, UserError, did_you_mean, usage_error
from trainer import augmentation, models
from trainer.data import Dataset, evaluation_dataset, open_dataset
from trainer.evaluation import calibration
from trainer.inference import export_check, export_formats, export_record
from trainer.inference.export_formats import FORMATS
from trainer.loop import wakeup
from trainer.runs import BEST, FLAGS, provenance
from trainer.runs.folder import read_options
from trainer.runs.record import read_run

#: Largest difference in probability. Other kernels round float32 differently, which
#: moves it by some 1e-6; a mistake in channels, range or temperature by 1e-2 and more.
TOLERANCE = 1e-4
#: Images that are compared, and how many at once: one, some that do not fill the last
#: batch, all.
CHECKED, BATCH_SIZES = 64, (1, 5, 64)

_SPLIT = "validation"
_CHECK_SECONDS = 1800


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Flags of `python -m trainer.export`."""

    run_dir: str | None = command.option(None, "Directory of a finished run.")
    format: str | None = command.option(None, "keras, savedmodel, onnx or litert.")
    output: str | None = command.option(
        None, "File, or directory of a SavedModel, to write; default: in the run's."
    )
    data_dir: str | None = command.option(
        None,
        "Directory of the dataset on whose validation images the export is compared "
        "with the original; default: the run's.",
    )
    overwrite: bool = command.option(False, "Replace an existing export.")

    def __post_init__(self):
        for name, like in (("run_dir", "runs/NAME"), ("format", "onnx")):
            if not getattr(self, name):
                raise usage_error(f"--{name} is missing.", f"Add --{name}={like}.")
        if self.format not in FORMATS:
            raise usage_error(
                f"There is no format {self.format!r}.",
                did_you_mean(self.format, FORMATS),
            )
        suffix = FORMATS[self.format].suffix
        if not str(self.path).endswith(suffix):
            raise usage_error(
                f"--output={self.output} does not end in {suffix}, as "
                f"--format={self.format} has to.",
                f"Write --output=NAME{suffix}.",
            )

    @property
    def path(self) -> Path:
        """What is written."""
        default = Path(self.run_dir) / FORMATS[self.format].default_name
        return Path(self.output) if self.output else default


def export(config: ExportConfig) -> dict[str, Any]:
    """Writes an export, compared with its original, and its record.

    Returns:
      The record, see `export_record.describe`.

    Raises:
      UserError: packages that the format needs are not installed, or no dataset to
        compare on (exit 2); no finished run or dataset (3); the output exists or cannot
        be written (4); a damaged file, or the export differs from its original (5).
    """
    form = FORMATS[config.format]
    export_formats.require_packages(config.format)
    run = read_run(config.run_dir)
    _check_output(config)
    with wakeup.Watch():
        model = models.load(config.run_dir)
        dataset = open_dataset(_data_dir(config), needed=[_SPLIT])
        images = read_images(dataset, run["input_size"])
        temperature = run.get("temperature", 1.0)
        logits = model.predict_on_batch(images)[:, 0]
        expected = calibration.probabilities(logits, temperature)
    # On the same disk; the name in it keeps its suffix, which exporters insist on.
    parent = config.path.absolute().parent
    temporary = tempfile.TemporaryDirectory(
        dir=parent, prefix=f".{config.path.name}.", ignore_cleanup_errors=True
    )
    with files.output_errors(parent), temporary as folder:
        unfinished = Path(folder, config.path.name)
        with wakeup.Watch():
            form.write(export_formats.probability_model(model, temperature), unfinished)
        actual = run_alone(config.format, unfinished, images)
        difference = check(actual, expected, config.format)
        record = export_record.describe(config.format, unfinished, run, difference)
        record["compared_on"] = {
            "manifest_digest": dataset.manifest.digest,
            "split": _SPLIT,
            "images": len(images),
            "batch_sizes": list(BATCH_SIZES),
        }
        _publish(unfinished, config.path, record)
    return record


def read_images(dataset: Dataset, size: int) -> np.ndarray:
    """The first images of the validation split, as the model takes them.

    Returns:
      (n, size, size, 3) float32, 0..255; n is `CHECKED`, or less in a small dataset.
    """
    count = min(CHECKED, dataset.manifest.num_examples(_SPLIT))
    batches = evaluation_dataset(dataset, _SPLIT, count)
    pixels, _ = next(dataset.iterate(_SPLIT, batches))
    return np.asarray(augmentation.resize(pixels, size))


def run_alone(name: str, path: Path, images: np.ndarray) -> np.ndarray:
    """Runs an export in a fresh process without this project's code.

    Args:
      name: of the format.
      path: the export.
      images: (n, side, side, 3) float32, 0..255.

    Returns:
      (sizes, n) probabilities, a row for each of `BATCH_SIZES`.

    Raises:
      UserError: the process failed or did not end (exit 5).
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "images.npy"), Path(folder, "probabilities.npy")
        np.save(source, images)
        # Isolated: neither PYTHONPATH nor the current directory reaches it.
        words = [sys.executable, "-I", export_check.__file__, name, path.absolute()]
        words += [source, target, *BATCH_SIZES]
        try:
            done = subprocess.run(
                [str(word) for word in words],
                cwd=folder,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CHECK_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise _unusable(name, f"no result in {_CHECK_SECONDS} s") from error
        if done.returncode or not target.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise _unusable(name, lines[-1])
        return np.load(target)


def check(actual: np.ndarray, expected: np.ndarray, name: str) -> float:
    """Compares an export's probabilities with the original's.

    Args:
      actual: (sizes, n).
      expected: (n,).
      name: of the format.

    Returns:
      The largest difference.

    Raises:
      UserError: it is above `TOLERANCE` or not a number (exit 5).
    """
    difference = float(np.abs(actual - expected).max())
    if not difference <= TOLERANCE:
        raise UserError(
            f"The {name} export gives other probabilities than the run's model: "
            f"{difference:.1e} apart, {TOLERANCE:.0e} allowed. It was not kept.",
            "Choose another --format, and report this with the versions in use.",
            ExitCode.INTEGRITY,
        )
    return difference


def _unusable(name: str, why: str) -> UserError:
    return UserError(
        f"The {name} export does not run on its own: {why}. It was not kept.",
        "Choose another --format, and report this with the versions in use.",
        ExitCode.INTEGRITY,
    )


def _data_dir(config: ExportConfig) -> str:
    """The dataset that is given, or that the run recorded."""
    if config.data_dir:
        return config.data_dir
    recorded = ""
    with contextlib.suppress(OSError, DocumentError):
        text = read_text(Path(config.run_dir) / FLAGS)
        recorded = read_options(text).get("data_dir", "")
    if not recorded or not (Path(recorded) / FILE_NAME).is_file():
        where = f"at {recorded}" if recorded else "recorded"
        raise usage_error(
            f"The run's dataset is not {where}; on its images the export is compared "
            "with the original.",
            "Add --data_dir=DIRECTORY; any dataset of this project will do.",
        )
    return recorded


def _check_output(config: ExportConfig) -> None:
    """Accepts a new path, or with --overwrite that of another export."""
    path, folder = config.path, config.path.absolute().parent
    record_path = provenance.path_of(path)
    if not folder.is_dir():
        problem = f"is in {folder}, which is no directory"
        remedy = "Create that directory."
    elif path.name == BEST:
        problem, remedy = "is the name of a run's own model", "Choose another --output."
    elif record_path.exists() and not provenance.is_record(record_path):
        problem = f"needs {record_path} for its record, which is another file"
        remedy = "Choose another --output."
    elif not path.exists():
        return
    elif not config.overwrite:
        problem, remedy = "exists already", "Add --overwrite, or another --output."
    elif config.format == "savedmodel":
        if (path / export_formats.SAVED_MODEL_FILE).is_file():
            return
        problem, remedy = "contains no SavedModel", "Choose another --output."
    elif path.is_file():
        return
    else:
        problem, remedy = "is a directory", "Choose another --output."
    raise UserError(f"{path} {problem}.", remedy, ExitCode.OUTPUT)


def _publish(unfinished: Path, path: Path, record: dict[str, Any]) -> None:
    """Gives an export its name; a record is never next to another export."""
    record_path = provenance.path_of(path)
    for file in export_record.files_in(unfinished):
        files.sync_file(file)
    record_path.unlink(missing_ok=True)
    if path.is_dir():
        files.exchange(unfinished, path)  # the old one goes with the temporary one
    else:
        os.replace(unfinished, path)
    files.sync_folder(path.parent)
    files.atomic_write(record_path, json.dumps(record, indent=1) + "\n")


def main(argv: list[str]) -> None:
    config = command.parse_config(ExportConfig, argv)
    # Both sides of the comparison on the CPU: GPUs round convolutions to TF32.
    tf.config.set_visible_devices([], "GPU")
    record = export(config)
    compared = record["compared_on"]
    print(
        f"largest difference to the run's model: {record['largest_difference']:.1e} in "
        f"probability, {compared['images']} {compared['split']} images, batches of "
        f"{', '.join(map(str, compared['batch_sizes']))}\n"
        f"{config.format} -> {config.path}, {provenance.path_of(config.path).name}"
    )


if __name__ == "__main__":
    command.run(main)
