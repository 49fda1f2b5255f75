"""Wakes threads whose wake-up the C library lost.

`pthread_cond_signal` of glibc before 2.41 can fail to wake a waiting thread
(https://sourceware.org/bugzilla/show_bug.cgi?id=25847). TensorFlow's thread pools wait
that way, so a step can hang forever on a loaded machine with every thread asleep. Any
signal makes a waiting thread look again; this sends one that does nothing else.
"""

import ctypes
import os
import platform
import signal
import threading
import time
from collections.abc import Callable

FIXED_IN = (2, 41)
#: A process that computes never uses less than this fraction of a core for so long.
_SECONDS, _IDLE_FRACTION = 5.0, 0.01


class Watch:
    """A context in which a process that has fallen asleep is woken."""

    def __init__(self, seconds: float = _SECONDS, report: Callable = print):
        self._seconds = seconds
        self._report = report
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        if is_needed():
            # Interrupted system calls continue by themselves: nothing else notices.
            signal.signal(signal.SIGURG, lambda number, frame: None)
            signal.siginterrupt(signal.SIGURG, False)
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        reported = False
        used = time.process_time()
        while not self._done.wait(self._seconds):
            before, used = used, time.process_time()
            if used - before < self._seconds * _IDLE_FRACTION:
                wake_threads()
                if not reported:
                    self._report(
                        f"asleep for {self._seconds:.0f} s: woke the threads "
                        "(glibc before 2.41 can lose a wake-up)"
                    )
                reported = True


def is_needed() -> bool:
    """Whether this process runs on a glibc that loses wake-ups."""
    library, version = platform.libc_ver()
    if library != "glibc":
        return False
    return tuple(int(part) for part in version.split(".")[:2]) < FIXED_IN


def wake_threads() -> int:
    """Sends SIGURG to every other thread of this process; returns their number."""
    process, own = os.getpid(), threading.get_native_id()
    tgkill = ctypes.CDLL(None).tgkill
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    others = [thread for thread in threads if thread != own]
    for thread in others:
        tgkill(process, thread, signal.SIGURG)
    return len(others)
