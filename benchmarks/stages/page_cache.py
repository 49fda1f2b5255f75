"""The system's cache of files: asking it to forget some, and checking that it did."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def drop(paths: Iterable[Path]) -> None:
    """Asks the system to forget its cache of some files; no rights are needed.

    It keeps pages that another program has mapped, and files on a disk in memory.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with open(path, "rb") as file, contextlib.suppress(OSError):
            os.fsync(file)  # pages that are not written yet would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fraction_cached(paths: Iterable[Path]) -> float | None:
    """The fraction of the files' pages that are in memory, 0..1; None if unknown.

    Linux tells it only to those who may write to a file, and says "all" to others.
    """
    mincore = getattr(ctypes.CDLL(None), "mincore", None)
    pages = [np.zeros(0, np.uint8)]
    for path in paths:
        if mincore is None or not os.access(path, os.W_OK):
            return None
        size = path.stat().st_size
        if not size:
            continue
        pages.append(np.zeros(-(-size // mmap.PAGESIZE), np.uint8))
        with open(path, "rb") as file:
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
                view = np.frombuffer(mapped, np.uint8)
                start = ctypes.c_void_p(view.ctypes.data)
                out = ctypes.c_void_p(pages[-1].ctypes.data)
                failed = mincore(start, ctypes.c_size_t(size), out)
                del view  # a mapping that is still looked at cannot be closed
        if failed:
            return None
    cached = np.concatenate(pages) & 1
    return float(cached.mean()) if len(cached) else None
