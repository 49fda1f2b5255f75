"""Decoded images per second: the trainer's input beside what one would otherwise use.

    python -m benchmarks.input --peers_python=.venv-peers/bin/python --write

draws faces, builds them, and writes the training split's JPEGs beside as loose files:
every case decodes the same images into uint8 batches (Keras' loader: float32), in as
many threads or processes as there are cores, in turns. The time to start is left out,
and everything lies in the system's cache. "decode only" is the limit: libjpeg-turbo on
files that are in memory already, into memory that is used again.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from absl import flags

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf

from beam_pipelines import build, synthesize
from benchmarks import harness
from support import command, images
from support.errors import usage_error
from support.pool import cores
from trainer import wakeup
from trainer.dataset import Dataset, open_dataset
from trainer.input_pipeline import Augmentation, evaluation_batches, train_batches

_AUGMENTATION = Augmentation(20, (0.1, 0.1), True)
_SPLIT = "train"
#: Name -> what must be installed, and the script that is run.
_PEERS = {
    "DataLoader and PIL": ("torch, PIL", "torch_loader.py"),
    "NVIDIA DALI": ("nvidia.dali", "dali_loader.py"),
}


@dataclasses.dataclass(frozen=True)
class InputBenchmarkConfig:
    """What to measure."""

    num_images: int = command.option(8000, "Drawn faces; the training split is used.")
    batch_size: int = command.option(32, "Images per batch.")
    peers_python: str = command.option(
        "", "A Python that has benchmarks/requirements-peers.txt; empty = no peers."
    )
    rounds: int = command.option(5, "Measured rounds; one more warms up.")
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if min(self.rounds, self.batch_size) < 1 or (
            self.num_images < 4 * self.batch_size
        ):
            raise usage_error(
                f"--rounds={self.rounds}, --batch_size={self.batch_size} or "
                f"--num_images={self.num_images} is too few.",
                "Use 1 or more, and four images for each of a batch.",
            )


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(InputBenchmarkConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(InputBenchmarkConfig, values)
    with tempfile.TemporaryDirectory() as work, wakeup.Watch():
        folder, loose = make_data(config.num_images, Path(work))
        cases = list(own_cases(folder, loose, config.batch_size))
        cases += peer_cases(loose, config.batch_size, config.peers_python)
        measurements = harness.measure(cases, config.rounds)
        settings = {
            "num_images": len(list(loose.iterdir())),
            "batch_size": config.batch_size,
            "workers": cores(),
            "image_shape": list(open_dataset(folder).manifest.image_shape),
        }
    result = harness.document("input", "images", measurements, settings)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def make_data(count: int, work: Path) -> tuple[Path, Path]:
    """Draws faces; returns a dataset's folder, and one of its training JPEGs."""
    sample, folder, loose = work / "sample", work / "tfrecords", work / "loose"
    # A program of its own: its workers would import TensorFlow from this one.
    words = [f"--output_dir={sample}", f"--num_examples={count}"]
    program = [sys.executable, "-m", synthesize.__name__, *words]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    words = [
        "--runner=DirectRunner",
        "--balance=none",
        f"--celeba_dir={sample}",
        f"--output_dir={folder}",
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        build.main(["build", *words])
    loose.mkdir()
    for jpeg, name in _files(open_dataset(folder)):
        (loose / name).write_bytes(jpeg)
    return folder, loose


def own_cases(folder: Path, loose: Path, batch_size: int) -> Iterator[harness.Case]:
    """The cases that need nothing beside what the trainer needs."""
    streaming = open_dataset(folder)
    size = int(np.prod(streaming.manifest.image_shape))
    cached = open_dataset(folder, size * streaming.manifest.num_examples(_SPLIT))
    epochs = itertools.count()

    def train(dataset: Dataset) -> Callable[[], int]:
        return lambda: _count(
            train_batches(dataset, batch_size, 0, next(epochs), _AUGMENTATION)
        )

    yield harness.Case("trainer, streaming", train(streaming))
    yield harness.Case("trainer, streaming, again", train(streaming))
    yield harness.Case("trainer, from memory", train(cached))
    yield harness.Case(
        "trainer, evaluation",
        lambda: _count(evaluation_batches(streaming, _SPLIT, batch_size)),
    )
    yield harness.Case("tf.data", lambda: _count(_tf_data(loose, batch_size)))
    shape = streaming.manifest.image_shape[:2]
    yield harness.Case(
        "image_dataset_from_directory", lambda: _count(_keras(loose, batch_size, shape))
    )
    jpegs = [jpeg for jpeg, _ in _files(streaming)]
    yield harness.Case("decode only", lambda: _decode_only(jpegs, shape))


def peer_cases(loose: Path, batch_size: int, python: str) -> Iterator[harness.Case]:
    """The cases that run in another environment; says which are not installed there."""
    for name, (modules, script) in _PEERS.items() if python else ():
        tried = subprocess.run([python, "-c", f"import {modules}"], capture_output=True)
        if tried.returncode:
            print(f"skipped {name}: {python} has no {modules}")
            continue
        path = Path(__file__).parent / "peers" / script
        words = [python, path, loose, batch_size, cores()]
        yield harness.Case(
            name, lambda words=words: _run([str(word) for word in words])
        )


def _run(words: list[str]) -> harness.Timed:
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return harness.Timed(found["images"], found["seconds"])


def _files(dataset: Dataset) -> Iterator[tuple[bytes, str]]:
    split = dataset.split(_SPLIT)
    for number in range(len(split)):
        example = split.read(number)
        yield example.image, example.image_id


def _tf_data(loose: Path, batch_size: int) -> tf.data.Dataset:
    """As TensorFlow's guide writes it."""

    def read(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    files = tf.data.Dataset.list_files(str(loose / "*.jpg"))
    pictures = files.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return pictures.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _keras(loose: Path, batch_size: int, shape: tuple[int, int]) -> tf.data.Dataset:
    with contextlib.redirect_stdout(io.StringIO()):
        return keras.utils.image_dataset_from_directory(
            loose, labels=None, image_size=shape, batch_size=batch_size
        )


def _decode_only(jpegs: list[bytes], shape: tuple[int, int]) -> int:
    def decode(number: int) -> int:
        out = np.empty((*shape, 3), np.uint8)
        own = jpegs[number :: cores()]
        for jpeg in own:
            images.decode_rgb(jpeg, out)
        return len(own)

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(decode, range(cores())))


def _count(batches: Iterable) -> int:
    """Images of an epoch; Keras' and tf.data's batches are the images alone."""
    return sum(
        len(batch["images"] if isinstance(batch, dict) else batch) for batch in batches
    )


if __name__ == "__main__":
    command.run(main)
