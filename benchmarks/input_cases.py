"""The ways to decode images that need nothing beside what the trainer needs.

Each case decodes the same images once, in as many threads as this process has cores.
"""

import concurrent.futures
import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import keras
import numpy as np
import simplejpeg
import tensorflow as tf

from benchmarks import harness
from schemas import example as example_schema
from schemas.example import Example
from support import images
from support.framing import read_records
from support.pool import cores
from trainer.data import Dataset, evaluation_dataset, open_dataset, train_dataset

SPLIT = "train"
_EPOCHS = 1000  # more than are measured
_AHEAD = 8  # batches, more than are prefetched and in the making
_COPIED = 512  # decoded images, more than a processor holds in its cache
_COPIES = 16


def own_cases(folder: Path, loose: Path, batch_size: int) -> Iterator[harness.Case]:
    """The trainer's input, then TensorFlow's and Keras' loaders, then the limits.

    Args:
      folder: a dataset.
      loose: a folder that holds its training split as JPEG files, and nothing else.
      batch_size: images per batch.
    """
    dataset = open_dataset(folder)
    shape = dataset.manifest.image_shape

    streaming, again, cached = (
        _epoch_after_epoch(dataset, batch_size, cache) for cache in (False, False, True)
    )
    evaluation = evaluation_dataset(dataset, SPLIT, batch_size)
    yield harness.Case("trainer, streaming", streaming)
    yield harness.Case("trainer, streaming, again", again)
    yield harness.Case("trainer, from memory", cached)
    yield harness.Case("trainer, evaluation", lambda: _count(evaluation))
    yield from _keras_cases(loose, batch_size, shape[:2])
    yield from _limits([example.image for example in _examples(dataset)], shape)


def _epoch_after_epoch(
    dataset: Dataset, batch_size: int, cache: bool
) -> Callable[[], harness.Timed]:
    """A round is an epoch's steps of one long run, as in training."""
    batches = iter(train_dataset(dataset, batch_size, epochs=_EPOCHS, cache=cache))
    steps = dataset.manifest.num_examples(SPLIT) // batch_size

    def run() -> harness.Timed:
        for _ in range(_AHEAD):  # were made in the pause between rounds
            next(batches)
        started = time.perf_counter()
        done = sum(len(next(batches)[0]) for _ in range(steps))
        return harness.Timed(done, time.perf_counter() - started)

    return run


def write_loose(folder: Path, loose: Path) -> None:
    """Writes a dataset's training split as JPEG files, byte by byte as they are."""
    loose.mkdir()
    for example in _examples(open_dataset(folder)):
        (loose / example.image_id).write_bytes(example.image)


def _examples(dataset: Dataset) -> Iterator[Example]:
    for shard in dataset.manifest.split(SPLIT):
        for record in read_records(dataset.path(shard).read_bytes()):
            yield example_schema.decode(record)


def _keras_cases(
    loose: Path, batch_size: int, shape: tuple[int, int]
) -> Iterator[harness.Case]:
    """Loaders of files. They are made, traced and told the files before the clock runs.

    The round that warms up is their first pass.
    """
    plain = _tf_data(loose, batch_size)
    yield harness.Case("tf.data, loose files", lambda: _count(plain))
    with contextlib.redirect_stdout(io.StringIO()):
        directory = keras.utils.image_dataset_from_directory(
            loose, labels=None, image_size=shape, batch_size=batch_size
        )
    yield harness.Case("image_dataset_from_directory", lambda: _count(directory))
    try:
        generated = _generator(loose, batch_size, shape)
    except ImportError as error:
        print(f"skipped ImageDataGenerator: {error}")
        return
    yield harness.Case("ImageDataGenerator", lambda: _count_in_threads(generated))


def _tf_data(loose: Path, batch_size: int) -> tf.data.Dataset:
    """As TensorFlow's guide writes it."""

    def read(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    files = tf.data.Dataset.list_files(str(loose / "*.jpg"))
    pictures = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _generator(
    loose: Path, batch_size: int, shape: tuple[int, int]
) -> keras.utils.PyDataset:
    """Keras' older loader, told to change nothing and to give uint8.

    Raises:
      ImportError: Pillow is not installed.
    """
    from PIL import Image  # noqa: F401 - Keras asks for it only when it is used

    generator = tf.keras.preprocessing.image.ImageDataGenerator(dtype="uint8")
    with contextlib.redirect_stdout(io.StringIO()):
        return generator.flow_from_directory(
            loose.parent,
            target_size=shape,
            classes=[loose.name],
            class_mode=None,
            batch_size=batch_size,
        )


def _limits(jpegs: list[bytes], shape: tuple[int, int, int]) -> Iterator[harness.Case]:
    """What no loader exceeds: decoding from memory, and copying what was decoded."""
    yield harness.Case("decode only", lambda: _decode_only(jpegs, shape, cores()))
    if cores() > 1:
        yield harness.Case("decode only, 1 core", lambda: _decode_only(jpegs, shape, 1))
    decoded = np.zeros((_COPIED, *shape), np.uint8)
    decoded[:] = images.decode_rgb(jpegs[0])
    copied = np.zeros_like(decoded)
    yield harness.Case("memory copy", lambda: _copy(decoded, copied))


def _decode_only(jpegs: list[bytes], shape: tuple[int, int, int], workers: int) -> int:
    def decode(number: int) -> int:
        out = np.empty(shape, np.uint8)
        own = jpegs[number::workers]
        for jpeg in own:
            simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, buffer=out)
        return len(own)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(decode, range(workers)))


def _copy(source: np.ndarray, target: np.ndarray) -> int:
    def copy(number: int) -> int:
        own = slice(number, None, cores())
        for _ in range(_COPIES):
            np.copyto(target[own], source[own])
        return _COPIES * len(source[own])

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(copy, range(cores())))


def _count(batches: Iterable) -> int:
    """Images of an epoch; some loaders' batches are the images alone."""
    return sum(
        len(batch[0] if isinstance(batch, tuple) else batch) for batch in batches
    )


def _count_in_threads(batches: keras.utils.PyDataset) -> int:
    """The same, with `workers` threads as `fit` has them."""
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(lambda _: len(next(batches)), range(len(batches))))
