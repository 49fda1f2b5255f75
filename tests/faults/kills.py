"""SIGKILL before each change that a program makes to the disk, then the same again.

Each operation is done in a child process that kills itself before its first change of
the disk, in another before its second, and so on until it comes to its end; also right
after a file was opened, when what is written waits in a buffer. After every
kill a reader must find the old result or the new one, and the same operation must then
give the new one and leave nothing else behind.
"""

import builtins
import functools
import io
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from tests.faults import operations
from tests.faults.operations import Trial, in_child
from tests.faults.table import Row

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR


def rows(every: int) -> Iterator[Row]:
    """A row for each operation."""
    with operations.folder() as folder:
        exports = operations.of_short_exports
        for trial in operations.trials(every, folder, operations.runs(), exports):
            yield enumerate_kills(trial, every)


def enumerate_kills(trial: Trial, every: int) -> Row:
    """Kills an operation at every moment; describes what a user would have lost."""
    operation, tried, lost = trial.operation, 0, []
    step = every * operation.every
    for moment in itertools.count(min(step, 3), step):
        trial.renew()
        kill = functools.partial(_kill_before, moment)
        ended = in_child(operation.work, trial.place, kill)
        if ended.code == 0:
            break
        tried += 1
        problems = [] if ended.code == -signal.SIGKILL else [f"it ended with {ended}"]
        problems += [*trial.damage(operation.absent), *trial.completed()]
        lost += [f"kill {moment}: {problem}" for problem in problems]
    return Row(f"killed: {operation.name}", tried, lost, operation.user_sees)


def _kill_before(moment: int) -> None:
    """This process is killed before its n-th change of the disk."""
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

    open_file, fsync = io.open, os.fsync

    def opened(file: Any, mode: str = "r", *words: Any, **options: Any) -> Any:
        stream = open_file(file, mode, *words, **options)
        if set(mode) & set("wax+"):
            count("os.truncate", ())  # it is empty, and what is written in a buffer
        return stream

    def synced(descriptor: int) -> None:
        count("os.truncate", ())  # `fsync` has no event of its own
        fsync(descriptor)

    builtins.open = io.open = opened
    os.fsync = synced
    sys.addaudithook(count)
