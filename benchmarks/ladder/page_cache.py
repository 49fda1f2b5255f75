"""The system's cache of files: asking it to forget some, and looking whether it did."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_PAGE = os.sysconf("SC_PAGE_SIZE")


def drop(paths: Iterable[Path]) -> None:
    """Asks the system to forget what it holds of some files; no rights are needed.

    It keeps pages that another program has mapped, and files that lie in memory anyway.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with _opened(path) as descriptor, contextlib.suppress(OSError):
            os.fsync(descriptor)  # pages that are not written yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def share_held(paths: Iterable[Path]) -> float | None:
    """The share of the files' pages that are in memory, 0..1; None if unknown.

    Linux tells it only to those who may write to a file, and says "all" to others.
    """
    mincore = getattr(ctypes.CDLL(None), "mincore", None)
    if mincore is None:
        return None
    held = total = 0
    for path in paths:
        if not os.access(path, os.W_OK):
            return None
        with _opened(path) as descriptor:
            size = os.fstat(descriptor).st_size
            if not size:
                continue
            with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
                found = _resident(mincore, mapped, size)
        if found is None:
            return None
        held, total = held + int(found.sum()), total + len(found)
    return held / total if total else None


def _resident(mincore: object, mapped: mmap.mmap, size: int) -> np.ndarray | None:
    """For each page of a mapped file 1 if it is in memory, else 0."""
    pages = np.zeros(-(-size // _PAGE), np.uint8)
    view = np.frombuffer(mapped, np.uint8)
    failed = mincore(
        ctypes.c_void_p(view.ctypes.data),
        ctypes.c_size_t(size),
        ctypes.c_void_p(pages.ctypes.data),
    )
    del view  # a mapping that is still looked at cannot be closed
    return None if failed else pages & 1


@contextlib.contextmanager
def _opened(path: Path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
