"""`map` over several processes or threads that end quietly with the program."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from support.errors import ExitCode, UserError

Item, Result = TypeVar("Item"), TypeVar("Result")


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def process_map(
    workers: int, function: Callable[..., Any], *columns: Iterable[Any]
) -> Iterator[Iterator[Any]]:
    """Calls a function on every row of the columns; gives the results in order.

    Args:
      workers: processes; with 1 the calls are made here, one result at a time.
      function: it and its arguments must pickle.
      *columns: its arguments.

    Raises:
      UserError: exit 7, a process was killed.
    """
    if workers <= 1:
        yield map(function, *columns)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        # Forking would copy a parent that may have threads.
        mp_context=multiprocessing.get_context("spawn"),
        # Ctrl-C reaches the whole group; the parent alone decides what to do.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield pool.map(function, *columns)
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process was killed, perhaps because memory ran out.",
            "Run it again with --num_workers=1.",
            ExitCode.OUT_OF_MEMORY,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def thread_map(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Calls a function on items in a thread per core; gives the results in order.

    Args:
      function: for what leaves Python's lock free, such as reading and decoding.
      items: taken one by one, as results are asked for.
      ahead: results that may wait, or be in the making, beside the one asked for.

    Raises:
      What the function raises, where its result would have come.
    """
    threads = concurrent.futures.ThreadPoolExecutor(cores(), "map")
    pending: collections.deque = collections.deque()
    try:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
