"""A dataset folder: opened and checked, its examples read by number.

Only what the manifest lists is read. The positions of all records are noted when a
split is first used, so any order and any place in it costs nothing: no buffer has to be
filled first, and none is held; files that are read again lie in the system's cache.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schemas import celeba
from schemas import example as example_schema
from schemas import manifest as manifest_schema
from schemas.example import Example
from schemas.manifest import Manifest, Shard
from support import framing, images
from support.documents import MOST_JSON_BYTES, DocumentError, read_text
from support.errors import ExitCode, UserError
from support.files import sha256_file
from support.hardware import available_memory
from trainer.buffers import Buffers

#: The splits that are read more than once, in the order in which memory is given.
_READ_AGAIN = ("train", "validation")
_OPEN_FILES = 256
#: The model, the system's cache of files and other programs need memory, too.
_CACHE_SHARE = 4
#: What reading an example may meet.
_PROBLEMS = (
    framing.DamagedRecord,
    example_schema.DecodeError,
    images.BadImage,
    OSError,
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset folder whose files are those that its manifest lists.

    Attributes:
      folder: where it lies.
      manifest: what it holds.
      cached: the splits whose decoded images stay in memory.
      buffers: memory for its batches.
    """

    folder: Path
    manifest: Manifest
    cached: tuple[str, ...] = ()
    buffers: Buffers = dataclasses.field(
        default_factory=Buffers, init=False, repr=False, compare=False
    )
    _splits: dict[str, "Split"] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def split(self, name: str) -> "Split":
        """The examples of one split; always the same object.

        Raises:
          UserError: a shard is no longer what it was when it was checked (exit 5).
        """
        if name not in self._splits:
            self._splits[name] = Split(
                self.folder,
                self.manifest.split(name),
                self.manifest.image_shape,
                name in self.cached,
            )
        return self._splits[name]


def open_dataset(
    folder: str | Path, cache_bytes: int = 0, needed: Iterable[str] = celeba.SPLITS
) -> Dataset:
    """Opens a dataset and checks every shard's size and sha256.

    Args:
      folder: the dataset's.
      cache_bytes: memory for decoded images. A split that fits into what is left of it
        is decoded once, and kept; what is read does not depend on it.
      needed: the splits that must hold examples.

    Raises:
      UserError: missing, unfinished or without examples in a needed split (exit 3);
        damaged or foreign (exit 5).
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
        manifest = Manifest.from_json(read_text(path, MOST_JSON_BYTES))
    except (manifest_schema.ManifestError, DocumentError) as error:
        raise UserError(
            f"{path}: {str(error).rstrip('.')}.",
            "Build the dataset again.",
            ExitCode.INTEGRITY,
        ) from error
    for shard in manifest.shards:
        _check_shard(folder, shard)
    for split in needed:
        if not manifest.num_examples(split):
            raise UserError(
                f"{folder} has no {split} examples.",
                "Build it with a fraction above 0 for this split.",
                ExitCode.INPUT_DATA,
            )
    return Dataset(folder, manifest, _splits_that_fit(manifest, cache_bytes))


def cache_budget(megabytes: int) -> int:
    """The bytes that --cache_mb means: -1 is a quarter of what is available now."""
    if megabytes < 0:
        return available_memory() // _CACHE_SHARE
    return megabytes * 1_000_000


class Split:
    """The examples of a split by number: those of the first shard first.

    Threads may read at the same time.

    Attributes:
      shards: as the manifest lists them.
      starts: the number of each shard's first example; at last that of all examples.
      image_shape: (height, width, 3) of every image, pixels.
    """

    def __init__(
        self,
        folder: Path,
        shards: tuple[Shard, ...],
        image_shape: tuple[int, int, int],
        cached: bool,
    ):
        self.shards = shards
        self.starts = [0, *itertools.accumulate(shard.records for shard in shards)]
        self.image_shape = image_shape
        self._paths = [folder / shard.name for shard in shards]
        self._open = functools.lru_cache(_OPEN_FILES)(
            lambda shard: _File(self._paths[shard])
        )
        self._places = np.concatenate(
            [self._locate(index) for index in range(len(shards))]
        )
        self._known: list[_Known | None] = [None] * len(self)
        # Takes no memory before it is written to.
        self._pixels = np.empty((len(self) if cached else 0, *image_shape), np.uint8)
        self._has_pixels = bytearray(len(self._pixels))

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, number: int) -> Example:
        """One example, from its file.

        Raises:
          UserError: the record is damaged or cannot be read (exit 5).
        """
        try:
            return example_schema.decode(self._read_record(number))
        except _PROBLEMS as error:
            raise self._named(error, number) from error

    def load(self, number: int, out: np.ndarray) -> Example:
        """Decodes an example's image into `out`, or copies it from memory.

        Args:
          number: of the example.
          out: (height, width, 3) uint8, filled with RGB 0..255.

        Returns:
          the example; the file of a cached image is left out of it.

        Raises:
          UserError: the record or its JPEG is damaged (exit 5).
        """
        cached = number < len(self._has_pixels)
        if cached and self._has_pixels[number]:
            out[...] = self._pixels[number]
            return self._known[number].example
        try:
            jpeg = self._read_jpeg(number)
            shape = images.decode_rgb(jpeg, out).shape
            if shape != self.image_shape:
                raise images.BadImage("size", f"{shape[0]}x{shape[1]} pixels")
        except _PROBLEMS as error:
            raise self._named(error, number) from error
        if cached:
            self._pixels[number] = out
            self._has_pixels[number] = True  # last: it says that the pixels are there
        return self._known[number].example

    def will_need(self, shards: Iterable[int]) -> None:
        """Asks the system to read some shards ahead, in one piece each."""
        if not hasattr(os, "posix_fadvise"):
            return
        for shard in shards:
            with contextlib.suppress(OSError):  # reading will name it
                file = self._open(shard)
                os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_WILLNEED)

    def _read_jpeg(self, number: int) -> memoryview:
        """An example's JPEG; the record around it is parsed the first time only."""
        known = self._known[number]
        if known is None:
            record = self._read_record(number)
            known = self._known[number] = _Known.of(record)
        else:
            file, *where = self._where(number)
            record = framing.read_again(file.descriptor, *where, known.checksum)
        return memoryview(record)[known.jpeg]

    def _read_record(self, number: int) -> bytes:
        file, *where = self._where(number)
        return framing.read_record(file.descriptor, *where)

    def _where(self, number: int) -> tuple["_File", int, int, int]:
        """A record's file, offset and length there, and its index in the shard."""
        shard, index = self._shard_and_index(number)
        at, length = self._places[number].tolist()
        return self._open(shard), at, length, index

    def _named(self, error: Exception, number: int) -> UserError:
        """The error that says which shard and record is damaged."""
        shard, index = self._shard_and_index(number)
        if isinstance(error, framing.DamagedRecord):
            what = str(error)
        elif isinstance(error, example_schema.DecodeError):
            what = f"record {index}: {error}"
        elif isinstance(error, images.BadImage):
            name = self._known[number].example.image_id
            what = f"record {index} ({name}): {error.reason}, {error.detail}"
        else:
            what = error.strerror or str(error)
        return _damaged(self._paths[shard], what)

    def _shard_and_index(self, number: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self.starts, number) - 1
        return shard, number - self.starts[shard]

    def _locate(self, shard: int) -> np.ndarray:
        """Offsets and lengths of a shard's records, bytes, (records, 2) int64."""
        path, expected = self._paths[shard], self.shards[shard].records
        try:
            file = self._open(shard)
            places = list(framing.locate_records(file.descriptor))
        except framing.DamagedRecord as error:
            raise _damaged(path, str(error)) from error
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error
        if len(places) != expected:
            raise _damaged(path, f"{len(places)} records, not {expected}")
        return np.array(places, np.int64).reshape(-1, 2)


