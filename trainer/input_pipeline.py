"""From shards to batches with tf.data: deterministic, and only what the manifest lists.

The order of the stages stands in `train_batches` and `evaluation_batches`.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from schemas import example as example_schema
from schemas import manifest as manifest_schema
from schemas.manifest import Manifest
from support.errors import ExitCode, UserError
from support.files import sha256_file
from trainer import warp

#: Memory for shuffling encoded records.
SHUFFLE_BYTES = 256 * 2**20
_READ_BUFFER = 2**20

IMAGES, PARAMETERS, LABELS, WEIGHTS = "images", "parameters", "labels", "weights"
ATTRIBUTES = example_schema.ATTRIBUTES
IMAGE_ID, IDENTITY = example_schema.IMAGE_ID, example_schema.IDENTITY


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the warp, as `warp.draw` takes them."""

    rotation: float
    shift: tuple[float, float]
    flip: bool
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset folder whose files are those that its manifest lists."""

    folder: Path
    manifest: Manifest

    def files(self, split: str) -> list[str]:
        return [str(self.folder / shard.name) for shard in self.manifest.split(split)]


def open_dataset(folder: str | Path) -> Dataset:
    """Opens a dataset and checks every shard's size and sha256.

    Raises:
      UserError: missing, unfinished or without examples in a split (exit 3); damaged
        or foreign (exit 5).
    """
    folder = Path(folder)
    path = folder / manifest_schema.FILE_NAME
    if not path.is_file():
        found = "is not a folder" if not folder.is_dir() else f"has no {path.name}"
        raise UserError(
            f"{folder} holds no finished dataset: it {found}.",
            "Build one with `python -m beam_pipelines.build --output_dir="
            f"{folder}`, or name another with --data_dir.",
            ExitCode.INPUT_DATA,
        )
    try:
        manifest = Manifest.from_json(path.read_text())
    except (manifest_schema.ManifestError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: {error}.", "Build the dataset again.", ExitCode.INTEGRITY
        ) from error
    for shard in manifest.shards:
        _check_shard(folder, shard)
    for split in ("train", "validation", "test"):
        if not manifest.num_examples(split):
            raise UserError(
                f"{folder} has no {split} examples.",
                "Build it with fractions above 0 for all splits.",
                ExitCode.INPUT_DATA,
            )
    return Dataset(folder, manifest)


def train_batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    epoch: int,
    augmentation: Augmentation,
    skip: int = 0,
) -> tf.data.Dataset:
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
    manifest = dataset.manifest
    shape = manifest.image_shape
    files = np.array(dataset.files("train"))
    order = np.random.default_rng((seed, epoch)).permutation(len(files))

    def finish(position, serialized):
        record = example_schema.parse(serialized[None])
        uniform = tf.random.stateless_uniform(
            [warp.NUM_PARAMETERS], [seed, (epoch << 40) + position]
        )
        return {
            IMAGES: decode(record[example_schema.IMAGE][0], shape),
            PARAMETERS: warp.draw(uniform, **dataclasses.asdict(augmentation)),
            LABELS: tf.cast(record[example_schema.LABEL][0], tf.float32),
            ATTRIBUTES: tf.cast(record[ATTRIBUTES][0], tf.float32),
        }

    records = tf.data.Dataset.from_tensor_slices(files[order]).interleave(
        _read, cycle_length=4, num_parallel_calls=4, deterministic=True
    )
    records = records.shuffle(
        _shuffle_records(manifest), seed=seed + (epoch << 20)
    ).enumerate()
    records = records.skip(skip * batch_size)
    examples = records.map(finish, tf.data.AUTOTUNE, deterministic=True)
    return _options(examples.batch(batch_size, drop_remainder=True).prefetch(4))


def evaluation_batches(
    dataset: Dataset, split: str, batch_size: int
) -> tf.data.Dataset:
    """Every example of a split once, in the order of the shards, never augmented.

    The last batch is filled up with copies of weight 0, so that all have one shape.

    Returns:
      images (batch, height, width, 3) uint8, labels (batch,) float32, weights (batch,)
      float32 0 or 1, image_id (batch,) string, identity (batch,) int64.
    """
    shape = dataset.manifest.image_shape
    count = dataset.manifest.num_examples(split)
    padded = -(-count // batch_size) * batch_size

    def finish(position, serialized):
        record = example_schema.parse(serialized[None])
        return {
            IMAGES: decode(record[example_schema.IMAGE][0], shape),
            LABELS: tf.cast(record[example_schema.LABEL][0], tf.float32),
            WEIGHTS: tf.cast(position < count, tf.float32),
            IMAGE_ID: record[example_schema.IMAGE_ID][0],
            IDENTITY: record[example_schema.IDENTITY][0],
        }

    records = tf.data.Dataset.from_tensor_slices(dataset.files(split)).flat_map(_read)
    records = records.repeat().take(padded).enumerate()
    examples = records.map(finish, tf.data.AUTOTUNE, deterministic=True)
    return _options(examples.batch(batch_size, drop_remainder=True).prefetch(4))


def decode(jpeg: Any, shape: tuple[int, int, int] | None = None) -> Any:
    """Decodes a JPEG file to RGB.

    Args:
      jpeg: scalar string.
      shape: the known shape, if any.

    Returns:
      (height, width, 3) uint8.
    """
    image = tf.io.decode_jpeg(jpeg, channels=3)
    return image if shape is None else tf.ensure_shape(image, shape)


def read_images(
    dataset: Dataset, split: str, image_ids: Iterable[str]
) -> dict[str, bytes]:
    """The JPEG files of some examples, by image_id."""
    wanted = set(image_ids)
    found = {}
    for file in dataset.files(split):
        for serialized in tf.data.TFRecordDataset(file).as_numpy_iterator():
            record = example_schema.decode(serialized)
            if record.image_id in wanted:
                found[record.image_id] = record.image
    return found


def _read(file: Any) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(file, buffer_size=_READ_BUFFER)


def _shuffle_records(manifest: Manifest) -> int:
    shards = manifest.split("train")
    records = sum(shard.records for shard in shards)
    record_bytes = sum(shard.bytes for shard in shards) / records
    return int(min(records, max(SHUFFLE_BYTES // record_bytes, 1)))


def _options(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Shards are not split over replicas: every global batch is.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return batches.with_options(options)


def _check_shard(folder: Path, shard: manifest_schema.Shard) -> None:
    path = folder / shard.name
    if not path.is_file():
        problem = "is missing"
    elif path.stat().st_size != shard.bytes:
        problem = f"has {path.stat().st_size} bytes, not {shard.bytes}"
    elif sha256_file(path) != shard.sha256:
        problem = "is damaged: its sha256 differs from the manifest's"
    else:
        return
    raise UserError(
        f"{path} {problem}.",
        f"Find out more with `python -m beam_pipelines.verify --dataset_dir={folder}`, "
        "or build the dataset again.",
        ExitCode.INTEGRITY,
    )
