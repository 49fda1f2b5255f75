"""Disks that are full or read-only, and outputs that are something else.

A limit on the size of files (`ulimit -f`) fails at the first file above it; it needs no
rights. Small file systems in memory fail at what no longer fits; mounting them needs
root, and happens in a namespace of this process, so that none is left. After each
failure the program must have said so in two lines, a reader must find the old result or
the new one, and with enough space the same operation must complete it.
"""

import ctypes
import functools
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from beam_pipelines import build, synthesize
from support.errors import ExitCode
from tests.beam_pipelines.conftest import make_celeba
from tests.faults import operations
from tests.faults.operations import Ended, Runs, Trial, in_child, program
from tests.faults.table import Row
from trainer import compare, evaluate, export, main, predict, sweep

_ENTER_NAMESPACE = 0x20000  # CLONE_NEWNS
_PAGE = 4096
#: Disks of different sizes for each operation.
_DISKS = 6
_TWO_LINES = re.compile(r"error: (.+)\n       .+\n", re.MULTILINE)
_SEES = "exit 4, the file or disk and what to do; then the same command completes it"
_MINE = "a file of the user's"


def rows(every: int) -> Iterator[Row]:
    """A row for each operation, and one for outputs that are something else."""
    can_mount = _enter_namespace()
    if not can_mount:
        yield Row("disk full, or read-only", 0, [], "not tried: that needs root")
    with operations.folder() as folder:
        runs = operations.runs()
        yield _wrong_outputs(runs, folder / "wrong")
        exports = operations.of_exports
        for trial in operations.trials(every, folder, runs, exports):
            operation = trial.operation
            tries = [*_limited_files(trial), *(_disks(trial) if can_mount else ())]
            tried, lost = 0, []
            for cause in tries[:: every * min(2, operation.every)]:
                ended, problems = cause()
                tried += bool(ended.code)
                lost += problems
            faults = "disk full, read-only" if can_mount else "files limited in size"
            yield Row(f"{faults}: {operation.name}", tried, lost, _SEES)


Cause = Callable[[], tuple[Ended, list[str]]]


def _limited_files(trial: Trial) -> Iterator[Cause]:
    """Yields failures at the first file as large as one of the new files."""

    def cause(size: int) -> tuple[Ended, list[str]]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

        trial.renew()
        ended = in_child(trial.operation.work, trial.place, limit)
        problems = [*_spoken(ended, trial.place), *trial.damage(), *trial.completed()]
        return ended, [f"files below {size} bytes: {problem}" for problem in problems]

    sizes = sorted({path.stat().st_size for path in trial.new_files()} - {0})
    if trial.operation.every > 1:  # TensorFlow has small temporary files of its own
        sizes = [size for size in sizes if size > _PAGE]
    for size in sizes[:: -(-len(sizes) // _DISKS)]:
        yield functools.partial(cause, size)


def _disks(trial: Trial) -> Iterator[Cause]:
    """Yields a read-only disk, and some with room for a part of the output."""

    def cause(setting: str, undo: str) -> tuple[Ended, list[str]]:
        _mount("-t", "tmpfs", "tmpfs", trial.place)
        try:
            trial.renew()
            _mount("-o", f"remount,{setting}", trial.place)
            ended = in_child(trial.operation.work, trial.place)
            problems = [*_spoken(ended, trial.place), *trial.damage()]
            _mount("-o", f"remount,{undo}", trial.place)
            problems += trial.completed()
        finally:
            subprocess.run(["umount", trial.place], check=True)
        return ended, [f"{setting}: {problem}" for problem in problems]

    yield functools.partial(cause, "ro", "rw")
    used = _pages(path for path in trial.prepared.rglob("*") if path.is_file())
    needed = _pages(trial.new_files())
    for room in sorted({needed * part // _DISKS for part in range(_DISKS)}):
        size = max(1, used + room) * _PAGE
        yield functools.partial(cause, f"size={size}", "size=1g")


def _spoken(ended: Ended, place: Path) -> Iterator[str]:
    """Yields what is wrong with how a program failed."""
    if not ended.code:
        return  # there was room: what is there is compared
    message = _TWO_LINES.search(ended.errors)
    is_last = message and ended.errors.endswith(message[0])
    if ended.code != ExitCode.OUTPUT or not is_last or str(place) not in message[1]:
        yield f"it ended with {ended.code}: {ended.errors}"
    elif "Traceback" in ended.errors:
        yield f"a traceback: {ended.errors}"


def _pages(paths: Iterator[Path]) -> int:
    return sum(-(-path.stat().st_size // _PAGE) for path in paths)


def _wrong_outputs(runs: Runs, folder: Path) -> Row:
    """Gives programs outputs that are of the other kind, or are below a file."""
    celeba = make_celeba(folder / "celeba").folder
    run = f"--run_dir={runs.finished}"
    data = f"--data_dir={runs.data}"
    programs = {
        "build": (build, f"--celeba_dir={celeba}", "--output_dir="),
        "synthesize": (synthesize, "--num_examples=9", "--output_dir="),
        "main": (main, "--model=tiny", "--input_size=32", data, "--run_dir="),
        "evaluate": (evaluate, run, data, "--output_dir="),
        "sweep": (sweep, "--models=vgg16", data, "--sweep_dir="),
        "compare": (compare, runs.finished, "--output_dir="),
        "annotate": (predict, run, runs.images, "--annotate="),
        "predict.csv": (predict, run, runs.images, "--output="),
        "export.keras": (export, run, data, "--format=keras", "--output="),
    }
    tried, lost = 0, []
    for name, (module, *words, flag) in programs.items():
        place = folder / f"at-{name}"
        place.mkdir()
        (place / "file").write_text(_MINE)
        (place / "folder.keras").mkdir()
        (place / "folder.csv").mkdir()
        other = f"folder{Path(name).suffix}" if Path(name).suffix else "file"
        before = operations.names(place)
        for output in (place / other, place / "file" / name):
            given = (*words[:-1], words[-1], f"{flag}{output}")
            ended = in_child(
                lambda _, module=module, given=given: program(module.main, *given),
                folder,
            )
            tried += 1
            problems = list(_spoken(ended, place))
            if not ended.code or operations.names(place) != before:
                problems.append(f"{ended}, {operations.names(place)}")
            if (place / "file").read_text() != _MINE:
                problems.append("the user's file was changed")
            lost += [f"{name}, {output}: {problem}" for problem in problems]
    return Row(
        "an output that is a file, or below one, or a folder", tried, lost, _SEES
    )


def _enter_namespace() -> bool:
    """Makes the mounts of this process and its children their own."""
    if os.geteuid() or not hasattr(ctypes.CDLL(None), "unshare"):
        return False
    if ctypes.CDLL(None).unshare(_ENTER_NAMESPACE):
        return False
    return not subprocess.run(["mount", "--make-rprivate", "/"]).returncode


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)