class _Known(NamedTuple):
    """What was found in a record when it was parsed: it is not parsed again.

    Attributes:
      example: without its image.
      jpeg: where the image lies in the record.
      checksum: of the record.
    """

    example: Example
    jpeg: slice
    checksum: int

    @classmethod
    def of(cls, record: bytes) -> "_Known":
        """Raises DecodeError if the record is no example."""
        example = example_schema.decode(record)
        start = record.index(example.image)
        return cls(
            dataclasses.replace(example, image=b""),
            slice(start, start + len(example.image)),
            framing.checksum(record),
        )


class _File:
    """A file opened for reading, closed when nobody refers to it.

    Who reads must hold it: where other threads open many more, this one is forgotten.
    """

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


def read_images(
    dataset: Dataset, split: str, image_ids: Iterable[str]
) -> dict[str, bytes]:
    """The JPEG files of some examples, by image_id."""
    wanted, examples = set(image_ids), dataset.split(split)
    found = {}
    for number in range(len(examples)):
        example = examples.read(number)
        if example.image_id in wanted:
            found[example.image_id] = example.image
    return found


def _splits_that_fit(manifest: Manifest, budget: int) -> tuple[str, ...]:
    fit = []
    for split in _READ_AGAIN:
        size = manifest.num_examples(split) * int(np.prod(manifest.image_shape))
        if size <= budget:
            fit.append(split)
            budget -= size
    return tuple(fit)


def _check_shard(folder: Path, shard: Shard) -> None:
    path = folder / shard.name
    if not path.is_file():
        problem = "is missing"
    elif path.stat().st_size != shard.bytes:
        problem = f"has {path.stat().st_size} bytes, not {shard.bytes}"
    elif sha256_file(path) != shard.sha256:
        problem = "is damaged: its sha256 differs from the manifest's"
    else:
        return
    raise _integrity_error(f"{path} {problem}.", folder)


def _damaged(path: Path, what: str) -> UserError:
    return _integrity_error(
        f"{path} was damaged after it was opened: {what}.", path.parent
    )


def _integrity_error(cause: str, folder: Path) -> UserError:
    return UserError(
        cause,
        f"Find out more with `python -m beam_pipelines.verify --dataset_dir={folder}`, "
        "or build the dataset again.",
        ExitCode.INTEGRITY,
    )
