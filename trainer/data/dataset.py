"""A dataset folder: opened, checked against its manifest, its damage named."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from schemas import celeba
from schemas.manifest import Manifest, Shard
from support import memory
from support.errors import ExitCode, UserError, input_error
from support.files import PinnedFolder, input_errors, sha256_file
from support.hardware import available_memory
from support.pool import cores, thread_map
from trainer.runs.provenance import dataset_manifest

#: The splits that are read more than once, in the order in which memory is given.
_READ_AGAIN = ("train", "validation")
#: The model, the system's cache of files and other programs need memory, too.
_CACHE_FRACTION = 4
#: What TensorFlow raises where the system refuses a file. Memory that ran out is not
#: here any more: too many open files, too, exhaust a resource.
_OF_THE_SYSTEM = (tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset folder whose files are those that its manifest lists.

    Attributes:
      pinned: its folder: whatever is built in its place later is not read.
      manifest: its contents.
    """

    pinned: PinnedFolder
    manifest: Manifest

    @property
    def folder(self) -> Path:
        return self.pinned.path

    def path(self, shard: Shard) -> Path:
        return self.pinned.inside / shard.name

    def check(self, splits: Iterable[str] = celeba.SPLITS) -> None:
        """Compares the size and sha256 of every shard of some splits.

        Raises:
          UserError: a shard is missing or another file than the manifest lists, or the
            dataset was replaced (exit 5); or one cannot be read (3).
        """
        shards = [shard for split in splits for shard in self.manifest.split(split)]
        with self.pinned.reading():
            for problem in thread_map(self._problem, shards, cores()):
                if problem:
                    raise self._integrity_error(f"{problem}.")

    def iterate(self, split: str, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields batches of a split; what damage there is, is named by its shard.

        Raises:
          UserError: a shard was damaged, cut or removed, or the dataset replaced, since
            it was opened (exit 5); or the system does not let it be read (3).
        """
        by_name = self.pinned.inside == self.folder
        try:
            for batch in batches:
                if by_name and self.pinned.is_replaced():
                    raise self.pinned.replaced()
                yield batch
        except tf.errors.OpError as error:
            if memory.ran_out(f"{type(error).__name__}: {error}"):
                raise
            self.check([split])
            reason = (error.message or type(error).__name__).splitlines()[0]
            reason = reason.replace(str(self.pinned.inside), str(self.folder))
            if isinstance(error, _OF_THE_SYSTEM):
                raise input_error(
                    f"{self.folder}: the {split} split cannot be read: {reason}.",
                    "Allow it (its permissions, or `ulimit -n`), then run it again.",
                ) from error
            raise self._integrity_error(
                f"{self.folder}: the {split} split cannot be read, though its shards "
                f"are those that the manifest lists: {reason}."
            ) from error

    def _problem(self, shard: Shard) -> str:
        file, path = self.path(shard), self.folder / shard.name
        with input_errors(path):
            if not file.is_file():
                return f"{path} is missing"
            if file.stat().st_size != shard.bytes:
                return f"{path} has {file.stat().st_size} bytes, not {shard.bytes}"
            try:
                if sha256_file(file) != shard.sha256:
                    return f"{path} is damaged: its sha256 differs from the manifest's"
            except OSError as error:
                error.filename = str(path)  # as the user knows it
                raise
        return ""

    def _integrity_error(self, cause: str) -> UserError:
        return UserError(
            cause,
            "Find out more with `python -m beam_pipelines.verify --dataset_dir="
            f"{self.folder}`, or build the dataset again.",
            ExitCode.INTEGRITY,
        )


def open_dataset(folder: str | Path, needed: Iterable[str] = celeba.SPLITS) -> Dataset:
    """Opens a dataset and checks every shard's size and sha256.

    Args:
      folder: its path.
      needed: the splits that must have examples.

    Raises:
      UserError: missing, unfinished or without examples in a needed split (exit 3);
        damaged or foreign, or replaced while it was read (exit 5).
    """
    folder, needed = Path(folder), list(needed)
    pinned = PinnedFolder(folder)
    manifest = dataset_manifest(folder)
    if pinned.is_replaced():  # of the next build, maybe
        return open_dataset(folder, needed)
    dataset = Dataset(pinned, manifest)
    dataset.check()
    for split in needed:
        if not manifest.num_examples(split):
            raise UserError(
                f"{folder} has no {split} examples.",
                "Build it with a fraction above 0 for this split.",
                ExitCode.INPUT_DATA,
            )
    return dataset


def splits_that_fit(manifest: Manifest, megabytes: int) -> tuple[str, ...]:
    """The splits whose decoded images fit into memory, of those that are read again.

    Validation images are kept only where the training images are.

    Args:
      manifest: of the dataset.
      megabytes: for decoded images; -1 is a quarter of the memory that is free now.
    """
    budget = (
        available_memory() // _CACHE_FRACTION
        if megabytes < 0
        else megabytes * 1_000_000
    )
    fit = []
    for split in _READ_AGAIN:
        size = manifest.num_examples(split) * int(np.prod(manifest.image_shape))
        if size > budget:  # the smaller ones save little without it
            break
        fit.append(split)
        budget -= size
    return tuple(fit)
