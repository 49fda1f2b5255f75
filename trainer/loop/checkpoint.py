"""Checkpoints: everything that a run's future depends on, in one complete file.

A checkpoint is an .npz of plain arrays (nothing pickled) with a JSON header inside. The
newest two are kept, so that a damaged one can be skipped. The best models that they
refer to are next to them, one file per epoch: whichever checkpoint a run resumes from,
its best model is there, and a better one of an epoch that is done again is not.
"""

import dataclasses
import errno
import fnmatch
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, FiniteFloat

from support.documents import Count, parse_json
from support.errors import ExitCode, UserError
from support.files import atomic_writer, output_errors, sha256_file, sync_file
from trainer import npz
from trainer.runs import BEST

FOLDER = "checkpoints"
_STEPS, _BESTS = "step-{:09d}.npz", "best-{:05d}.keras"
_HEADER = "header"
_KEEP = 2
#: With these, of the system, no checkpoint may be skipped, and then removed.
_NOT_THE_FILE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
#: Room for the header, which has the history, and for the names of the arrays.
_SPARE_BYTES = 1 << 26


@dataclasses.dataclass
class Progress:
    """What a run has done, without its arrays.

    Attributes:
      epoch: epochs finished and evaluated.
      step: steps done in the epoch that follows.
      best_loss: lowest validation loss so far.
      best_epoch: the epoch (from 1) that had it, 0 before the first.
      best_sha256: of that epoch's model, as `best_path` names it.
      history: one row per finished epoch.
      seconds: time spent training so far.
      epoch_seconds: of these, what the steps of the unfinished epoch took.
      epoch_waited: of these, what they waited for input.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    epoch: Count = 0
    step: Count = 0
    best_loss: float = float("inf")
    best_epoch: Annotated[int, Field(ge=0, le=99_999)] = 0
    best_sha256: str = ""
    history: list[dict[str, int | float | None]] = dataclasses.field(
        default_factory=list
    )
    seconds: FiniteFloat = 0.0
    epoch_seconds: FiniteFloat = 0.0
    epoch_waited: FiniteFloat = 0.0


def best_path(run_dir: Path, epoch: int) -> Path:
    """The file for the model of an epoch (from 1) that was the best so far."""
    (run_dir / FOLDER).mkdir(exist_ok=True)
    return run_dir / FOLDER / _BESTS.format(epoch)


def save(run_dir: Path, global_step: int, variables: Mapping, progress: Progress):
    """Writes a checkpoint; best.keras becomes the best model that it refers to.

    Of the older checkpoints and best models it keeps what may still be needed.

    Args:
      run_dir: the run folder.
      global_step: steps done in all, the checkpoint's name.
      variables: TensorFlow variables by name.
      progress: what the run has done.

    Raises:
      UserError: the disk is full or not writable (exit 4).
    """
    folder = run_dir / FOLDER
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    header = np.array(json.dumps(dataclasses.asdict(progress)))
    needed = sum(array.nbytes for array in arrays.values())
    newest, best = _STEPS.format(global_step), _BESTS.format(progress.best_epoch)
    with output_errors(folder, needed):
        folder.mkdir(exist_ok=True)
        _remove_except(folder, _names(folder, _STEPS) + _names(folder, _BESTS))
        with atomic_writer(folder / newest) as file:
            np.savez(file, **{_HEADER: header}, **arrays)
        _publish_best(run_dir, progress)
        # What is newer was skipped as damaged, or is of an epoch that is done again.
        # Every epoch ends with a checkpoint, so of two neighbors the earlier one refers
        # to the same best model as the later, or to the one before it.
        steps = [name for name in _names(folder, _STEPS) if name <= newest]
        bests = [name for name in _names(folder, _BESTS) if name <= best]
        _remove_except(folder, steps[-_KEEP:] + bests[-_KEEP:])


def restore(run_dir: Path, variables: Mapping) -> tuple[Progress | None, list[str]]:
    """Reads the newest undamaged checkpoint into `variables`.

    Returns:
      The progress, None if there is no checkpoint, and a line for each damaged
      checkpoint that was skipped.

    Raises:
      UserError: there are checkpoints, but all are damaged (exit 5), or the disk is
        full or not writable (4).
      OSError: the system does not let one be read.
    """
    skipped = []
    folder = run_dir / FOLDER
    for name in reversed(_names(folder, _STEPS)):
        try:
            progress, arrays = _read(folder / name, variables)
        except Exception as error:  # NumPy, zipfile, zlib and json raise a dozen kinds
            if isinstance(error, OSError) and error.errno in _NOT_THE_FILE:
                raise
            skipped.append(f"{name} is damaged and skipped ({error})")
            continue
        for key, variable in variables.items():
            variable.assign(arrays[key])
        with output_errors(run_dir):
            _publish_best(run_dir, progress)
        return progress, skipped
    if skipped:
        raise UserError(
            f"None of the {len(skipped)} checkpoints in {folder} is complete.",
            "Choose another --run_dir to start again.",
            ExitCode.INTEGRITY,
        )
    return None, skipped


def exists(run_dir: Path) -> bool:
    """Whether a run has a checkpoint, damaged or not."""
    return bool(_names(run_dir / FOLDER, _STEPS))


def clear(run_dir: Path) -> None:
    """Removes the checkpoints of a finished run."""
    if (run_dir / FOLDER).is_dir():
        _remove_except(run_dir / FOLDER, [])
        (run_dir / FOLDER).rmdir()


def _read(path: Path, variables: Mapping) -> tuple[Progress, dict[str, np.ndarray]]:
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    most = _SPARE_BYTES + sum(8 * math.prod(shape) for shape in expected.values())
    arrays = npz.read(path, most)
    progress = parse_json(str(arrays.pop(_HEADER)), Progress)
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise ValueError("it has other variables than this run")
    best = path.with_name(_BESTS.format(progress.best_epoch))
    if progress.best_epoch and sha256_file(best) != progress.best_sha256:
        raise ValueError(f"{best.name} is not the file that it refers to")
    return progress, arrays


def _publish_best(run_dir: Path, progress: Progress) -> None:
    """Links a checkpoint's best model to the name best.keras."""
    if not progress.best_epoch:
        return
    source = best_path(run_dir, progress.best_epoch)
    temporary = run_dir / f".{BEST}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)
        sync_file(temporary)
    os.replace(temporary, run_dir / BEST)
    # POSIX's rename does nothing where both names are links to one file.
    temporary.unlink(missing_ok=True)


def _names(folder: Path, pattern: str) -> list[str]:
    """The complete files of a kind, `_STEPS` or `_BESTS`, oldest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(fnmatch.filter(names, re.sub("{.*}", "*", pattern)))


def _remove_except(folder: Path, keep: list[str]) -> None:
    """Removes all other files: the folder is ours, and so is what a kill left."""
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink()
