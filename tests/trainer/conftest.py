"""A tiny dataset of drawn blobs, a tiny architecture, two logical CPUs."""

import dataclasses
import hashlib

import keras
import numpy as np
import pytest
import simplejpeg
import tensorflow as tf

from schemas import example as example_schema
from schemas.celeba import CELEBA
from schemas.manifest import FILE_NAME, Manifest, Shard
from trainer import models
from trainer.config import TrainConfig
from trainer.loop import wakeup

from . import running, tiny_run

#: Before anything else touches the devices: the second CPU stands in for a second GPU.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

HEIGHT, WIDTH = 40, 32
PEOPLE = {"train": range(12), "validation": range(12, 18), "test": range(18, 27)}
COUNTS = {"train": 48, "validation": 13, "test": 21}


@pytest.fixture(scope="session", autouse=True)
def awake():
    """A thread pool whose wake-up got lost must not hang the tests."""
    with wakeup.Watch(seconds=20):
        yield


def draw(label: int, rng: np.random.Generator) -> bytes:
    """A JPEG whose upper half is brighter if the label is 1."""
    pixels = rng.integers(60, 120, (HEIGHT, WIDTH, 3), np.uint8)
    half = slice(0, HEIGHT // 2) if label else slice(HEIGHT // 2, HEIGHT)
    pixels[half] += 90
    return simplejpeg.encode_jpeg(pixels, quality=95)


def attributes(index: int) -> bytes:
    """Attributes of which none but one is 1, another one for each example."""
    return bytes(number == index % 40 for number in range(40))


def write_dataset(folder, counts=COUNTS, num_shards=2) -> Manifest:
    """Writes a dataset as the build does, with TensorFlow's own record writer."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    shards = []
    for split, count in counts.items():
        people = PEOPLE[split]
        examples = [
            example_schema.Example(
                image=draw(index % 2, rng),
                label=index % 2,
                image_id=f"{split}-{index:03d}.jpg",
                identity=people[index % len(people)],
                attributes=attributes(index),
            )
            for index in range(count)
        ]
        for number in range(num_shards):
            name = f"celeba-{split}.tfrecord-{number:05d}-of-{num_shards:05d}"
            own = examples[number::num_shards]
            with tf.io.TFRecordWriter(str(folder / name)) as writer:
                for example in own:
                    writer.write(example_schema.encode(example))
            data = (folder / name).read_bytes()
            ones = sum(example.label for example in own)
            shards.append(
                Shard(
                    name,
                    split,
                    len(own),
                    len(data),
                    hashlib.sha256(data).hexdigest(),
                    (len(own) - ones, ones),
                )
            )
    manifest = Manifest(
        dataset=CELEBA.about,
        attributes=CELEBA.attributes,
        attribute="Male",
        image_shape=(HEIGHT, WIDTH, 3),
        config={"split": "identity", "seed": 0},
        class_weights=(1.0, 1.0),
        sources={},
        shards=tuple(shards),
    )
    (folder / FILE_NAME).write_text(manifest.to_json())
    return manifest


@pytest.fixture(autouse=True)
def float32():
    """Training sets Keras' policy for its process: none leaves it to the next test."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "tfrecords"
    write_dataset(folder)
    return folder


TINY = models.Architecture("Tiny", tiny_run.backbone)


@pytest.fixture
def tiny(monkeypatch):
    """Adds an architecture `tiny` to the table."""
    monkeypatch.setitem(models.ARCHITECTURES, "tiny", TINY)
    return "tiny"


def tiny_config(data_dir, run_dir):
    """A run of two short epochs."""
    return TrainConfig(
        model="tiny",
        data_dir=str(data_dir),
        run_dir=str(run_dir),
        input_size=32,
        batch_size=8,
        epochs=2,
        learning_rate=0.01,
        precision="float32",
    )


@pytest.fixture
def config(tiny, dataset_dir, tmp_path):
    return tiny_config(dataset_dir, tmp_path / "run")


@pytest.fixture(scope="session")
def finished_run(dataset_dir, tmp_path_factory):
    """The folder of `config`'s run, for tests that only read it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.ARCHITECTURES, "tiny", TINY)
        assert running.run(tiny_config(dataset_dir, folder)) == 0
    return folder


@pytest.fixture
def changed(config):
    """The same with some options changed."""
    return lambda **changes: dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def run_dir(finished_run):
    """A finished run to read; its architecture stays in the table for the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.ARCHITECTURES, "tiny", TINY)
        yield str(finished_run)
