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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import tensorflow as tf

from schemas.manifest import FILE_NAME
from support import command, files
from support.documents import DocumentError, read_text
from support.errors import (
    ExitCode,
    UserError,
    did_you_mean,
    output_error,
    usage_error,
)
from support.images import require_local
from trainer import augmentation, models
from trainer.data import Dataset, evaluation_dataset, open_dataset
from trainer.evaluation import calibration
from trainer.inference import export_check, export_formats
from trainer.inference.export_formats import FORMATS, IMAGES, PROBABILITY
from trainer.loop import wakeup
from trainer.runs import BEST, FLAGS, provenance, record
from trainer.runs.folder import read_options

#: Largest difference in probability. Other kernels round float32 differently, which
#: moves it by some 1e-6; a mistake in channels, range or temperature by 1e-2 and more.
TOLERANCE = 1e-4
#: Images that are compared, and how many at once: one, some that do not fill the last
#: batch, all.
CHECKED, BATCH_SIZES = 64, (1, 5, 64)

_SPLIT = "validation"
#: Characters that TensorFlow reads as a pattern in the path of a SavedModel.
_PATTERN = "*?[\\"
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
        if self.output:
            require_local(self.output, "output")
        for character in _PATTERN if self.format == "savedmodel" else "":
            if character in str(self.target):
                raise usage_error(
                    f"--output={self.path}: TensorFlow cannot load a SavedModel from a "
                    f"path with a {character}, which it reads as a pattern.",
                    f"Choose an --output without {character}.",
                )

    @property
    def path(self) -> Path:
        """The name of what is written."""
        default = Path(self.run_dir) / FORMATS[self.format].default_name
        return Path(self.output) if self.output else default

    @property
    def target(self) -> Path:
        """What is written: where a link leads."""
        return Path(os.path.realpath(self.path))


def export(config: ExportConfig) -> dict[str, Any]:
    """Writes an export, compared with its original, and its record.

    Returns:
      The record, see `describe`.

    Raises:
      UserError: packages that the format needs are not installed, or no dataset to
        compare on (exit 2); no finished run or dataset (3); the output exists or cannot
        be written (4); a damaged file, or the export differs from its original (5).
    """
    export_formats.require_packages(config.format)
    run = record.read_run(config.run_dir)
    _check_output(config)
    with files.FolderLock(config.target):
        _check_output(config)  # another export may just have ended
        return _export(config, run)


def _export(config: ExportConfig, run: record.RunRecord) -> dict[str, Any]:
    form = FORMATS[config.format]
    with wakeup.Watch():
        model = models.load(config.run_dir)
        dataset = open_dataset(_data_dir(config), needed=[_SPLIT])
        images = read_images(dataset, run["input_size"])
        temperature = run.get("temperature", 1.0)
        logits = model.predict_on_batch(images)[:, 0]
        expected = calibration.probabilities(logits, temperature)
    # The name in the folder keeps its suffix, which exporters insist on.
    temporary = files.unfinished_folder(config.target)
    with files.output_errors(config.target.parent), temporary as folder:
        unfinished = folder / config.path.name
        with wakeup.Watch(), _write_errors(config.target.parent):
            form.write(export_formats.probability_model(model, temperature), unfinished)
        actual = run_alone(config.format, unfinished, images)
        difference = check(actual, expected, config.format)
        description = describe(config.format, unfinished, run) | {
            "largest_difference": difference,
            "compared_on": {
                "manifest_digest": dataset.manifest.digest,
                "split": _SPLIT,
                "images": len(images),
                "batch_sizes": list(BATCH_SIZES),
            },
        }
        _publish(unfinished, config, description)
    return description


