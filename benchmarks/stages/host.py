"""Stages on the host, from shards to batches. No device is needed."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Timed, Work, repeated
from benchmarks.stages.bounds import drop_from_cache
from schemas import example as example_schema
from support.hardware import available_memory
from support.pool import cores
from trainer.data import Dataset, input_pipeline

#: The fraction of the free memory that decoded images may take here, and how many are
#: enough: an epoch must not be so short that starting it counts.
_MEMORY_FRACTION, _ENOUGH = 8, 8192
_SAMPLE, _BATCH = 512, 32  # records that are parsed and decoded, and at a time


def part_of(dataset: Dataset) -> Dataset:
    """The first shards of training and validation split, as many as are needed.

    Their decoded training images never take more than an eighth of what is free.
    """
    manifest = dataset.manifest
    size = int(np.prod(manifest.image_shape))
    most = min(_ENOUGH, available_memory() // _MEMORY_FRACTION // size)
    shards = []
    for split in ("train", "validation"):
        count = 0
        for shard in manifest.split(split):
            if count and count + shard.records > most:
                break
            shards.append(shard)
            count += shard.records
    part = dataclasses.replace(manifest, shards=tuple(shards))
    return dataclasses.replace(dataset, manifest=part)


class Records:
    """The training records, read as the trainer reads them, and some of them.

    Attributes:
      paths: files of the training shards.
      jpegs: of some records.
      record_bytes: of a record, in the mean.
    """

    def __init__(self, dataset: Dataset):
        manifest = dataset.manifest
        self.paths = [dataset.path(shard) for shard in manifest.split("train")]
        self._manifest = manifest
        key = tf.constant([0, 0], tf.int64)
        self._records = input_pipeline.records(dataset, "train", key)
        first = itertools.islice(self._records.as_numpy_iterator(), _SAMPLE)
        self._sample = list(first)
        self.jpegs = [example_schema.decode(record).image for record in self._sample]
        self.record_bytes = sum(map(len, self._sample)) / len(self._sample)

    def reading(self, cold: bool) -> Work:
        """Reads every record, interleaved."""
        batches = self._records.batch(_BATCH)

        return repeated(
            lambda: _count(batches),
            lambda: drop_from_cache(self.paths if cold else []),
        )

    def parsing(self, units: int) -> Timed:
        """Parses records that are in memory."""
        attributes = len(self._manifest.attributes)

        def parse(batch: tf.Tensor) -> tf.Tensor:
            return example_schema.parse(batch, attributes)["label"]

        return self._mapping(parse, units)

    def decoding(self, units: int) -> Timed:
        """Parses and decodes records that are in memory."""

        def decode(batch: tf.Tensor) -> tf.Tensor:
            return input_pipeline.decode_batch(batch, self._manifest)["images"]

        return self._mapping(decode, units)

    def _mapping(self, function: Any, units: int) -> Timed:
        batches = tf.data.Dataset.from_tensor_slices(self._sample).batch(_BATCH)
        batches = batches.repeat(units).map(function, cores(), deterministic=True)
        return repeated(lambda: _count(batches))(1)


def batching(batches: tf.data.Dataset) -> Work:
    """Batches of images and labels, from the second one on."""

    def work(units: int) -> Timed:
        stream = iter(batches)
        next(stream)
        return repeated(lambda: len(next(stream)["images"]))(units)

    return work


def _count(batches: Iterable[tf.Tensor]) -> int:
    return sum(len(batch) for batch in batches)
