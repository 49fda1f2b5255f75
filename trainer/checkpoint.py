"""Checkpoints: everything that a run's future depends on, in one file, whole or absent.

A checkpoint is an .npz of plain arrays (nothing pickled) with a JSON header inside.
The newest two are kept, so that a damaged one can be passed over.
"""

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.errors import ExitCode, UserError
from support.files import atomic_writer, output_errors

FOLDER = "checkpoints"
_HEADER = "header"
_KEEP = 2
#: What reading a cut, emptied or flipped file raises, somewhere in NumPy or zipfile.
_DAMAGED = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass
class Progress:
    """Where a run stands, beside its arrays.

    Attributes:
      epoch: epochs finished and evaluated.
      step: steps done in the epoch that follows.
      best_loss: lowest validation loss so far.
      best_epoch: the epoch (from 1) that had it, 0 before the first.
      history: one row per finished epoch.
      seconds: time spent training so far.
    """

    epoch: int = 0
    step: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def save(run_dir: Path, global_step: int, variables: Mapping, progress: Progress):
    """Writes a checkpoint and removes all but the newest two.

    Args:
      run_dir: the run folder.
      global_step: steps done in all, the checkpoint's name.
      variables: TensorFlow variables by name.
      progress: where the run stands.

    Raises:
      UserError: the disk is full or not writable (exit 4).
    """
    folder = run_dir / FOLDER
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    header = np.array(json.dumps(dataclasses.asdict(progress)))
    needed = sum(array.nbytes for array in arrays.values())
    with output_errors(folder, needed):
        folder.mkdir(exist_ok=True)
        with atomic_writer(folder / f"step-{global_step:09d}.npz") as file:
            np.savez(file, **{_HEADER: header}, **arrays)
        for old in _newest_first(run_dir)[_KEEP:]:
            old.unlink()


def restore(run_dir: Path, variables: Mapping) -> tuple[Progress | None, list[str]]:
    """Reads the newest whole checkpoint into `variables`.

    Returns:
      The progress, None if there is no checkpoint, and a line for each damaged
      checkpoint that was passed over.

    Raises:
      UserError: there are checkpoints, but none is whole (exit 5).
    """
    skipped = []
    paths = _newest_first(run_dir)
    for path in paths:
        try:
            progress, arrays = _read(path, set(variables))
        except _DAMAGED as error:
            skipped.append(f"{path.name} is damaged and passed over ({error})")
            continue
        for name, variable in variables.items():
            variable.assign(arrays[name])
        return progress, skipped
    if paths:
        raise UserError(
            f"None of the {len(paths)} checkpoints in {run_dir / FOLDER} is whole.",
            "Choose another --run_dir to start anew.",
            ExitCode.INTEGRITY,
        )
    return None, skipped


def clear(run_dir: Path) -> None:
    """Removes the checkpoints of a finished run."""
    for path in _newest_first(run_dir):
        path.unlink()
    if (run_dir / FOLDER).is_dir():
        (run_dir / FOLDER).rmdir()


def _read(path: Path, names: set[str]) -> tuple[Progress, dict[str, np.ndarray]]:
    # Reading a member checks its CRC, so a flipped bit does not pass.
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    progress = Progress(**json.loads(str(arrays.pop(_HEADER))))
    if set(arrays) != names:
        raise KeyError("it holds other variables than this run has")
    return progress, arrays


def _newest_first(run_dir: Path) -> list[Path]:
    return sorted((run_dir / FOLDER).glob("step-*.npz"), reverse=True)
