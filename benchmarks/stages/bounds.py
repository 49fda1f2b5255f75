"""Upper bounds of the stages on this machine: copies, reads, decoding.

Every function returns work for `harness.measure_within`.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tensorflow as tf

from benchmarks.harness import Work, repeated, steps
from support.pool import cores

_COPIED = 64 * 2**20  # bytes, more than processors hold in their caches
_BLOCK = 2**20  # bytes


def in_threads(function: Callable[[Any], int], items: Iterable[Any]) -> int:
    """The sum of a function's results, called in a thread per core."""
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(function, items))


def drop_from_cache(paths: Iterable[Path]) -> None:
    """Asks the system to forget its cache of some files; no rights are needed.

    It keeps pages that another program has mapped, and files on a disk in memory.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with open(path, "rb") as file, contextlib.suppress(OSError):
            os.fsync(file)  # pages that are not written yet would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory_copy() -> Work:
    """Bytes copied from memory to memory, by all cores."""
    shape = (cores(), _COPIED // cores())
    source, target = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)

    def copy(part: int) -> int:
        np.copyto(target[part], source[part])
        return shape[1]

    return repeated(lambda: in_threads(copy, range(cores())))


def sequential_read(paths: Sequence[Path], cold: bool) -> Work:
    """Bytes read from complete files, first to last, into memory that is used again.

    With `cold` the system is asked to forget them before.
    """

    def read(path: Path) -> int:
        buffer, done = bytearray(_BLOCK), 0
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                done += count
        return done

    return repeated(
        lambda: in_threads(read, paths), lambda: drop_from_cache(paths if cold else [])
    )


def libjpeg(jpegs: Sequence[bytes], shape: tuple[int, int, int]) -> Work:
    """Images decoded by libjpeg-turbo on all cores, into memory that is used again.

    Args:
      jpegs: decoded once per unit.
      shape: of each, decoded.
    """
    workers = cores()

    def decode(number: int) -> int:
        out = np.empty(shape, np.uint8)
        own = jpegs[number::workers]
        for jpeg in own:
            simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, buffer=out)
        return len(own)

    return repeated(lambda: in_threads(decode, range(workers)))


def device_copy() -> Work:
    """Bytes copied within a GPU's memory."""
    source = tf.zeros([_COPIED], tf.uint8)
    target = tf.Variable(source)
    return steps(lambda: target.assign(source), _COPIED, lambda _: target[0].numpy())


def to_device() -> Work:
    """Bytes brought from the host's memory to a GPU's, in one large piece."""
    with tf.device("CPU:0"):
        source = tf.zeros([_COPIED], tf.uint8)

    def move() -> tf.Tensor:
        with tf.device("GPU:0"):
            return tf.identity(source)

    return steps(move, _COPIED, lambda last: last[0].numpy())
