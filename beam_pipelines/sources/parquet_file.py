"""One Parquet file: its footer, its columns, its images, row group by row group."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_pipelines.sources.files import name_foreign_file
from support.errors import UserError, input_error
from support.files import input_errors, megabytes

#: The column of images: their bytes, or a struct of their bytes and path.
IMAGE = "image"

_MAGIC = b"PAR1"
_AGAIN = "Download the file again."

#: Rows that are decoded together, and bytes of a column read at once: without the
#: buffer, pyarrow holds the whole column of a row group, 500 MB and more.
_ROWS, _BUFFER = 64, 1 << 16


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
            str(schema)  # decodes all names
        if len({*schema.names}) < len(schema.names):
            raise self._damaged("two of its columns have one name")
        if schema.get_field_index(IMAGE) < 0:
            names = ", ".join(schema.names[:4]) + ", ..." * (len(schema.names) > 4)
            raise input_error(
                f"{self.path} has no column {IMAGE}, but {names or 'none'}.",
                "Give --celeba_dir a copy that contains the images.",
            )
        kind = schema.field(IMAGE).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise input_error(
                f"{self.path}: the column {IMAGE} is of the type {kind}, expected "
                "bytes, or a struct of bytes and path.",
                "Give --celeba_dir a copy that contains the images' files.",
            )
        return schema

    def column(self, of: str) -> str:
        """The full name of the images' "bytes" or "path"; "" if there is no such."""
        kind = self.schema.field(IMAGE).type
        if not pa.types.is_struct(kind):
            return IMAGE if of == "bytes" else ""
        return f"{IMAGE}.{of}" if kind.get_field_index(of) >= 0 else ""

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
        if missing := {name.partition(".")[0] for name in columns} - {
            *table.schema.names
        }:
            raise self._damaged(f"it describes {min(missing)} in two ways")
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
        images = self.read([column])[IMAGE]
        with self.errors():
            paths = pc.struct_field(images, "path").cast(pa.string())  # some are bytes
            return [path or "" for path in paths.to_pylist()]

    def image_bytes(self) -> np.ndarray:
        """How many bytes the images of each row group take, about; (groups,) int64."""
        data, schema = self.metadata, self.metadata.schema
        with self.errors():
            paths = [schema.column(index).path for index in range(len(schema))]
            # pyarrow aborts the program at the statistics of a damaged footer.
            column = paths.index(self.column("bytes"))
            groups = map(data.row_group, range(data.num_row_groups))
            sizes = [group.column(column).total_uncompressed_size for group in groups]
        return np.array(sizes, np.int64)

    def images(self, chosen: np.ndarray) -> Iterator[list[tuple[int, bytes]]]:
        """Reads the images of the chosen rows, in lists, never empty, of row and bytes.

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
                    if rows:
                        yield [(start + at, images[at].as_py() or b"") for at in rows]
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
