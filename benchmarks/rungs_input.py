"""The ladder's rungs on the host: from shards to batches. No device is needed."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page_cache
from benchmarks.harness import Timed
from benchmarks.limits import Work, in_threads, timed
from schemas import example as example_schema
from support import framing, images
from support.hardware import available_memory
from trainer.dataset import Dataset

#: The share of the free memory that decoded images may take here, and how many are
#: enough: an epoch must not be so short that starting it counts.
_MEMORY_SHARE, _ENOUGH = 8, 8192
_SAMPLE = 512  # records that are parsed and decoded
#: Splits whose shards are used.
_SPLITS = ("train", "validation")


def part_of(dataset: Dataset) -> Dataset:
    """The first shards of training and validation split, as many as are needed.

    Its decoded training images are kept in memory if they are asked for through
    `kept`, and never take more than an eighth of what is free.
    """
    manifest = dataset.manifest
    size = int(np.prod(manifest.image_shape))
    most = min(_ENOUGH, available_memory() // _MEMORY_SHARE // size)
    shards = []
    for split in _SPLITS:
        count = 0
        for shard in manifest.split(split):
            if count and count + shard.records > most:
                break
            shards.append(shard)
            count += shard.records
    return Dataset(dataset.folder, dataclasses.replace(manifest, shards=tuple(shards)))


def kept(dataset: Dataset) -> Dataset:
    """The same dataset with its training images kept in memory."""
    return dataclasses.replace(dataset, cached=("train",))


def shard_paths(dataset: Dataset) -> list[Path]:
    """The training shards' files."""
    return [dataset.folder / shard.name for shard in dataset.manifest.split("train")]


class Records:
    """The training records, read as the trainer reads them, and some of them."""

    def __init__(self, dataset: Dataset):
        self._paths = shard_paths(dataset)
        self._shape = dataset.manifest.image_shape
        self._buffers = dataset.buffers
        self._places = [_places(path) for path in self._paths]
        self.sample = list(itertools.islice(self._all(), _SAMPLE))
        self.jpegs = [example_schema.decode(record).image for record in self.sample]
        self.record_bytes = sum(map(len, self.sample)) / len(self.sample)

    def reading(self, cold: bool) -> Work:
        """Reads every record by its offset and checks it."""

        def read(shards: Sequence[int]) -> int:
            return sum(1 for shard in shards for _ in self._shard(shard, cold))

        def forget() -> None:
            if cold:
                page_cache.drop(self._paths)

        numbers = range(len(self._paths))
        return lambda units: timed(lambda: in_threads(read, numbers), units, forget)

    def parsing(self, units: int) -> Timed:
        """Parses records that are in memory."""

        def parse(records: Sequence[bytes]) -> int:
            for record in records:
                example_schema.decode(record)
            return len(records)

        return timed(lambda: in_threads(parse, self.sample), units)

    def decoding(self, units: int) -> Timed:
        """Decodes JPEGs that are in memory, into memory as batches have it."""

        def decode(jpegs: Sequence[bytes]) -> int:
            pixels = self._buffers.take((len(jpegs), *self._shape))
            for jpeg, out in zip(jpegs, pixels, strict=True):
                images.decode_rgb(jpeg, out)
            return len(jpegs)

        return timed(lambda: in_threads(decode, self.jpegs), units)

    def _all(self) -> Iterator[bytes]:
        for shard in range(len(self._paths)):
            yield from self._shard(shard, ahead=False)

    def _shard(self, shard: int, ahead: bool) -> Iterator[bytes]:
        descriptor = os.open(self._paths[shard], os.O_RDONLY)
        try:
            if ahead and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            for index, (at, length) in enumerate(self._places[shard]):
                yield framing.read_record(descriptor, at, length, index)
        finally:
            os.close(descriptor)


def batching(batches: Callable[[], Iterator[dict[str, Any]]]) -> Work:
    """Batches of an endless stream, from the second one on.

    Args:
      batches: begins a stream; it is closed again.
    """

    def work(units: int) -> Timed:
        stream = batches()
        try:
            next(stream)
            return timed(lambda: len(next(stream)["images"]), units)
        finally:
            stream.close()

    return work


def _places(path: Path) -> list[tuple[int, int]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(framing.locate_records(descriptor))
    finally:
        os.close(descriptor)
