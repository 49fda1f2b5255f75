"""What this machine could do at best: each rung of the ladder is held against one.

Every function returns work: called with a number of units, it does them and returns
what was done and how long it took.
"""

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.harness import Timed
from benchmarks.ladder import page_cache
from support.pool import cores

#: Does some units of work, at least one.
Work = Callable[[int], Timed]

_COPIED = 64 * 2**20  # bytes, more than processors hold in their caches
_BLOCK = 2**20  # bytes
_JPEGS = 64  # per unit


def in_threads(function: Callable[[Sequence[Any]], int], items: Sequence[Any]) -> int:
    """Calls a function in as many threads as there are cores, each with its items."""
    workers = min(cores(), len(items))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(function, (items[i::workers] for i in range(workers))))


def timed(do: Callable[[], int], units: int, before: Callable = lambda: None) -> Timed:
    """Does something some times; `before` each time something that does not count."""
    done, seconds = 0, 0.0
    for _ in range(units):
        before()
        started = time.perf_counter()
        done += do()
        seconds += time.perf_counter() - started
    return Timed(done, seconds)


def memory_copy() -> Work:
    """Bytes copied from memory to memory, by all cores."""
    source, target = np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)
    pairs = list(
        zip(
            np.array_split(source, cores()),
            np.array_split(target, cores()),
            strict=True,
        )
    )

    def copy(own: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
        for source, target in own:
            np.copyto(target, source)
        return sum(len(source) for source, _ in own)

    return lambda units: timed(lambda: in_threads(copy, pairs), units)


def sequential_read(paths: Sequence[Path], cold: bool) -> Work:
    """Bytes read from whole files, first to last, into memory that is used again.

    Args:
      paths: the files.
      cold: the system is asked to forget them before.
    """

    def read(own: Iterable[Path]) -> int:
        buffer, done = bytearray(_BLOCK), 0
        for path in own:
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    done += count
        return done

    def forget() -> None:
        if cold:
            page_cache.drop(paths)

    return lambda units: timed(lambda: in_threads(read, paths), units, forget)


def libjpeg(jpegs: Sequence[bytes], shape: tuple[int, int, int]) -> Work:
    """Images that one core decodes: files in memory, into memory that is used again."""
    out = np.empty(shape, np.uint8)
    own = jpegs[:_JPEGS]

    def decode() -> int:
        for jpeg in own:
            simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, buffer=out)
        return len(own)

    return lambda units: timed(decode, units)


def matmul(precision: str, gpu: bool) -> Work:
    """Floating-point operations of large square matrix products."""
    from benchmarks.train_step import step_tensorflow

    multiply, operations = step_tensorflow.matmul(precision, gpu)

    def do() -> int:
        multiply()
        return int(operations)

    return lambda units: timed(do, units)


def device_copy() -> Work:
    """Bytes copied within a GPU's memory."""
    import tensorflow as tf

    source = tf.zeros([_COPIED], tf.float32)
    target = tf.Variable(source)

    def do() -> int:
        target.assign(source)
        target[0].numpy()
        return source.shape[0] * source.dtype.size

    return lambda units: timed(do, units)


def to_device() -> Work:
    """Bytes brought from the host's memory to a GPU's, in one large piece."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        source = tf.zeros([_COPIED], tf.uint8)

    def do() -> int:
        with tf.device("GPU:0"):
            tf.identity(source)[0].numpy()
        return _COPIED

    return lambda units: timed(do, units)
