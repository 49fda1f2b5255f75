"""Copies of a data set on Hugging Face: Parquet files, an image with its labels a row.

Parquet stores each column apart, so a plan is made from the files' footers, their
attributes and the images' paths, and no image is read. The images of a plan are then
copied into a zip file, in one pass over the row groups; workers read that one.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from beam_pipelines.sources import remote
from beam_pipelines.sources.annotations import Table
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import name_foreign_file
from beam_pipelines.sources.images import Listing
from schemas import celeba
from schemas.dataset import DataSet
from support.errors import UserError, input_error
from support.files import input_errors, megabytes
from support.images import (
    PNG,
    BadImage,
    check_size,
    encode_jpeg,
    orientation_of,
    upright,
)
from support.pool import cores, thread_map

#: The command that makes a directory of them that every runner reads.
CONVERT = "python -m beam_pipelines.convert --celeba_dir={} --output_dir=NEW"

_SPLIT = re.compile(r"(validation|valid|val|train|test)(?![a-z])", re.IGNORECASE)
_SPLITS = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}
_PART = re.compile(r"-(\d+)-of-(\d+)\b")  # as Hugging Face numbers files
_IMAGE, _IDENTITIES = "image", ("celeb_id", "identity")
_ENDINGS = (".jpg", ".jpeg", ".png", "")
_LONGEST_NAME = 255
_HIGHEST = 2**31 - 1  # of an identity
_MAGIC = b"PAR1"
_AGAIN = "Download the file again."

_Images = list[tuple[bytes, bytes]]  # name and file of each

#: Rows that are decoded together, and bytes of a column read at once: without the
#: buffer, pyarrow holds the whole column of a row group, 500 MB and more.
_ROWS, _BUFFER = 64, 1 << 16


def find(folder: str) -> "ParquetSource | None":
    """Finds the Parquet files of one data set in a directory, at any depth.

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
        found = sorted(Path(folder).rglob("*.parquet"))
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
class Part:
    """One of the files; `split` is its place in `celeba.SPLITS`."""

    path: str
    split: int

    @functools.cached_property
    def footer(self) -> bytes:
        """The bytes that describe the file, at its end.

        Raises:
          UserError: exit 3, if it is cut or no Parquet file.
        """
        with input_errors(self.path), open(self.path, "rb") as file:
            start = file.read(1 << 16)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            tail = file.read()
            begin = size - 8 - int.from_bytes(tail[:4], "little")
            if start.startswith(_MAGIC) and tail[4:] == _MAGIC and begin > 0:
                file.seek(begin)
                return file.read(size - 8 - begin)
        if start.startswith(_MAGIC):
            cause = f"is cut: {megabytes(size)} without the description at its end"
            raise input_error(f"{self.path} {cause}.", _AGAIN)
        what = name_foreign_file(start) or "something else"
        raise input_error(
            f"{self.path} is not a Parquet file but {what}.",
            "Fetch what it points to: git lfs pull." if "pointer" in what else _AGAIN,
        )

    @functools.cached_property
    def metadata(self) -> pq.FileMetaData:
        """The footer, decoded."""
        if not self.footer:
            raise self._damaged("its description is empty")
        with self.errors():
            return pq.read_metadata(self.path)

    @functools.cached_property
    def bounds(self) -> np.ndarray:
        """The first row of each row group, and the number of rows; int64."""
        groups = range(self.metadata.num_row_groups)
        rows = [self.metadata.row_group(group).num_rows for group in groups]
        return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    @property
    def rows(self) -> int:
        return int(self.bounds[-1])

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """The columns and their types, if there are images among them.

        Raises:
          UserError: exit 3, if there are none.
        """
        with self.errors():
            schema = pq.ParquetFile(self.path, metadata=self.metadata).schema_arrow
        if schema.get_field_index(_IMAGE) < 0:
            names = ", ".join(schema.names[:4]) + ", ..." * (len(schema.names) > 4)
            raise input_error(
                f"{self.path} has no column {_IMAGE}, but {names or 'none'}.",
                "Give --celeba_dir a copy that contains the images.",
            )
        kind = schema.field(_IMAGE).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise input_error(
                f"{self.path}: the column {_IMAGE} is of the type {kind}, expected "
                "bytes, or a struct of bytes and path.",
                "Give --celeba_dir a copy that contains the images' files.",
            )
        return schema

    def column(self, of: str) -> str:
        """The full name of the images' "bytes" or "path"; "" if there is no such."""
        kind = self.schema.field(_IMAGE).type
        if not pa.types.is_struct(kind):
            return _IMAGE if of == "bytes" else ""
        return f"{_IMAGE}.{of}" if kind.get_field_index(of) >= 0 else ""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows of some columns.

        Raises:
          UserError: exit 3, if they are damaged.
        """
        with self.errors():
            file = pq.ParquetFile(self.path, metadata=self.metadata)
            table = file.read(columns=list(columns))
        if len(table) != self.rows:
            raise self._damaged(f"{self.rows:,} rows are announced, not {len(table):,}")
        return table

    def numbers(self, table: pa.Table, name: str, low: int, high: int) -> np.ndarray:
        """A column of `table` as whole numbers (rows,).

        Raises:
          UserError: exit 3, for a row without a number from `low` to `high`.
        """
        column = table[name]
        if not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type)):
            raise input_error(
                f"{self.path}: the column {name} is of the type {column.type}, "
                "expected true and false, or whole numbers.",
                "Give --celeba_dir another copy.",
            )
        bad = column.is_null().to_numpy()
        values = pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0)
        values = values.to_numpy()
        bad |= (values < low) | (values > high)
        if bad.any():
            row = int(bad.argmax())
            raise self.wrong(row, name, column[row].as_py(), f"{low} to {high}")
        return values

    def wrong(self, row: int, name: str, value: Any, rule: str) -> UserError:
        """Complains of a value; rows count from 0, as in made-up names."""
        found = "nothing" if value is None else repr(value)[:40]
        return input_error(
            f"{self.path}, row {row:,}: {found} for {name}, expected {rule}.",
            "Correct the file or download it again.",
        )

    def paths(self) -> list[str]:
        """The path of each row's image, "" where none is given."""
        column = self.column("path")
        if not column:
            return [""] * self.rows
        images = self.read([column])[_IMAGE]
        with self.errors():
            return [path or "" for path in pc.struct_field(images, "path").to_pylist()]

    def image_bytes(self) -> np.ndarray:
        """How many bytes the images of each row group take, about; (groups,) int64."""
        name, sizes = self.column("bytes"), []
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            columns = map(group.column, range(group.num_columns))
            found = [each for each in columns if each.path_in_schema == name]
            sizes.append(found[0].total_uncompressed_size)
        return np.array(sizes, np.int64)

    def images(self, chosen: np.ndarray) -> Iterator[list[tuple[int, bytes]]]:
        """Reads the images of the chosen rows, in lists of row and bytes.

        Row groups without any are skipped; of the others a few rows are held at once.

        Args:
          chosen: (rows,) bool.

        Raises:
          UserError: exit 3, if the file is damaged.
        """
        begins, column = self.bounds, self.column("bytes")
        with self.errors():
            file = pq.ParquetFile(
                self.path,
                metadata=self.metadata,
                buffer_size=_BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        with file:
            for group, start in enumerate(begins[:-1].tolist()):
                if not chosen[start : begins[group + 1]].any():
                    continue
                batches = file.iter_batches(_ROWS, [group], [column], use_threads=False)
                while (batch := self._next(batches)) is not None:
                    rows = np.flatnonzero(chosen[start : start + len(batch)]).tolist()
                    images = batch.column(0)
                    if pa.types.is_struct(images.type):
                        images = pc.struct_field(images, "bytes")
                    # No bytes become an empty file, which the writers reject by name.
                    yield [(start + row, images[row].as_py() or b"") for row in rows]
                    start += len(batch)

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        with self.errors():
            return next(batches, None)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what pyarrow raises for a damaged file into an error, exit 3."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> UserError:
        what = " ".join(what.split())[:200].rstrip(".")
        return input_error(f"{self.path} is damaged: {what}.", _AGAIN)


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
                if name.startswith(".") or "\0" in name or len(name) > _LONGEST_NAME:
                    raise part.wrong(row, f"{_IMAGE}.path", path, "a file's path")
                names.append(name.encode())
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
        after = sum(len(to_jpeg(data)) for _, data in sample) or 1
        return int(total * after / before)

    def copy(
        self,
        names: np.ndarray,
        stream: Any,
        done: Callable[[int], Any] = lambda _: None,
    ) -> int:
        """Copies images into an uncompressed zip file, PNG encoded again as JPEG.

        Args:
          names: (any,) bytes strings, of images to copy.
          stream: the file to write the zip into.
          done: called with the number of images, after each few.

        Returns:
          how many were PNG.

        Raises:
          UserError: exit 3, if a Parquet file is damaged.
        """
        encoded, chosen = 0, np.isin(self.names, names)
        batches = self._images(chosen)
        if any(data.startswith(PNG) for _, data in next(self._images(chosen), [])):
            batches = thread_map(_to_jpegs, batches, ahead=2 * cores())
        else:  # threads would only cost: there may be some, but few
            batches = map(_to_jpegs, batches)
        with zipfile.ZipFile(stream, "w") as archive:
            for batch in batches:
                for name, data, was_png in batch:
                    archive.writestr(zipfile.ZipInfo(name.decode()), data)
                    encoded += was_png
                done(len(batch))
        return encoded

    def check_schemas(self, data_set: DataSet) -> None:
        """Checks that all files have the same columns, as far as those are read.

        Raises:
          UserError: exit 3, naming the file and the column.
        """
        first = self.parts[0]
        for part in self.parts:
            for name in (_IMAGE, *_IDENTITIES, *data_set.attributes):
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
        holder = next((zip for zip in self.archives if zip.member(name)), None)
        if holder is None:
            raise BadImage("missing", "it was not copied")
        data = holder.read(name)
        if data.startswith(PNG):
            detail = "it is a PNG image that is damaged, transparent or of 16 bits"
            raise BadImage("not a JPEG", detail)
        return data


def to_jpeg(data: bytes) -> bytes:
    """Encodes a PNG image as JPEG; leaves all else, and PNG that is damaged, as it is.

    Grayscale stays grayscale; an EXIF orientation is applied.
    """
    if not data.startswith(PNG):
        return data
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_size(image.height, image.width)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema()[0] < 255:
                    return data
            if image.mode.startswith("I"):  # of 16 bits
                return data
            gray = image.mode in ("1", "L", "LA")
            pixels = np.asarray(image.convert("L" if gray else "RGB"))
    except Exception:  # whatever Pillow raises for a damaged file
        return data
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return encode_jpeg(upright(pixels, orientation_of(data)))


def _to_jpegs(batch: _Images) -> list[tuple[bytes, bytes, bool]]:
    """Name, file as JPEG, and whether it was encoded again, of each image."""
    encoded = [(name, data, to_jpeg(data)) for name, data in batch]
    return [(name, jpeg, jpeg is not data) for name, data, jpeg in encoded]


def _file_name(path: str) -> str:
    """The name for a path, as CelebA's lists have it: its last part, ending in .jpg."""
    base = re.split(r"[/\\]", path)[-1]
    stem, ending = os.path.splitext(base)
    if ending.lower() not in _ENDINGS:
        stem = base
    return f"{stem}.jpg" if stem else ""
