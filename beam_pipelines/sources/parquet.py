"""Copies of a data set on Hugging Face: Parquet files, an image with its labels a row.

Parquet stores each column apart, so a plan is made from the files' footers, their
attributes and the images' paths, and no image is read. The images of a plan are then
copied into a zip file, in one pass over the row groups; workers read that one.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_pipelines.sources import remote
from beam_pipelines.sources.annotations import Table
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.images import Listing
from beam_pipelines.sources.parquet_file import IMAGE, Part
from schemas import celeba
from schemas.dataset import DataSet
from support.errors import input_error
from support.files import input_errors, megabytes
from support.images import PNG, BadImage, png_to_jpeg
from support.pool import cores, thread_map

#: The command that makes a directory of them that every runner reads.
CONVERT = "python -m beam_pipelines.convert --celeba_dir={} --output_dir=NEW"

_DEPTHS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
_SPLIT = re.compile(r"(validation|valid|val|train|test)(?![a-z])", re.IGNORECASE)
_SPLITS = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}
_PART = re.compile(r"-(\d+)-of-(\d+)\b")  # as Hugging Face numbers files
_IDENTITIES = ("celeb_id", "identity")
_ENDINGS = (".jpg", ".jpeg", ".png", "")
_LONGEST_NAME = 255
_HIGHEST = 2**31 - 1  # of an identity
_AGAIN = "Download the file again."

_Images = list[tuple[bytes, bytes]]  # name and file of each


def find(folder: str) -> "ParquetSource | None":
    """Finds the Parquet files of one data set in a directory or up to two below.

    Raises:
      UserError: exit 3, if they are of several data sets or of no known split, cut, no
        Parquet files, or in a bucket.
    """
    if remote.is_remote(folder):
        if remote.match(f"{folder}/**.parquet", 1):
            raise input_error(
                f"{folder} contains Parquet files, which are read from disks only.",
                f"Copy them here, run {CONVERT.format('COPY')}, and upload NEW.",
            )
        return None
    with remote.read_errors(folder):
        found = [path for depth in _DEPTHS for path in Path(folder).glob(depth)]
    paths = [path.relative_to(folder) for path in found if not path.is_dir()]
    paths = [path for path in paths if not re.search(r"(^|/)\.", path.as_posix())]
    if not paths:
        return None
    splits = [_split_of(folder, path) for path in paths]
    groups = sorted({_group(path) for path in paths})
    if len(groups) > 1:
        raise input_error(
            f"{folder} contains several sets of Parquet files, in "
            f"{' and '.join(groups[:3])}.",
            "Give --celeba_dir one of these directories.",
        )
    order = sorted(zip(splits, paths, strict=True))
    parts = [Part(os.path.join(folder, path), split) for split, path in order]
    return ParquetSource(folder, tuple(parts))


def _split_of(folder: str, path: Path) -> int:
    """The place in `celeba.SPLITS` that a file's name, or its directory's, says."""
    for name in (path.name, path.parent.name):
        if match := _SPLIT.match(name):
            return _SPLITS[match[1].lower()]
    raise input_error(
        f"{os.path.join(folder, path)} does not say which split it is.",
        "Its name or its directory's must begin with train, validation or test.",
    )


def _group(path: Path) -> str:
    """The directory that a file shares with those of the other splits."""
    parent = path.parent
    return str(parent.parent if _SPLIT.match(parent.name) else parent)


@dataclasses.dataclass(frozen=True)
class ParquetSource:
    """The Parquet files of a data set: annotations, and images to be copied.

    Attributes:
      folder: where they were found.
      parts: the files, by split and name.
    """

    folder: str
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return self.folder

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.parts[0].schema.names)

    @property
    def identity(self) -> str | None:
        """The column that says who is shown, None if there is none."""
        return next((name for name in _IDENTITIES if name in self.columns), None)

    @property
    def has_splits(self) -> bool:
        """Whether the files are of more than one split."""
        return len({part.split for part in self.parts}) > 1

    @functools.cached_property
    def names(self) -> np.ndarray:
        """The name of every row's image; (rows,) bytes strings.

        Raises:
          UserError: exit 3, for names that are not possible or used twice.
        """
        names, count = [], [0] * len(celeba.SPLITS)
        for part in self.parts:
            for row, path in enumerate(part.paths()):
                made_up = f"{celeba.SPLITS[part.split]}-{count[part.split]}.jpg"
                name = _file_name(path) or made_up
                names.append(name.encode())
                hidden = name.startswith(".") or not name.isprintable()
                if hidden or len(names[-1]) > _LONGEST_NAME:
                    raise part.wrong(row, f"{IMAGE}.path", path, "a file's path")
                count[part.split] += 1
        if not names:
            raise input_error(f"The Parquet files in {self} have no rows.", _AGAIN)
        result = np.array(names, "S")
        order = np.argsort(result, kind="stable")
        same = np.flatnonzero(result[order][1:] == result[order][:-1])
        if len(same):
            first, second = (self._part(row) for row in order[same[0] :][:2])
            raise input_error(
                f"Two images are called {result[order[same[0]]].decode()}, in "
                f"{first.path} and {second.path}.",
                "Give --celeba_dir a copy whose images have different names, or none.",
            )
        return result

    def list(self) -> Listing:
        """The names; their sizes are unknown, 0, because no image is read."""
        return Listing(self.names, np.zeros(len(self.names), np.int64))

    def read_attributes(self, data_set: DataSet) -> Table:
        """The columns of attributes: true or 1 becomes 1; false, 0 or -1 becomes 0.

        Raises:
          UserError: exit 3, naming the file, the column and the row.
        """
        expected = list(data_set.attributes)
        self._check_complete(data_set)
        packed, low = [], {}
        for part in self.parts:
            table = part.read(expected)
            signs = np.stack([part.numbers(table, name, -1, 1) for name in expected])
            for value in (-1, 0):
                if (signs == value).any():
                    low.setdefault(value, part.path)
            packed.append(np.packbits(signs == 1, axis=0).T)
        if len(low) == 2:
            raise input_error(
                f"Attributes are both -1 (in {low[-1]}) and 0 (in {low[0]}).",
                "Give --celeba_dir a copy with one of the two.",
            )
        bits = np.concatenate(packed)
        spelling = "" if -1 in low else "values 0/1"
        name = f"{len(expected)} Parquet columns"
        return Table(self.names, bits, self._content(name, bits), spelling)

    def read_identities(self) -> Table:
        """The column of identities."""
        column = self.identity
        values = [
            part.numbers(part.read([column]), column, 0, _HIGHEST).astype(np.int32)
            for part in self.parts
        ]
        values = np.concatenate(values)
        return Table(
            self.names, values, self._content(f"Parquet column {column}", values)
        )

    def read_partition(self) -> Table:
        """The splits that the files' names say."""
        rows = [part.rows for part in self.parts]
        values = np.repeat([part.split for part in self.parts], rows).astype(np.int32)
        counts = np.bincount(values, minlength=len(celeba.SPLITS))
        ends = (0, *celeba.SPLIT_ENDS, celeba.IMAGE_COUNT)
        content = self._content("Parquet files' names", values)
        content["official"] = bool((counts == np.diff(ends)).all())
        return Table(self.names, values, content)

    def notes(self) -> Iterator[str]:
        """Says how many files there are, and of which splits some are missing."""
        size = megabytes(self.fingerprint()["bytes"])
        yield f"{len(self.parts):,} Parquet file(s), {size} of images"
        for split, name in enumerate(celeba.SPLITS):
            paths = [part.path for part in self.parts if part.split == split]
            numbers = [match for path in paths if (match := _PART.search(path))]
            total = max((int(match[2]) for match in numbers), default=0)
            if len(paths) < total:
                yield f"{name}: only {len(paths)} of {total} Parquet files are there."

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the files by their footers, without reading the images."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part.footer)
        sizes = [int(part.image_bytes().sum()) for part in self.parts]
        known = {"count": len(self.names), "bytes": sum(sizes)}
        return known | {"files": len(self.parts), "sha256": digest.hexdigest()}

    def versions(self) -> Sequence[Sequence[int]]:
        """Changes whenever a file does: sizes in bytes and times."""
        with input_errors(self.folder):
            states = [os.stat(part.path) for part in self.parts]
        return [[state.st_size, state.st_mtime_ns] for state in states]

    def expected_bytes(self, names: np.ndarray) -> int:
        """How many bytes the copies of some images will take, about.

        The first ones are read to learn what encoding them again makes of PNG images.
        """
        chosen, total = np.isin(self.names, names), 0.0
        for part, rows in self._split_up(chosen):
            counts = np.diff(np.concatenate([[0], np.cumsum(rows)])[part.bounds])
            shares = counts / np.maximum(np.diff(part.bounds), 1)
            total += (part.image_bytes() * shares).sum()
        sample = next(self._images(chosen), [])
        before = sum(len(data) for _, data in sample) or 1
        after = sum(len(png_to_jpeg(data)) for _, data in sample) or 1
        return int(total * after / before)

    def copy(
        self,
        names: np.ndarray,
        stream: Any,
        done: Callable[[int], Any] = lambda _: None,
    ) -> Sequence[str]:
        """Copies images into an uncompressed zip file, PNG encoded again as JPEG.

        Args:
          names: (any,) bytes strings, of images to copy.
          stream: the file to write the zip into.
          done: called with the number of images, after each few.

        Returns:
          the names of those that were PNG.

        Raises:
          UserError: exit 3, if a Parquet file is damaged.
        """
        encoded, images = [], self._images(np.isin(self.names, names))
        first = next(images, [])
        batches = itertools.chain([first], images)
        if any(data.startswith(PNG) for _, data in first):
            batches = thread_map(_to_jpegs, batches, ahead=2 * cores())
        else:  # threads would only cost: there may be some, but few
            batches = map(_to_jpegs, batches)
        with zipfile.ZipFile(stream, "w") as archive:
            for batch in batches:
                for name, data, was_png in batch:
                    archive.writestr(zipfile.ZipInfo(name.decode()), data)
                    encoded += [name.decode()] * was_png
                done(len(batch))
        return encoded

    def check_schemas(self, data_set: DataSet) -> None:
        """Checks that all files have the same columns, as far as those are read.

        Raises:
          UserError: exit 3, naming the file and the column.
        """
        first = self.parts[0]
        for part in self.parts:
            for name in (IMAGE, *_IDENTITIES, *data_set.attributes):
                kinds = [
                    each.schema.field(name).type if name in each.schema.names else None
                    for each in (first, part)
                ]
                if kinds[0] != kinds[1]:
                    shown = [
                        f"of the type {kind}" if kind else "missing" for kind in kinds
                    ]
                    raise input_error(
                        f"The column {name} is {shown[0]} in {first.path}, but "
                        f"{shown[1]} in {part.path}.",
                        "See that all files are of the same copy.",
                    )

    def _check_complete(self, data_set: DataSet) -> None:
        missing = [name for name in data_set.attributes if name not in self.columns]
        if missing:
            raise input_error(
                f"{self.parts[0].path}: of {len(data_set.attributes)} attributes "
                f"{len(missing)} are missing, such as {missing[0]}.",
                "Give --celeba_dir a copy with all, called as in CelebA's own list.",
            )

    def _images(self, chosen: np.ndarray) -> Iterator[_Images]:
        """Lists of name and bytes, of the chosen rows, in order."""
        start = 0
        for part, rows in self._split_up(chosen):
            for batch in part.images(rows) if rows.any() else ():
                yield [(self.names[start + row], data) for row, data in batch]
            start += part.rows

    def _split_up(self, values: np.ndarray) -> Iterator[tuple[Part, np.ndarray]]:
        """Each file with its part of (rows,) values."""
        ends = np.cumsum([part.rows for part in self.parts])
        return zip(self.parts, np.split(values, ends[:-1]), strict=True)

    def _part(self, row: int) -> Part:
        ends = np.cumsum([part.rows for part in self.parts])
        return self.parts[int(np.searchsorted(ends, row, "right"))]

    def _content(self, name: str, values: np.ndarray) -> dict[str, Any]:
        """What identifies annotations for the manifest, as of a file."""
        digest = hashlib.sha256(b"\n".join(self.names.tolist()))
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        known = {"file": name, "sha256": digest.hexdigest()}
        return known | {"rows": len(values), "official": False}


