"""SIGKILL before each change that a program makes to the disk, then the same again.

Each operation is done in a child process that kills itself before its first change of
the disk, in another before its second, and so on until it comes to its end. After every
kill a reader must find the old result or the new one, and the same operation must then
give the new one and leave nothing else behind.
"""

import dataclasses
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from beam_pipelines import build
from support import command, files
from support.errors import ExitCode
from tests.beam_pipelines.conftest import make_celeba
from tests.faults.table import Row
from trainer.loop import checkpoint

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something that must happen wholly or not at all.

    Attributes:
      name: in words.
      prepare: puts the old result into an empty folder.
      work: does it, in a folder that was prepared; an exit code.
      result: what a reader of the folder finds, to be compared.
      user_sees: what the same command does afterwards.
    """

    name: str
    prepare: Callable[[Path], None]
    work: Callable[[Path], int]
    result: Callable[[Path], Any]
    user_sees: str = "the old or the new result; the same command completes it"


def enumerate_kills(operation: Operation, every: int, folder: Path) -> Row:
    """Kills an operation at every moment; describes what a user would have lost."""
    prepared, whole, place = folder / "prepared", folder / "whole", folder / "place"
    prepared.mkdir(parents=True)
    _in_child(operation.prepare, prepared)
    old = operation.result(prepared)
    shutil.copytree(prepared, whole)
    _in_child(operation.work, whole)
    new, names = operation.result(whole), _names(whole)
    lost, moment = [], 1
    while True:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(prepared, place)
        if _in_child(operation.work, place, kill_at=moment) != -signal.SIGKILL:
            tried = (moment - 1) // every
            return Row(f"killed: {operation.name}", tried, lost, operation.user_sees)
        if operation.result(place) not in (old, new):
            lost.append(f"kill {moment}: neither the old nor the new result")
        code = _in_child(operation.work, place)
        if code or operation.result(place) != new:
            lost.append(f"kill {moment}: the same again ends with {code}")
        if _names(place) != names:
            more = sorted(_names(place) ^ names)
            lost.append(f"kill {moment}: other files than without: {more}")
        moment += every


def _in_child(work: Callable[[Path], Any], folder: Path, kill_at: int = 0) -> int:
    """The exit status of a forked process that does the work; -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = ExitCode.BUG
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            _kill_before(kill_at)
            code = int(work(folder) or 0)
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill_before(moment: int) -> None:
    """This process is killed before its n-th change of the disk; never for 0."""
    changes = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[2], int)
        writes = writes and arguments[2] & _WRITING and arguments[0] != os.devnull
        swaps = event == "ctypes.dlsym" and arguments[1] == "renameat2"
        if writes or swaps or event in _CHANGES:
            changes += 1
            if changes == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        count("os.remove", ())  # `fsync` has no event of its own
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(count)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _build(folder: Path, *flags: str) -> int:
    sys.modules["matplotlib"] = None  # charts would take most of the time
    source, output = folder / "celeba", folder / "out"
    words = [f"--celeba_dir={source}", f"--output_dir={output}", "--num_shards=2"]
    return command.guard(build.main, ["build", *words, *flags])


def _build_new(folder: Path) -> int:
    code = _build(folder, "--num_examples=20")
    if code == ExitCode.OUTPUT:  # it was killed when all was there
        return _build(folder, "--num_examples=20", "--overwrite")
    return code


def _prepare_dataset(folder: Path) -> int:
    make_celeba(folder / "celeba", 60)
    return _build(folder, "--num_examples=30")


def _dataset(folder: Path) -> str | None:
    """A digest of the manifest and the shards; None where there is no dataset."""
    output = folder / "out"
    if not output.is_dir():
        return None
    if not (output / "manifest.json").is_file():
        return f"no manifest among {os.listdir(output)}"
    digest = hashlib.sha256((output / "manifest.json").read_bytes())
    for path in sorted(output.iterdir()):
        if ".tfrecord-" in path.name and path.suffix != ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Variable:
    """What a checkpoint needs of a variable."""

    def __init__(self, value: float):
        self.value = np.full(4, value)
        self.shape = self.value.shape

    def numpy(self) -> np.ndarray:
        return self.value

    def assign(self, value: np.ndarray) -> None:
        self.value = value


def _save(folder: Path, epoch: int) -> None:
    best = checkpoint.best_path(folder, epoch)
    files.atomic_write(best, f"model of epoch {epoch}")
    progress = checkpoint.Progress(
        epoch=epoch, best_epoch=epoch, best_sha256=files.sha256_file(best)
    )
    checkpoint.save(folder, 10 * epoch, {"weight": _Variable(epoch)}, progress)


def _save_next(folder: Path) -> None:
    checkpoint.restore(folder, {"weight": _Variable(0)})
    _save(folder, 3)


def _checkpoint(folder: Path) -> tuple[int, float, str]:
    """What a run would resume from, and the best model that goes with it."""
    variable = _Variable(0)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)  # `restore` may mend what a kill left
    progress, skipped = checkpoint.restore(copy, {"weight": variable})
    best = (copy / "best.keras").read_text()
    shutil.rmtree(copy)
    return progress.epoch, float(variable.value[0]), best + "".join(skipped)


OPERATIONS = (
    Operation(
        "a file is replaced",
        lambda folder: files.atomic_write(folder / "file", "old"),
        lambda folder: files.atomic_write(folder / "file", "new"),
        lambda folder: (folder / "file").read_text(),
    ),
    Operation(
        "checkpoint and best model",
        lambda folder: [_save(folder, epoch) for epoch in (1, 2)] and None,
        _save_next,
        _checkpoint,
    ),
    Operation(
        "build into a new folder",
        lambda folder: make_celeba(folder / "celeba", 60) and None,
        _build_new,
        _dataset,
    ),
    Operation(
        "build with --overwrite",
        _prepare_dataset,
        lambda folder: _build(folder, "--num_examples=20", "--overwrite"),
        _dataset,
    ),
)


def rows(every: int) -> Iterator[Row]:
    """A row for each operation."""
    for operation in OPERATIONS:
        with tempfile.TemporaryDirectory() as folder:
            yield enumerate_kills(operation, every, Path(folder))
