"""A run's folder: where it is, whether it may go on, and what it records.

flags.txt, run.json, history.csv, best.keras, metrics.json, predictions.csv, the
figures, and report.html.
"""

import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from schemas.manifest import Manifest
from support import command
from support.errors import ExitCode, UserError, usage_error
from support.files import atomic_write
from trainer import models
from trainer.config import NOT_COMPARED, TrainConfig

FLAGS = "flags.txt"
FINISHED, RUNNING = "finished", "running"
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


def check_unchanged(run_dir: Path, config: TrainConfig, manifest: Manifest) -> None:
    """Lets a run go on only as what it was started as.

    Raises:
      UserError: the folder is another run's: options or data differ (exit 2), or it
        holds other files (exit 4).
    """
    if not run_dir.exists() or not any(run_dir.iterdir()):
        return
    if not (run_dir / FLAGS).is_file():
        raise UserError(
            f"{run_dir} is not empty and holds no run.",
            "Choose another --run_dir.",
            ExitCode.OUTPUT,
        )
    before = _read_flags(run_dir / FLAGS)
    now = _read_lines(command.flags_text(config))
    changed = [
        f"--{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if name not in NOT_COMPARED and before.get(name) != now.get(name)
    ]
    if changed:
        raise usage_error(
            f"{run_dir} holds a run with other options: {'; '.join(changed)}.",
            "Choose another --run_dir, or give the options of that run.",
        )
    digest = models.read_run(run_dir).get("manifest_digest")
    if digest != manifest.digest:
        raise usage_error(
            f"{run_dir} was started on other data (manifest {str(digest)[:12]}, now "
            f"{manifest.digest[:12]}).",
            "Choose another --run_dir, or name the dataset of that run.",
        )


def start(run_dir: Path, config: TrainConfig, run: dict[str, Any]) -> None:
    """Writes flags.txt and run.json; a run that goes on keeps its starting date."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if (run_dir / models.RUN).is_file():
        run = run | {"started": models.read_run(run_dir).get("started")}
    atomic_write(run_dir / FLAGS, command.flags_text(config))
    models.write_run(run_dir, run)


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
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONS},
        "data": {
            "image_shape": list(manifest.image_shape),
            "split": manifest.config.get("split"),
            "class_counts": {
                split: list(manifest.class_counts(split))
                for split in ("train", "validation", "test")
            },
            "sources": manifest.sources,
        },
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read_flags(path: Path) -> dict[str, str]:
    return _read_lines(path.read_text())


def _read_lines(text: str) -> dict[str, str]:
    lines = [line.removeprefix("--").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines}
