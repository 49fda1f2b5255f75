"""`map` over several processes or threads that end quietly with the program."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from support.errors import ExitCode, UserError, output_error

Item, Result = TypeVar("Item"), TypeVar("Result")

# Forking the program itself would copy its threads' locks, too.
_CONTEXT = multiprocessing.get_context("forkserver")


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def warm_up(modules: Sequence[str] = ()) -> None:
    """Starts the server that worker processes are forked from; returns at once.

    Call it in the main thread: only there signals can be set.

    Args:
      modules: what the server imports once for all workers.

    Raises:
      UserError: exit 4, it cannot be started.
    """
    _CONTEXT.set_forkserver_preload(["support.silent", *modules])
    # Ctrl-C reaches the whole process group; the program alone decides what it means.
    # The server and all that is forked from it inherit this.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        multiprocessing.forkserver.ensure_running()
    except OSError as error:
        raise output_error(
            f"Worker processes cannot be started: {error}.",
            "Use one worker, or set TMPDIR to a folder with a short path.",
        ) from error
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def process_map(
    workers: int,
    function: Callable[..., Any],
    *columns: Iterable[Any],
    remedy: str = "Run it again with --num_workers=1.",
) -> Iterator[Iterator[Any]]:
    """Calls a function on every row of the columns; gives the results in order.

    Args:
      workers: processes; with 1 the calls are made here, one result at a time.
      function: it and its arguments must pickle.
      *columns: its arguments.
      remedy: what to do when memory ran out.

    Raises:
      UserError: exit 7, a process was killed or memory ran out.
    """
    try:
        if workers <= 1:
            yield map(function, *columns)
            return
        if threading.current_thread() is threading.main_thread():
            warm_up()
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, _CONTEXT, initializer=_begin_worker
        )
        try:
            yield pool.map(function, *columns)
        finally:
            pool.shutdown(cancel_futures=True)
    except (BrokenProcessPool, EOFError) as error:
        cause = "A worker process was killed, perhaps because memory ran out."
        raise UserError(cause, remedy, ExitCode.OUT_OF_MEMORY) from error
    except MemoryError as error:
        cause = "A worker ran out of memory."
        raise UserError(cause, remedy, ExitCode.OUT_OF_MEMORY) from error


def kill_workers() -> None:
    """Ends all worker processes at once: a stopped program does not wait for them."""
    for process in multiprocessing.active_children():
        process.kill()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_program, daemon=True).start()


def _end_with_the_program() -> None:
    """Ends this process when the program is gone: none writes after its end."""
    multiprocessing.parent_process().join()
    os._exit(1)


def thread_map(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Calls a function on items in a thread per core; gives the results in order.

    Args:
      function: for what leaves Python's lock free, such as reading and decoding.
      items: taken one by one, as results are asked for.
      ahead: results that may wait, or be in the making, next to the one asked for.

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
