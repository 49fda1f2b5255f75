"""Batches of a dataset: a fixed order, decoded ahead by threads.

The order of an epoch, and how its images will be warped, are known before it begins:
they depend on the manifest, the seed and the epoch alone. So a run goes on in mid-epoch
by starting to count elsewhere, and whether images are decoded again or kept in memory
changes nothing but the speed.

Threads decode with libjpeg-turbo, which leaves Python's lock free, straight into the
batch; TensorFlow takes its memory over as it is. It is imported when there is a batch
to hand over: under Keras' JAX backend it need not be installed.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from schemas import celeba
from schemas import example as example_schema
from schemas.example import Example
from schemas.manifest import Shard
from support.pool import cores
from trainer import warp
from trainer.config import TrainConfig
from trainer.dataset import Dataset, Split, open_dataset, read_images

__all__ = [
    "Augmentation",
    "Batches",
    "Dataset",
    "evaluation_batches",
    "open_dataset",
    "read_images",
    "train_batches",
]

#: An epoch is shuffled in windows of about so many bytes of records. They are read from
#: anywhere within, and a slow disk fetches them in one piece before.
WINDOW_BYTES = 256 * 2**20

IMAGES, PARAMETERS, LABELS, WEIGHTS = "images", "parameters", "labels", "weights"
IMAGE_ID, IDENTITY = example_schema.IMAGE_ID, example_schema.IDENTITY
ATTRIBUTES = example_schema.ATTRIBUTES


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the warp, as `warp.draw` takes them."""

    rotation: float
    shift: tuple[float, float]
    flip: bool
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> "Augmentation":
        """As the options say."""
        return cls(
            config.rotation,
            (config.width_shift, config.height_shift),
            config.horizontal_flip,
            config.zoom,
            config.brightness,
            config.contrast,
        )