@contextlib.contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Turns what TensorFlow raises when it cannot write into an error of the disk."""
    try:
        yield
    except tf.errors.OpError as error:
        # Not a lack of memory: that of a CPU ends the process.
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise files.full_disk_error(folder) from error
        raise output_error(
            f"{folder} cannot be written: {str(error).splitlines()[0]}.",
            "Choose an --output on another disk.",
        ) from error


def describe(name: str, export: Path, run: record.RunRecord) -> dict[str, Any]:
    """Describes an export: its inputs, outputs and digests.

    Args:
      name: of the format.
      export: the file, or the directory of a SavedModel.
      run: its run's run.json.
    """
    size = run["input_size"]
    return {
        "format": name,
        "file": export.name,
        "sha256": provenance.sha256_of(export),
        "model_sha256": provenance.model_sha256(run),
        "manifest_digest": run["manifest_digest"],
        "attribute": run["attribute"],
        "model": run["model"],
        "temperature": run.get("temperature", 1.0),
        "input": {
            "name": IMAGES,
            "shape": ["batch", size, size, 3],
            "dtype": "float32",
            "range": [0, 255],
            "content": f"RGB, the complete image resized bilinearly to {size}x{size}",
        },
        "output": {
            "name": PROBABILITY,
            "shape": ["batch", 1],
            "dtype": "float32",
            "range": [0, 1],
            "content": f"probability of label 1, perceived {run['attribute']}",
        },
        "exported": record.now(),
        "versions": record.versions(
            "tensorflow", "keras", *FORMATS[name].packages.values()
        ),
    }


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
        problem = f"The {name} export does not run on its own: "
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
            raise _rejected(f"{problem}no result in {_CHECK_SECONDS} s.") from error
        if done.returncode or not target.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise _rejected(f"{problem}{lines[-1]}.")
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
        raise _rejected(
            f"The {name} export gives other probabilities than the run's model: "
            f"{difference:.1e} apart, {TOLERANCE:.0e} allowed."
        )
    return difference


def _rejected(cause: str) -> UserError:
    return UserError(
        f"{cause} It was not kept.",
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
    path, folder = config.path, config.target.parent
    record_path = provenance.path_of(path)
    is_other = record_path.exists() and not provenance.is_record(record_path)
    another = "Choose another --output."
    if config.format == "savedmodel":
        is_export = (path / export_formats.SAVED_MODEL_FILE).is_file()
        no_export = "contains no SavedModel"
    else:
        is_export, no_export = path.is_file(), "is a directory"
    overwrite = "Add --overwrite, or another --output."
    for is_wrong, problem, remedy in (
        (not folder.is_dir(), f"is in {folder}, no directory", "Create it."),
        (path.name == BEST, "is the name of a run's own model", another),
        (is_other, f"needs {record_path} for its record, another file", another),
        (path.exists() and not config.overwrite, "exists already", overwrite),
        (path.exists() and not is_export, no_export, another),
    ):
        if is_wrong:
            raise output_error(f"{path} {problem}.", remedy)


def _publish(
    unfinished: Path, config: ExportConfig, description: dict[str, Any]
) -> None:
    """Gives an export its name; a record is never next to another export."""
    record_path, target = provenance.path_of(config.path), config.target
    for file in (unfinished, *unfinished.rglob("*")):
        if file.is_file():
            files.sync_file(file)
    with files.atomic_writer(record_path) as file:
        file.write(files.encode(json.dumps(description, indent=1) + "\n"))
        file.flush()  # a full disk shows here, before anything is replaced
        record_path.unlink(missing_ok=True)
        if target.is_dir():
            files.exchange(unfinished, target)  # the old one goes with the folder
        else:
            os.replace(unfinished, target)
        files.sync_folder(target.parent)


def main(argv: list[str]) -> None:
    config = command.parse_config(ExportConfig, argv)
    # Both sides of the comparison on the CPU: GPUs round convolutions to TF32.
    tf.config.set_visible_devices([], "GPU")
    description = export(config)
    difference, compared = (
        description[key] for key in ("largest_difference", "compared_on")
    )
    print(
        f"largest difference to the run's model: {difference:.1e} in "
        f"probability, {compared['images']} {compared['split']} images, batches of "
        f"{', '.join(map(str, compared['batch_sizes']))}\n"
        f"{config.format} -> {config.path}, {provenance.path_of(config.path).name}"
    )


if __name__ == "__main__":
    command.run(main)
