"""The ways to decode images that `benchmarks.input` compares.

Each case decodes the same images once, in as many threads or processes as this process
has cores. A loader of another library is a program in the peers' environment, see
`peers/loaders.py`; formats of their own are written once before, with the same JPEG
bytes.
"""

import contextlib
import functools
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import keras
import tensorflow as tf

from benchmarks import harness, programs
from benchmarks.stages import bounds
from schemas import example as example_schema
from schemas.example import Example
from support.framing import read_records
from support.pool import cores
from trainer.data import Dataset, evaluation_dataset, open_dataset, train_dataset

SPLIT = "train"
#: Name in the table -> modules that it needs, its loader, its writer or "".
PEERS = {
    "DataLoader and PIL": ("torch, PIL", "torch", ""),
    "WebDataset": ("webdataset, torch, PIL", "webdataset", "webdataset"),
    "litdata": ("litdata, torch, PIL", "litdata", "litdata"),
    "NVIDIA DALI": ("nvidia.dali", "dali", ""),
}
_SCRIPTS = Path(__file__).parent / "peers"
_SHARDS_PER_WORKER = 4
_EPOCHS = 1000  # more than are measured
_AHEAD = 8  # batches, more than are prefetched and in the making


def own_cases(folder: Path, loose: Path, batch_size: int) -> Iterator[harness.Case]:
    """The trainer's input, TensorFlow's and Keras' loaders, and the upper bound.

    `loose` is a folder of the training split as JPEG files, and nothing else. Loaders
    are made and traced before the clock runs; the round that warms up is their first
    pass.
    """
    dataset = open_dataset(folder)
    for name, cache in (
        ("trainer, streaming", False),
        ("trainer, streaming, again", False),
        ("trainer, from memory", True),
    ):
        yield harness.Case(name, _epoch_after_epoch(dataset, batch_size, cache))
    shape = dataset.manifest.image_shape
    with contextlib.redirect_stdout(io.StringIO()):
        directory = keras.utils.image_dataset_from_directory(
            loose, labels=None, image_size=shape[:2], batch_size=batch_size
        )
    for name, batches in (
        ("trainer, evaluation", evaluation_dataset(dataset, SPLIT, batch_size)),
        ("tf.data, loose files", _tf_data(loose, batch_size)),
        ("image_dataset_from_directory", directory),
    ):
        yield harness.Case(name, functools.partial(_count, batches))
    decode = bounds.libjpeg([example.image for example in _examples(dataset)], shape)
    yield harness.Case("decode only", functools.partial(decode, 1))


def peers(loose: Path, batch_size: int, python: str) -> Iterator[harness.Case]:
    """The cases of the libraries that a Python has; prints which are skipped.

    Formats of their own are written next to `loose`, a folder of JPEG files.
    """
    for name, (modules, loader, writer) in PEERS.items() if python else ():
        if not programs.can_import(name, python, modules):
            continue
        folder = loose.parent / writer if writer else loose
        if not folder.exists():
            # WebDataset's workers take whole shards: each should get as many.
            per_shard = -(-len(list(loose.iterdir())) // (_SHARDS_PER_WORKER * cores()))
            _run_script(python, "writers.py", writer, loose, folder, per_shard)
        words = (loader, folder, batch_size, cores())
        yield harness.Case(name, functools.partial(_load, python, *words))


def _load(python: str, *words: object) -> harness.Timed:
    lines = _run_script(python, "loaders.py", *words).splitlines()
    return harness.Timed(**json.loads(lines[-1]))


def _run_script(python: str, script: str, *words: object) -> str:
    return programs.run([python, str(_SCRIPTS / script), *map(str, words)])


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


def _tf_data(loose: Path, batch_size: int) -> tf.data.Dataset:
    """As TensorFlow's guide writes it."""

    def read(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    files = tf.data.Dataset.list_files(str(loose / "*.jpg"))
    images = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _count(batches: Iterable) -> int:
    """Images of an epoch; some loaders' batches are the images alone."""
    return sum(
        len(batch[0] if isinstance(batch, tuple) else batch) for batch in batches
    )
