"""The input pipeline: one tf.data chain for training, one for evaluation.

Batch n of a training run is a function of (seed, n), and of whether decoded images are
cached: a run resumes at any step by starting there. Nothing is augmented here: a batch
carries its step and its examples' positions, from which the device's layers draw.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from schemas import example as schema
from schemas.manifest import Manifest
from support.pool import cores
from trainer.config import SHUFFLE_BUFFER
from trainer.data.dataset import Dataset, open_dataset

IMAGES, LABELS, WEIGHTS = "images", "labels", "weights"
STEP, INDEX = "step", "index"
IMAGE_ID, IDENTITY, ATTRIBUTES = schema.IMAGE_ID, schema.IDENTITY, schema.ATTRIBUTES

#: Shards that are read interleaved; so many files are open at once.
_CYCLE_LENGTH = 16
_PREFETCH = 2  # batches


def train_dataset(
    data_dir: str | Path | Dataset,
    batch_size: int,
    seed: int = 0,
    epochs: int = 1,
    start: int = 0,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    cache: bool = False,
    as_supervised: bool = True,
) -> tf.data.Dataset:
    """Streams shuffled full batches of the training split, epoch after epoch.

    Args:
      data_dir: the dataset's path, or an opened one.
      batch_size: examples per batch; an epoch's last examples that fill none are
        dropped.
      seed: of the order, together with the epoch.
      epochs: passes over the split.
      start: the first step, from 0: the batches are those from there on.
      shuffle_buffer: records to draw from.
      cache: keep decoded images in memory, and draw from all of them; the order is
        another than without.
      as_supervised: yield what Keras' `fit` takes, else everything.

    Returns:
      (images, labels), or a dict: images (batch, height, width, 3) uint8 RGB 0..255;
      labels (batch,) float32 0 or 1; attributes (batch, attributes) float32 0 or 1;
      step () int64; index (batch,) int64, the examples' positions in the batch.

    Raises:
      ValueError: the batch is empty, or larger than the split.
      UserError: see `open_dataset`.
    """
    data = _opened(data_dir, "train")
    count = data.manifest.num_examples("train")
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size={batch_size}: expected 1..{count} examples")
    steps, buffer = count // batch_size, count if cache else shuffle_buffer
    cached = _cached_examples(data, "train") if cache else None

    def epoch_of(epoch):
        tf.random.set_seed(1)  # of this graph: the order must not follow the program's
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        examples = cached if cache else records(data, "train", key)
        drawn = tf.random.stateless_uniform([], key, 0, 2**31 - 1, tf.int64)
        shuffled = examples.shuffle(buffer, drawn, reshuffle_each_iteration=False)
        return shuffled.batch(batch_size, drop_remainder=True)

    def finish(step, batch):
        examples = batch if cache else decode_batch(batch, data.manifest)
        if as_supervised:
            return examples[IMAGES], examples[LABELS]
        result = {name: examples[name] for name in (IMAGES, LABELS, ATTRIBUTES)}
        return result | {STEP: step, INDEX: tf.range(batch_size, dtype=tf.int64)}

    epoch, skipped = divmod(start, steps)
    batches = tf.data.Dataset.range(epoch, epochs).flat_map(epoch_of).skip(skipped)
    batches = batches.enumerate(start).map(finish, cores(), deterministic=True)
    batches = batches.apply(_of_length(max(epochs * steps - start, 0)))
    return batches.prefetch(_PREFETCH)


def prefetch_onto(batches: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """Copies batches onto a device, such as GPU:0, ahead of the steps; no strings."""
    return batches.apply(
        tf.data.experimental.prefetch_to_device(f"/{device}", _PREFETCH)
    )


def evaluation_dataset(
    data_dir: str | Path | Dataset,
    split: str,
    batch_size: int,
    cache: bool = False,
    as_supervised: bool = True,
) -> tf.data.Dataset:
    """Streams every example of a split once, in the order of the shards.

    Args:
      data_dir: the dataset's path, or an opened one.
      split: its name.
      batch_size: examples per batch.
      cache: keep decoded batches in memory.
      as_supervised: yield what Keras' `evaluate` takes, else everything.

    Returns:
      (images, labels), the last batch smaller where they don't divide evenly. Or a
      dict: images (batch, height, width, 3) uint8 RGB 0..255; labels (batch,) float32 0
      or 1; attributes (batch, attributes) float32 0 or 1; image_id (batch,) string;
      identity (batch,) int64, -1 unknown; weights (batch,) float32, 1, and 0 for the
      copies that pad the last batch to the size of the others.

    Raises:
      ValueError: the batch is empty.
      UserError: see `open_dataset`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected 1 or more examples")
    data = _opened(data_dir, split)

    def finish(serialized):
        if as_supervised:
            examples = decode_batch(serialized, data.manifest)
            return examples[IMAGES], examples[LABELS]
        positions, present = tf.range(batch_size), tf.shape(serialized)[0]
        padded = tf.gather(serialized, positions % present)
        weights = tf.cast(positions < present, tf.float32)
        return decode_batch(padded, data.manifest) | {WEIGHTS: weights}

    batches = records(data, split).batch(batch_size)
    batches = batches.map(finish, cores(), deterministic=True)
    count = data.manifest.num_examples(split)
    batches = batches.apply(_of_length(-(-count // batch_size)))
    return (batches.cache() if cache else batches).prefetch(_PREFETCH)


def read_images(data: Dataset, split: str, image_ids: Iterable[str]) -> dict:
    """The JPEG files, bytes, of some examples by image_id.

    Raises:
      UserError: a shard is damaged (exit 5).
    """
    ids, files = {name.encode() for name in image_ids}, {}
    attributes = len(data.manifest.attributes)
    batches = records(data, split).batch(256)
    batches = batches.map(lambda serialized: schema.parse(serialized, attributes))
    for batch in data.iterate(split, batches):
        names, jpegs = (batch[key].numpy() for key in (IMAGE_ID, schema.IMAGE))
        pairs = zip(names, jpegs, strict=True)
        files |= {name.decode(): jpeg for name, jpeg in pairs if name in ids}
    return files


def _opened(data_dir: str | Path | Dataset, split: str) -> Dataset:
    if isinstance(data_dir, Dataset):
        return data_dir
    return open_dataset(data_dir, needed=[split])


def records(data: Dataset, split: str, key: Any = None) -> tf.data.Dataset:
    """The encoded records of a split's shards, one after the other.

    With a key, (2,) int64, the shards are in an order drawn from it, and interleaved.
    """
    shards = data.manifest.split(split)
    # Bytes: a name need not be UTF-8. (AutoGraph complains of `os.fsencode`.)
    names = [str(data.path(shard)) for shard in shards]
    paths = tf.constant([name.encode(errors="surrogateescape") for name in names])
    counts = tf.constant([shard.records for shard in shards], tf.int64)
    order = tf.range(len(shards))
    if key is not None:
        order = tf.random.experimental.stateless_shuffle(order, key)

    def read(shard):
        # A file that was cut between two records ends without an error.
        return tf.data.TFRecordDataset(paths[shard]).apply(_of_length(counts[shard]))

    numbers = tf.data.Dataset.from_tensor_slices(order)
    return numbers.interleave(read, cycle_length=1 if key is None else _CYCLE_LENGTH)


def _cached_examples(data: Dataset, split: str) -> tf.data.Dataset:
    """A split's decoded examples one by one: read once, then from memory."""
    batches = records(data, split).batch(64)
    batches = batches.map(
        lambda serialized: decode_batch(serialized, data.manifest),
        cores(),
        deterministic=True,
    )
    return batches.unbatch().cache()


def decode_batch(serialized: Any, manifest: Manifest) -> dict[str, Any]:
    """Parses (batch,) string records; see `evaluation_dataset` for the result."""
    example = schema.parse(serialized, len(manifest.attributes))
    pixels = tf.map_fn(
        decode_jpeg,
        example[schema.IMAGE],
        fn_output_signature=tf.TensorSpec(manifest.image_shape, tf.uint8),
    )
    return {
        IMAGES: pixels,
        LABELS: tf.cast(example[schema.LABEL], tf.float32),
        ATTRIBUTES: tf.cast(example[ATTRIBUTES], tf.float32),
        IMAGE_ID: example[IMAGE_ID],
        IDENTITY: example[IDENTITY],
    }


def decode_jpeg(jpeg: Any) -> Any:
    """Decodes one JPEG exactly as `support.images.decode_rgb` does.

    Args:
      jpeg: () string.

    Returns:
      (height, width, 3) uint8 RGB, 0..255.
    """
    return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def _of_length(length: Any) -> Any:
    return tf.data.experimental.assert_cardinality(length)
