"""A run's folder: where it is, whether it may go on, and what it records.

flags.txt, run.json, history.csv, best.keras, metrics.json, predictions.csv, the
figures, and report.html.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from schemas import celeba
from schemas.manifest import Manifest
from support import command
from support.documents import DocumentError, read_text
from support.errors import ExitCode, UserError, usage_error
from support.files import atomic_write, output_errors
from trainer import models
from trainer.config import NOT_COMPARED, TrainConfig

FLAGS = "flags.txt"
FINISHED, RUNNING = "finished", "running"
#: Options that `auto` and 0 leave to the machine.
_EFFECTIVE = ("precision", "xla", "replicas")
_VERSIONS = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn")


def choose(config: TrainConfig) -> Path:
    """The run folder: the one asked for, or a dated one under runs/."""
    if config.run_dir:
        return Path(config.run_dir)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{now}-{config.model}"


def is_finished(run_dir: Path) -> bool:
    path = run_dir / models.RUN
    return path.is_file() and models.read_run(run_dir).get("status") == FINISHED


def check_options(run_dir: Path, config: TrainConfig) -> None:
    """Lets a run go on, or be over, only as what it was started as.

    Raises:
      UserError: the folder is a run's with other options (exit 2), it holds other
        files, or it is no folder (exit 4).
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(
            f"{run_dir} is not a folder.", "Choose another --run_dir.", ExitCode.OUTPUT
        )
    if not run_dir.exists() or _is_new(run_dir):
        return
    if not (run_dir / FLAGS).is_file():
        raise UserError(
            f"{run_dir} is not empty and holds no run.",
            "Choose another --run_dir.",
            ExitCode.OUTPUT,
        )
    before = _read_flags(run_dir / FLAGS)
    now = _read_lines(command.flags_text(config))
    free = set(NOT_COMPARED)
    if (run_dir / models.RUN).is_file():
        free |= {*_EFFECTIVE}  # what they became is compared, see `start`
    changed = [
        f"--{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted((before.keys() | now.keys()) - free)
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise usage_error(
            f"{run_dir} holds a run with other options: {'; '.join(changed)}.",
            "Choose another --run_dir, or give the options of that run.",
        )


def start(run_dir: Path, config: TrainConfig, run: dict[str, Any]) -> None:
    """Writes flags.txt and run.json; a run that goes on keeps its starting date.

    Raises:
      UserError: the run that goes on was started on other data, or computed in another
        way: another precision, XLA or number of replicas (exit 2); the disk is full or
        not writable (exit 4).
    """
    with output_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        for unfinished in run_dir.glob(".*.tmp"):  # what a kill left
            unfinished.unlink()
        if (run_dir / models.RUN).is_file():
            before = models.read_run(run_dir)
            _check_same(run_dir, before, run)
            run = run | {"started": before.get("started")}
        atomic_write(run_dir / FLAGS, command.flags_text(config))
        models.write_run(run_dir, run)


def _check_same(run_dir: Path, before: dict[str, Any], run: dict[str, Any]) -> None:
    remedies = {
        "manifest_digest": "name the dataset of that run.",
        "precision": f"use --precision={before.get('precision')}.",
        "xla": f"use --xla={'on' if before.get('xla') else 'off'}.",
        "replicas": f"use --replicas={before.get('replicas')}.",
    }
    for key, remedy in remedies.items():
        if before.get(key) != run[key]:
            what = "other data (manifest_digest" if "digest" in key else f"({key}"
            raise usage_error(
                f"{run_dir} was started on {what} {str(before.get(key))[:12]}, now "
                f"{str(run[key])[:12]}).",
                f"Choose another --run_dir, or {remedy}",
            )


def _is_new(run_dir: Path) -> bool:
    """Whether a folder is empty but for what a start that was cut off left."""
    names = {path.name for path in run_dir.iterdir()}
    return not {name for name in names if name != FLAGS and not name.startswith(".")}


def describe(config: TrainConfig, manifest: Manifest) -> dict[str, Any]:
    """What run.json says of a run before its first step, devices excluded."""
    return {
        "status": RUNNING,
        "started": now(),
        "model": config.model,
        "regime": config.regime,
        "input_size": config.input_size,
        "seed": config.seed,
        "attribute": manifest.attribute,
        "manifest_digest": manifest.digest,
        "global_batch": config.batch_size,
        "versions": {"python": platform.python_version()} | _versions(),
        "data": describe_data(manifest),
    }


def describe_data(manifest: Manifest) -> dict[str, Any]:
    """What run.json and the report say of a dataset."""
    return {
        "image_shape": list(manifest.image_shape),
        "split": manifest.config.get("split"),
        "class_counts": {
            split: list(manifest.class_counts(split)) for split in celeba.SPLITS
        },
        "dataset": dataclasses.asdict(manifest.dataset),
        "config": manifest.config,
        "sources": manifest.sources,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        # TensorFlow goes by other names too: tensorflow-cpu, for one.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read_flags(path: Path) -> dict[str, str]:
    try:
        return _read_lines(read_text(path))
    except DocumentError as error:
        raise UserError(
            error.at(path), "Choose another --run_dir.", ExitCode.INPUT_DATA
        ) from error


def _read_lines(text: str) -> dict[str, str]:
    lines = [line.removeprefix("--").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines}