def train_batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    epoch: int,
    augmentation: Augmentation,
    skip: int = 0,
) -> "Batches":
    """One epoch of shuffled full batches; what is left over is dropped.

    The order depends on (seed, epoch) alone, an example's warp on its position in it.

    Args:
      dataset: the dataset.
      batch_size: examples per batch.
      seed: of order and warp.
      epoch: counted from 0.
      augmentation: ranges of the warp.
      skip: batches to leave out at the start, to go on in mid-epoch.

    Returns:
      images (batch, height, width, 3) uint8, parameters (batch, 5 or 7) float32,
      labels (batch,) float32, attributes (batch, 40) float32 0 or 1.
    """
    split = dataset.split("train")
    rng = np.random.default_rng((seed, epoch))
    windows = shuffle_windows(split.shards, rng)
    order = np.concatenate(
        [rng.permutation(_numbers(split, window)) for window in windows]
    )
    uniform = rng.random((len(order), warp.NUM_PARAMETERS), np.float32)
    drawn = warp.draw(uniform, **dataclasses.asdict(augmentation))
    parameters = ops.convert_to_numpy(drawn)
    needed = _read_ahead(split, windows, batch_size, skip)

    def make(number: int) -> dict[str, Any]:
        split.will_need(needed.get(number, ()))
        part = slice(number * batch_size, (number + 1) * batch_size)
        pixels, examples = _load(dataset, split, order[part])
        return {
            IMAGES: pixels,
            PARAMETERS: parameters[part],
            LABELS: _labels(examples),
            ATTRIBUTES: _attributes(examples),
        }

    return Batches(make, range(skip, len(order) // batch_size))


def evaluation_batches(dataset: Dataset, split: str, batch_size: int) -> "Batches":
    """Every example of a split once, in the order of the shards, never augmented.

    The last batch is filled up with copies of weight 0, so that all have one shape.

    Returns:
      images (batch, height, width, 3) uint8, labels (batch,) float32, attributes
      (batch, 40) float32 0 or 1, weights (batch,) float32 0 or 1, image_id (batch,)
      string, identity (batch,) int64.
    """
    examples_of = dataset.split(split)
    count = len(examples_of)

    def make(number: int) -> dict[str, Any]:
        positions = np.arange(number * batch_size, (number + 1) * batch_size)
        pixels, examples = _load(dataset, examples_of, positions % count)
        return {
            IMAGES: pixels,
            LABELS: _labels(examples),
            ATTRIBUTES: _attributes(examples),
            WEIGHTS: np.float32(positions < count),
            IMAGE_ID: np.array([example.image_id.encode() for example in examples]),
            IDENTITY: np.array([example.identity for example in examples], np.int64),
        }

    return Batches(make, range(-(-count // batch_size)))


class Batches(Iterator[dict[str, Any]]):
    """Batches in order, made ahead by as many threads as there are cores.

    Making begins at once. What goes wrong in a thread is raised where its batch would
    have come.

    Attributes:
      close: a function that lets go of the batches that nobody will take.
    """

    def __init__(self, make: Callable[[int], dict[str, Any]], numbers: Iterable[int]):
        self._make = make
        self._numbers = iter(numbers)
        self._pool = concurrent.futures.ThreadPoolExecutor(cores(), "input")
        self._pending: collections.deque = collections.deque()
        # Also when the program ends: not later, when half of Python is gone.
        self.close = weakref.finalize(self, _let_go, self._pool, self._pending)
        for _ in range(cores() + 2):
            self._begin_next()

    def __next__(self) -> dict[str, Any]:
        if not self._pending:
            self.close()
            raise StopIteration
        self._begin_next()
        return self._pending.popleft().result()

    def _begin_next(self) -> None:
        for number in self._numbers:
            self._pending.append(self._pool.submit(_make_tensors, self._make, number))
            return


def _let_go(pool: concurrent.futures.Executor, pending: collections.deque) -> None:
    pending.clear()
    pool.shutdown(wait=False, cancel_futures=True)


def shuffle_windows(
    shards: tuple[Shard, ...], rng: np.random.Generator
) -> list[list[int]]:
    """Cuts a random order of the shards into windows of about WINDOW_BYTES.

    A set that fits into one is shuffled as a whole.
    """
    windows, size = [[]], 0
    for index in rng.permutation(len(shards)).tolist():
        size += shards[index].bytes
        if windows[-1] and size > WINDOW_BYTES:
            windows.append([])
            size = shards[index].bytes
        windows[-1].append(index)
    return windows


def _read_ahead(
    split: Split, windows: list[list[int]], batch_size: int, skip: int
) -> dict[int, list[int]]:
    """Batch number -> the shards to read from the disk: those of the next window."""
    needed, position = {}, 0
    for window, following in zip(windows, [*windows[1:], []], strict=True):
        # The first batch that is made needs its own window, too.
        first = position // batch_size
        needed[max(first, skip)] = following if first > skip else window + following
        position += len(_numbers(split, window))
    return needed


def _numbers(split: Split, shards: list[int]) -> np.ndarray:
    """The numbers of the shards' examples."""
    starts = split.starts
    return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in shards])


def _load(
    dataset: Dataset, split: Split, numbers: np.ndarray
) -> tuple[np.ndarray, list[Example]]:
    """Images, (batch, height, width, 3) uint8, and the examples without them."""
    pixels = dataset.buffers.take((len(numbers), *split.image_shape))
    examples = [
        split.load(number, out)
        for number, out in zip(numbers.tolist(), pixels, strict=True)
    ]
    return pixels, examples


def _labels(examples: list[Example]) -> np.ndarray:
    return np.array([example.label for example in examples], np.float32)


def _attributes(examples: list[Example]) -> np.ndarray:
    flags = np.frombuffer(
        b"".join(example.attributes for example in examples), np.uint8
    )
    return flags.reshape(-1, len(celeba.ATTRIBUTES)).astype(np.float32)


def _make_tensors(make: Callable[[int], dict[str, Any]], number: int) -> dict[str, Any]:
    """A batch of TensorFlow's tensors; under another backend of NumPy's arrays."""
    batch = make(number)
    if keras.backend.backend() != "tensorflow":
        return batch
    import tensorflow as tf

    # Not copied: nobody writes to these images any more.
    images = tf.experimental.dlpack.from_dlpack(batch.pop(IMAGES).__dlpack__())
    tensors = {name: tf.convert_to_tensor(value) for name, value in batch.items()}
    if _has_gpu():
        images = tf.identity(images)  # onto the GPU, ahead of the step
    return {IMAGES: images, **tensors}


@functools.cache
def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))