@dataclasses.dataclass(frozen=True)
class Copies:
    """Zip files that `ParquetSource.copy` wrote: each image is in one of them."""

    archives: tuple[ZipSource, ...]

    def read(self, name: str) -> bytes:
        """The bytes of one image; raises as `ImageSource.read` does."""
        holders = (archive for archive in self.archives if archive.member(name))
        archive = next(holders, None)
        if archive is None:
            raise BadImage("missing", "it was not copied")
        data = archive.read(name)
        if data.startswith(PNG):
            detail = "it is a PNG image that is damaged, transparent or of 16 bits"
            raise BadImage("not a JPEG", detail)
        return data


def _to_jpegs(batch: _Images) -> list[tuple[bytes, bytes, bool]]:
    """Name, file as JPEG, and whether it was encoded again, of each image."""
    encoded = [(name, data, png_to_jpeg(data)) for name, data in batch]
    return [(name, jpeg, jpeg is not data) for name, data, jpeg in encoded]


def _file_name(path: str) -> str:
    """The name for a path, as CelebA's lists have it: its last part, ending in .jpg."""
    base = re.split(r"[/\\]", path)[-1]
    stem, ending = os.path.splitext(base)
    if ending.lower() not in _ENDINGS:
        stem = base
    return f"{stem}.jpg" if stem else ""
