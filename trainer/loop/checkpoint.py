"""Checkpoints: everything that a run's future depends on, in one file, whole or absent.

A checkpoint is an .npz of plain arrays (nothing pickled) with a JSON header inside.
The newest two are kept, so that a damaged one can be passed over. The best models that
they refer to lie beside them, one file per epoch: whichever checkpoint a run goes on
from, its best model is there, and a better one of an epoch that is done again is not.
"""

import dataclasses
import errno
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.documents import Each, between, conform, is_count, is_number
from support.errors import ExitCode, UserError
from support.files import atomic_writer, output_errors, sha256_file, sync_file
from trainer import models

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
    NotImplementedError,
    RecursionError,
    MemoryError,
    TypeError,
)
#: With these a whole checkpoint must not be passed over, and then removed.
_NOT_THE_FILE_S_FAULT = (
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)
#: Room for the header, which holds the history, and for the names of the arrays.
_SPARE_BYTES = 1 << 26


@dataclasses.dataclass
class Progress:
    """Where a run stands, beside its arrays.

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

    epoch: int = 0
    step: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_sha256: str = ""
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    epoch_waited: float = 0.0


def _is_float(value: Any) -> bool:
    return isinstance(value, int | float)


_PROGRESS_SHAPE = {
    "epoch": is_count,
    "step": is_count,
    "best_loss": _is_float,  # infinite before the first epoch
    "best_epoch": between(0, 99_999, int),
    "best_sha256": str,
    "history": [Each(lambda value: value is None or _is_float(value))],
    "seconds": is_number,
    "epoch_seconds": is_number,
    "epoch_waited": is_number,
}


def best_path(run_dir: Path, epoch: int) -> Path:
    """Where the model of an epoch (from 1) lies that was the best so far."""
    (run_dir / FOLDER).mkdir(exist_ok=True)
    return run_dir / FOLDER / _best_name(epoch)


def save(run_dir: Path, global_step: int, variables: Mapping, progress: Progress):
    """Writes a checkpoint; best.keras becomes the best model that it refers to.

    Of the older checkpoints and best models it keeps what may still be needed.

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
        _remove(folder, {*_steps(folder), *_bests(folder)})
        with atomic_writer(folder / _name(global_step)) as file:
            np.savez(file, **{_HEADER: header}, **arrays)
        _publish_best(run_dir, progress)
        _remove(folder, _wanted(folder, global_step, progress.best_epoch))


def restore(run_dir: Path, variables: Mapping) -> tuple[Progress | None, list[str]]:
    """Reads the newest whole checkpoint into `variables`.

    Returns:
      The progress, None if there is no checkpoint, and a line for each damaged
      checkpoint that was passed over.

    Raises:
      UserError: there are checkpoints, but none is whole (exit 5); one may not be read,
        or the disk is full or not writable (4).
    """
    skipped = []
    paths = _newest_first(run_dir)
    for path in paths:
        try:
            progress, arrays = _read(path, variables)
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno in _NOT_THE_FILE_S_FAULT:
                raise UserError(
                    f"{path} cannot be read: {error.strerror}.",
                    "Make it readable, then run the same command again.",
                    ExitCode.OUTPUT,
                ) from error
            skipped.append(f"{path.name} is damaged and passed over ({error})")
            continue
        for name, variable in variables.items():
            variable.assign(arrays[name])
        with output_errors(run_dir):
            _publish_best(run_dir, progress)
        return progress, skipped
    if paths:
        raise UserError(
            f"None of the {len(paths)} checkpoints in {run_dir / FOLDER} is whole.",
            "Choose another --run_dir to start anew.",
            ExitCode.INTEGRITY,
        )
    return None, skipped


def exists(run_dir: Path) -> bool:
    """Whether a run has a checkpoint, whole or not."""
    return bool(_newest_first(run_dir))


def clear(run_dir: Path) -> None:
    """Removes the checkpoints of a finished run."""
    if (run_dir / FOLDER).is_dir():
        _remove(run_dir / FOLDER, set())
        (run_dir / FOLDER).rmdir()


def _read(path: Path, variables: Mapping) -> tuple[Progress, dict[str, np.ndarray]]:
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    _check_size(path, wanted)
    # Reading a member checks its CRC, so a flipped bit does not pass.
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop(_HEADER)))
    conform(header, _PROGRESS_SHAPE)
    progress = Progress(**header)
    if {name: array.shape for name, array in arrays.items()} != wanted:
        raise KeyError("it holds other variables than this run has")
    best = path.with_name(_best_name(progress.best_epoch))
    if progress.best_epoch and sha256_file(best) != progress.best_sha256:
        raise ValueError(f"{best.name} is not the file that it refers to")
    return progress, arrays


def _check_size(path: Path, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a file that would unpack to more than the run's variables."""
    most = _SPARE_BYTES + sum(8 * math.prod(shape) for shape in wanted.values())
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > most:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, more than {most:,}")


def _publish_best(run_dir: Path, progress: Progress) -> None:
    """Gives a checkpoint's best model its lasting name; it keeps the other one."""
    if not progress.best_epoch:
        return
    source = best_path(run_dir, progress.best_epoch)
    temporary = run_dir / f".{models.BEST}.tmp"
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)
        sync_file(temporary)
    os.replace(temporary, run_dir / models.BEST)
    # Where both names are the same file's, POSIX's rename leaves them both.
    temporary.unlink(missing_ok=True)


def _name(global_step: int) -> str:
    return f"step-{global_step:09d}.npz"


def _best_name(epoch: int) -> str:
    return f"best-{epoch:05d}.keras"


def _steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*.npz"))


def _bests(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("best-*.keras"))


def _wanted(folder: Path, global_step: int, best_epoch: int) -> set[str]:
    """The newest two checkpoints up to a step, and the best models they refer to.

    What is newer was passed over as damaged, or is of an epoch that is being done
    again. Every epoch ends with a checkpoint, so of two neighbors the earlier one
    refers to the same best model as the later, or to the one before it.
    """
    steps = [name for name in _steps(folder) if name <= _name(global_step)]
    bests = [name for name in _bests(folder) if name <= _best_name(best_epoch)]
    return {*steps[-_KEEP:], *bests[-_KEEP:]}


def _remove(folder: Path, keep: set[str]) -> None:
    """Removes all files but some: the folder is ours, and so is what a kill left."""
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink()


def _newest_first(run_dir: Path) -> list[Path]:
    folder = run_dir / FOLDER
    return [folder / name for name in reversed(_steps(folder))]
