"""CelebA's annotation files, parsed by pyarrow's CSV reader; wrong lines are named.

It takes the CSV copies and, once runs of blanks are commas, the official lists.
"""

import dataclasses
import hashlib
import re

import numpy as np
import pyarrow as pa
from pyarrow.csv import ConvertOptions, ReadOptions, read_csv

from beam_pipelines.sources.files import File, name_foreign_file
from schemas import celeba
from schemas.dataset import DataSet
from support.errors import UserError, did_you_mean, input_error

_NAME = "image_id"  # the column of file names, in copies with a header
_LONGEST_NAME = 255
_HIGHEST = 10**9 - 1  # of an identity
_AGAIN = "Download the file again."
_ERROR = re.compile(  # of pyarrow
    r"(?:column #(?P<column>\d+): )?Row #(?P<row>\d+): "
    r"(?:Expected \d+ columns, got (?P<count>\d+)|.*invalid value '(?P<value>.*)')",
    re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Table:
    """An annotation file.

    Attributes:
      names: (rows,) bytes strings: the file name of each image.
      values: (rows,) int32, or for the attributes (rows, bytes) uint8: a bit for each.
      fingerprint: file name, sha256, rows, and whether it is the official file.
      spelling: how the values are written, if otherwise than in the official file.
    """

    names: np.ndarray
    values: np.ndarray
    fingerprint: dict[str, str | int | bool]
    spelling: str = ""

    def __len__(self) -> int:
        return len(self.names)


def read_attributes(path: File, data_set: DataSet, any_count: bool = False) -> Table:
    """Parses the table of attributes: values -1 and 1, or 0 and 1, become bits.

    Args:
      path: the file.
      data_set: names the attributes.
      any_count: whether the first line may announce another number of rows.

    Raises:
      UserError: exit 3, naming file and line.
    """
    text = _Text(path, header=True, any_count=any_count)
    low = "-1" if b",-1" in text.rows else "0"
    names, signs = text.parse(
        text.find_attributes(data_set),
        f"{low} or 1",
        pa.bool_(),
        true_values=["1"],
        false_values=[low],
    )
    notes = [] if low == "-1" or signs.all() else ["values 0/1"]
    if text.count not in (None, len(names)):
        notes.append(f"announced {text.count:,} rows")
    bits = np.packbits(signs, axis=0).T.copy()
    return Table(names, bits, text.fingerprint(len(names)), ", ".join(notes))


def read_numbers(path: File, highest: int = _HIGHEST) -> Table:
    """Parses a file of names and numbers: the partition or the identities.

    Args:
      path: the file.
      highest: the largest number that is allowed; the smallest is 0.

    Raises:
      UserError: exit 3, naming file and line.
    """
    text = _Text(path, header=False)
    places = text.values()
    if len(places) != 1:
        complaint = f"{len(places)} columns of numbers, expected 1"
        raise _line_error(path, text.first - 1, complaint)
    rule = f"a whole number from 0 to {highest}"
    names, (values,) = text.parse(places, rule, pa.uint32())
    if values.max() > highest:
        row = int((values > highest).argmax())
        raise text.error(row, text.wrong(str(values[row]), places[0], rule))
    return Table(names, values.astype(np.int32), text.fingerprint(len(names)))


def attribute_bits(packed: np.ndarray, index: int) -> np.ndarray:
    """One attribute of packed rows, by its place: (rows,) uint8, 0 or 1."""
    return packed[:, index >> 3] >> (7 - (index & 7)) & 1


class _Text:
    """An annotation file as text, with commas between words.

    Args:
      path: the file.
      header: whether one is required; otherwise one that names `image_id` is read.
      any_count: whether `count` may be wrong.

    Attributes:
      columns: their names; empty ones (of row numbers) are ignored.
      first: the number of the first row's line.
      count: of rows, as the first line announces it; None if it does not.
      rows: the bytes from there on.
    """

    def __init__(self, path: File, header: bool, any_count: bool = False):
        self._path, self._any_count = path, any_count
        data = _read(path)
        self._sha256 = hashlib.sha256(data).hexdigest()
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.first, self.count = 1, None
        line, data, rest = self._first_line(data)
        if line.strip().isdigit() and len(line) < 20:
            self.first, self.count = self.first + 1, int(line)
            line, data, _ = self._first_line(rest)
        self.rows = _with_commas(data, line)
        self.columns = [_NAME, "number"]
        if header or _NAME.encode() in line:
            line, _, self.rows = self.rows.partition(b"\n")
            self.first += 1
            self.columns = [word.strip() for word in line.decode().split(",")]
            if _NAME not in self.columns:  # as in the official lists
                if self.columns[0] == "":  # but R writes this one for names of rows
                    self.columns.pop(0)
                self.columns.insert(0, _NAME)

    def _first_line(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        """The first line that is not empty, all from there on, and what follows it."""
        text = data.lstrip(b"\n")
        self.first += len(data) - len(text)
        line, _, rest = text.partition(b"\n")
        return line, text, rest

    def values(self) -> list[int]:
        """Places of the columns of values."""
        columns = enumerate(self.columns)
        return [place for place, name in columns if name not in ("", _NAME)]

    def find_attributes(self, data_set: DataSet) -> list[int]:
        """Places of the attributes, each of which the header must name once."""
        names = [self.columns[place] for place in self.values()]
        expected = data_set.attributes
        missing = [name for name in expected if name not in names]
        strange = [name for name in names if name not in expected]
        line = self.first - 1
        if len(missing) == len(expected):
            complaint = "expected the header with the attribute names"
            raise _line_error(self._path, line, complaint)
        if strange:
            complaint = (
                f"{_show(strange[0])} is not an attribute of {data_set.about.name}"
            )
            remedy = did_you_mean(strange[0], expected)
            words = self.rows.partition(b"\n")[0].count(b",") + 1
            if self.columns[1] == strange[0] and words < len(self.columns):
                remedy = f"A CSV file's column of file names must be called {_NAME}."
            raise _line_error(self._path, line, complaint, remedy)
        if missing or len(names) != len(expected):
            complaint = f"of {len(expected)} attributes {len(missing)} are missing"
            complaint += (
                f", such as {missing[0]}" if missing else ", and one is doubled"
            )
            remedy = (
                "Download the file again, or describe a table with other attributes as "
                "a data set of its own (docs/extending.md)."
            )
            raise _line_error(self._path, line, complaint, remedy)
        return [self.columns.index(name) for name in expected]

    def parse(
        self, places: list[int], rule: str, kind: pa.DataType, **options: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Parses the rows.

        Args:
          places: of the columns of values.
          rule: what is expected of a value, for messages.
          kind: what a value is.
          **options: of pyarrow's conversion.

        Returns:
          names (rows,) bytes strings, and values (places, rows).

        Raises:
          UserError: exit 3, naming the wrong line.
        """
        if not self.rows.strip():
            raise input_error(f"{self._path} has no rows.", _AGAIN)
        numbers = [str(place) for place in range(len(self.columns))]
        used = [numbers[place] for place in (self.columns.index(_NAME), *places)]
        options |= {"include_columns": used, "null_values": []}
        kinds = dict.fromkeys(used, kind) | {used[0]: pa.binary()}
        try:
            table = read_csv(
                pa.BufferReader(self.rows),
                # With threads an error does not know its row.
                ReadOptions(use_threads=False, column_names=numbers),
                convert_options=ConvertOptions(column_types=kinds, **options),
            )
        except pa.ArrowInvalid as error:
            raise self._translate(str(error), rule) from error
        if not self._any_count and self.count not in (None, len(table)):
            raise input_error(
                f"{self._path}:1 announces {self.count:,} rows, but {len(table):,} "
                "follow.",
                "If it is not cut, but a part on purpose, add --allow_wrong_count.",
            )
        names = self._check_names(table[0].to_pylist())
        return names, np.stack([column.to_numpy() for column in table.columns[1:]])

    def _check_names(self, names: list[bytes]) -> np.ndarray:
        seen: dict[bytes, int] = {}
        for row, name in enumerate(names):
            if not 0 < len(name) <= _LONGEST_NAME:
                raise self.error(row, "the file name is empty or too long")
            if seen.setdefault(name, row) < row:
                complaint = f"{_show(name.decode())} was already on line"
                raise self.error(row, f"{complaint} {self._line(seen[name])}")
        return np.array(names, "S")

    def _translate(self, error: str, rule: str) -> UserError:
        """Says in our words, and by line, what pyarrow complains of."""
        found = _ERROR.search(error)
        if not found:
            what = " ".join(error.split())[:200]
            return input_error(f"{self._path} cannot be parsed: {what}.", _AGAIN)
        complaint = f"{found['count']} words, expected {len(self.columns)}"
        if found["count"] is None:
            complaint = self.wrong(found["value"], int(found["column"]), rule)
        return self.error(int(found["row"]) - 1, complaint)

    def wrong(self, value: str, place: int, rule: str) -> str:
        return f"value {_show(value)} for {self.columns[place]}, expected {rule}"

    def error(self, row: int, complaint: str) -> UserError:
        return _line_error(self._path, self._line(row), complaint)

    def _line(self, row: int) -> int:
        """The number of a row's line: empty ones are no rows."""
        lines = enumerate(self.rows.split(b"\n"), self.first)
        return [number for number, line in lines if line][row]

    def fingerprint(self, rows: int) -> dict[str, str | int | bool]:
        """What identifies the file, for the manifest."""
        official = celeba.OFFICIAL_FILES.get(self._sha256) == rows
        known = {"file": self._path.name, "sha256": self._sha256}
        return known | {"rows": rows, "official": official}


def _read(path: File) -> bytes:
    """The file without its byte order mark, if it is text."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    binary = "a binary file" if b"\0" in data else None
    foreign = name_foreign_file(data[:65_536]) or binary
    if foreign:
        raise input_error(
            f"{path} is not an annotation file but {foreign}.",
            "Fetch what it points to: git lfs pull, or git annex get."
            if "pointer" in foreign
            else "Download it again, later or in a browser.",
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _line_error(path, line, "the text is not UTF-8") from error
    return data


def _with_commas(data: bytes, line: bytes) -> bytes:
    """Puts commas between words, however the file's first `line` separates them."""
    if b";" in line:
        data = data.replace(b";", b",")
    elif b"," in line:
        data = data.replace(b", ", b",")
    else:
        data = data.translate(bytes.maketrans(b" \t", b",,"))
        while b",," in data:
            data = data.replace(b",,", b",")
        data = data.replace(b"\n,", b"\n").lstrip(b",")
    return data.replace(b",\n", b"\n").removesuffix(b",").replace(b'"', b"")


def _line_error(
    path: File,
    line: int,
    complaint: str,
    remedy: str = "Correct the line or download the file again.",
) -> UserError:
    return input_error(f"{path}:{line}: {complaint}.", remedy)


def _show(word: str) -> str:
    return repr(word[:40])
