"""Worker processes of the local runner, forked from a server that has imported Beam.

Importing Beam takes longer than writing some thousand images. So one process does it
while the build still reads the annotations, and each worker begins as a copy of it.
"""

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections.abc import Mapping

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["beam_pipelines.writing.preload"])


def warm_up() -> None:
    """Starts the server, which imports what workers need; returns at once.

    Call it in the main thread: only there signals can be set.

    Raises:
      OSError: it cannot be started.
    """
    # Ctrl-C reaches the whole process group, but the build decides what it means. The
    # server and all that is forked from it inherit this.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)


def start(
    environment: Mapping[str, str],
) -> "multiprocessing.context.ForkServerProcess":
    """Starts a worker.

    Args:
      environment: the variables by which Beam tells a worker whom to serve.

    Raises:
      OSError, EOFError: it cannot be started.
    """
    process = _CONTEXT.Process(target=_serve, args=(dict(environment),), daemon=True)
    process.start()
    return process


def _serve(environment: dict[str, str]) -> None:
    """Serves the build that started this process until it closes the connection."""
    # Errors reach the build as answers; what Beam logs and prints only repeats them.
    logging.disable(logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")
    threading.Thread(target=_end_with_the_build, daemon=True).start()
    os.environ.update(environment)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


def _end_with_the_build() -> None:
    """Ends this process when the build is gone: none writes on beside the next one."""
    multiprocessing.parent_process().join()
    os._exit(1)
