"""Memory for batches that is used again as soon as nobody refers to it.

Fresh memory of a batch's size comes from the system page by page, cleared: that cost an
eighth of the decoding.
"""

import ctypes
import math
import weakref

import numpy as np

_ALIGNMENT = 64  # bytes, what TensorFlow's kernels expect


class Buffers:
    """Lends memory; it comes back by itself when the last array in it is gone.

    Threads may borrow at the same time. It holds no more than was lent at once.
    """

    def __init__(self):
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array (shape) uint8 of any content, its memory aligned for TensorFlow."""
        size = math.prod(shape)
        free = self._free.setdefault(size, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        # NumPy's views refer to this, whatever is cut from them; DLPack does, too.
        lent = (ctypes.c_uint8 * size).from_buffer(memory, start)
        weakref.finalize(lent, free.append, memory).atexit = False
        return np.frombuffer(lent, np.uint8).reshape(shape)
