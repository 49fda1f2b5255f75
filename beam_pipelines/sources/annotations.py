"""CelebA's annotation files: parsed fast, and blamed by line when wrong.

Tokens are found with array operations over blocks of the file, commas counting as
blanks, so that the official text files and CSV copies of them take one path. Only when
that fails are the lines read one by one, to name the first that is wrong.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from schemas import celeba
from support.errors import ExitCode, UserError, did_you_mean
from support.folders import InputFile, name_foreign_file

_BLOCK = 4 << 20
_LONGEST_NAME = 255
_DIGITS = 9  # of an identity or a split code: fits int32


@dataclasses.dataclass(frozen=True)
class Table:
    """An annotation file.

    Attributes:
      names: (rows,) bytes strings: the file name of each image.
      values: (rows,) int32, or for the attributes (rows, 5) uint8: 40 bits per row.
      fingerprint: file name, sha256, rows, and whether it is the official file.
      spelling: how the values are written, if otherwise than in the official file.
    """

    names: np.ndarray
    values: np.ndarray
    fingerprint: dict[str, str | int | bool]
    spelling: str = ""

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class _Format:
    """What a line holds: `width` words, the first a file name; `parse` the others."""

    width: int
    parse: Callable[["_Words"], np.ndarray | None]
    complain: Callable[[list[bytes]], str | None]


def read_attributes(path: InputFile) -> Table:
    """Parses `list_attr_celeba.txt`: values -1 and 1, or 0 and 1, become bits 0 and 1.

    Raises:
      UserError: exit 3, naming file and line.
    """
    data = _read(path)
    start, line, count = _skip_count(data)
    header, start, line = _next_line(data, start, line)
    columns = header.replace(b",", b" ").split()
    if columns[:1] == [b"image_id"]:
        columns = columns[1:]
    order = _column_order(path, line - 1, columns)

    signs = _Signs(order)
    kind = _Format(1 + len(order), signs.parse, signs.complain)
    table = _parse(path, data, start, line, count, kind)
    return dataclasses.replace(table, spelling="values 0/1" if signs.low == "0" else "")


def read_numbers(path: InputFile, highest: int = 10**_DIGITS - 1) -> Table:
    """Parses a file of names and numbers: the partition or the identities.

    Args:
      path: the file.
      highest: the largest number that is allowed; the smallest is 0.

    Raises:
      UserError: exit 3, naming file and line.
    """
    data = _read(path)
    start, line, count = _skip_count(data)
    header, after, next_line = _next_line(data, start, line)
    if header.startswith(b"image_id"):
        start, line = after, next_line

    def parse(words: _Words) -> np.ndarray | None:
        values = words.numbers()
        if values is None or values.max(initial=0) > highest:
            return None
        return values

    def complain(words: list[bytes]) -> str | None:
        digits = words[1].isdigit() and len(words[1]) <= _DIGITS
        if digits and int(words[1]) <= highest:
            return None
        return f"{_show(words[1])} is not a whole number from 0 to {highest}"

    kind = _Format(2, parse, complain)
    return _parse(path, data, start, line, count, kind)


def attribute_bits(packed: np.ndarray, attribute: str) -> np.ndarray:
    """One attribute of packed rows: (rows,) uint8, 0 or 1."""
    index = celeba.ATTRIBUTES.index(attribute)
    return packed[:, index >> 3] >> (7 - (index & 7)) & 1


class _Words:
    """The words of a block of lines, as positions in its bytes."""

    def __init__(self, text: np.ndarray, starts: np.ndarray, ends: np.ndarray):
        self.text = text
        self.starts = starts  # (lines, words)
        self.ends = ends

    @classmethod
    def split(cls, block: bytes, width: int) -> "_Words | None":
        """Splits whole lines into words; None unless every line has `width`."""
        text = np.frombuffer(b"\n" + block + b"\n", np.uint8)
        blank = (text <= ord(" ")) | (text == ord(","))
        edges = np.flatnonzero(blank[1:] != blank[:-1]) + 1
        starts, ends = edges[::2], edges[1::2]
        if len(starts) % width:
            return None
        line_ends = np.flatnonzero(text == ord("\n"))
        words_per_line = np.diff(np.searchsorted(starts, line_ends))
        if not np.isin(words_per_line, (0, width)).all():
            return None
        return cls(text, starts.reshape(-1, width), ends.reshape(-1, width))

    def names(self) -> np.ndarray | None:
        start = self.starts[:, 0]
        size = self.ends[:, 0] - start
        longest = int(size.max(initial=1))
        if longest > _LONGEST_NAME:
            return None
        columns = np.arange(longest)
        where = np.minimum(start[:, None] + columns, len(self.text) - 1)
        letters = np.where(columns < size[:, None], self.text[where], 0)
        return letters.astype(np.uint8).view(f"S{longest}")[:, 0]

    def signs(self, low: str) -> np.ndarray | None:
        """(lines, words - 1) bool of the words `low` and 1; None if another is there.

        Args:
          low: "-1" or "0".
        """
        start, end = self.starts[:, 1:], self.ends[:, 1:]
        size, first = end - start, self.text[start]
        positive = (size == 1) & (first == ord("1"))
        negative = (size == len(low)) & (first == ord(low[0]))
        if low == "-1":
            negative &= self.text[end - 1] == ord("1")
        return positive if (positive | negative).all() else None

    def numbers(self) -> np.ndarray | None:
        """(lines,) int32 of the second word; None if one is not a whole number."""
        start = self.starts[:, 1]
        size = self.ends[:, 1] - start
        if size.max(initial=1) > _DIGITS:
            return None
        value = np.zeros(len(start), np.int32)
        for column in range(int(size.max(initial=0))):
            inside = column < size
            digit = self.text[np.where(inside, start + column, 0)].astype(np.int32)
            digit -= ord("0")
            if ((digit < 0) | (digit > 9))[inside].any():
                return None
            value = np.where(inside, value * 10 + digit, value)
        return value


class _Signs:
    """The attributes' values: -1 and 1 or, in copies, 0 and 1, throughout a file.

    Attributes:
      low: what stands for "not" in this file; empty until a line shows it.
    """

    def __init__(self, order: np.ndarray):
        self.order = order  # where each official attribute stands in a line
        self.low = ""
        self._seen = b""  # the same while lines are read one by one

    def parse(self, words: _Words) -> np.ndarray | None:
        for low in (self.low,) if self.low else ("-1", "0"):
            signs = words.signs(low)
            if signs is not None:
                self.low = self.low or ("" if signs.all() else low)
                return np.packbits(signs[:, self.order], axis=1)
        return None

    def complain(self, words: list[bytes]) -> str | None:
        """What is wrong with a line, given those before it one by one."""
        for column, word in enumerate(words[1:], 1):
            if not self._seen and word in (b"-1", b"0"):
                self._seen = word
            if word not in (b"1", self._seen):
                low = self._seen.decode() or "-1"
                return f"value {_show(word)} in column {column}, expected {low} or 1"
        return None


def _parse(
    path: InputFile,
    data: bytes,
    start: int,
    line: int,
    count: int | None,
    kind: _Format,
) -> Table:
    names, values = [], []
    for block in _blocks(data, start):
        words = _Words.split(block, kind.width)
        name = None if words is None else words.names()
        value = None if name is None else kind.parse(words)
        if value is None:
            _blame(path, data, start, line, kind)
        names.append(name)
        values.append(value)
    rows = sum(len(part) for part in names)
    if not rows:
        raise _input_error(f"{path} has no rows.", "Download the file again.")
    if count not in (None, rows):
        raise _input_error(
            f"{path}:1 announces {count:,} rows, but {rows:,} follow.",
            "The file is cut or edited: download it again, or correct the first line.",
        )
    joined = np.concatenate(names)
    if _has_duplicates(joined):
        _blame(path, data, start, line, kind)
    return Table(joined, np.concatenate(values), _fingerprint(path, data, rows))


def _blocks(data: bytes, start: int) -> Iterator[bytes]:
    """Cuts the file at line ends, so that memory does not grow with its size."""
    while start < len(data):
        end = data.find(b"\n", start + _BLOCK)
        end = len(data) if end < 0 else end + 1
        yield data[start:end]
        start = end


def _blame(path: InputFile, data: bytes, start: int, line: int, kind: _Format) -> None:
    """Reads line by line and raises for the first wrong one."""
    seen: dict[bytes, int] = {}
    for number, text in enumerate(data[start:].split(b"\n"), line):
        words = text.replace(b",", b" ").split()
        if not words:
            continue
        complaint = kind.complain(words) if len(words) == kind.width else None
        if len(words) != kind.width:
            complaint = f"{len(words)} words, expected {kind.width}"
        elif len(words[0]) > _LONGEST_NAME:
            complaint = "the file name is too long"
        elif words[0] in seen:
            complaint = f"{_show(words[0])} was already on line {seen[words[0]]}"
        if complaint:
            raise _line_error(path, number, complaint)
        seen[words[0]] = number
    raise _input_error(f"{path} cannot be parsed.", "Download the file again.")


def _column_order(path: InputFile, line: int, columns: list[bytes]) -> np.ndarray:
    """Where each official attribute stands in the file's header."""
    names = [column.decode(errors="replace") for column in columns]
    missing = [name for name in celeba.ATTRIBUTES if name not in names]
    if len(missing) == len(celeba.ATTRIBUTES):
        raise _line_error(path, line, "expected the header with the attribute names")
    strange = [name for name in names if name not in celeba.ATTRIBUTES]
    if strange:
        raise _input_error(
            f"{path}:{line}: {strange[0]!r} is not an attribute of CelebA.",
            did_you_mean(strange[0], celeba.ATTRIBUTES),
        )
    if missing or len(names) != len(celeba.ATTRIBUTES):
        what = f"{missing[0]} is missing" if missing else "an attribute is doubled"
        raise _line_error(path, line, f"the header is incomplete: {what}")
    return np.array([names.index(name) for name in celeba.ATTRIBUTES])


def _has_duplicates(names: np.ndarray) -> bool:
    if (names[1:] > names[:-1]).all():  # sorted, as the official files are
        return False
    ordered = np.sort(names)
    return bool((ordered[1:] == ordered[:-1]).any())


def _read(path: InputFile) -> bytes:
    """The file without its byte order mark, if it is text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _input_error(
            f"{path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    foreign = name_foreign_file(data[:65_536])
    if foreign:
        raise _input_error(
            f"{path} is not an annotation file but {foreign}.",
            f"Download it again, later or in a browser, from {celeba.HOME_PAGE}.",
        )
    if not data.strip():
        raise _input_error(f"{path} is empty.", "Download the file again.")
    if b"\0" in data[:65_536]:
        raise _input_error(f"{path} is not a text file.", "Download the file again.")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _line_error(path, line, "the text is not UTF-8") from error
    return data


def _skip_count(data: bytes) -> tuple[int, int, int | None]:
    """Returns where the lines after the count line begin, their number, the count."""
    first, start, line = _next_line(data, 0, 1)
    if first.isdigit():
        return start, line, int(first)
    return 0, 1, None


def _next_line(data: bytes, start: int, line: int) -> tuple[bytes, int, int]:
    end = data.find(b"\n", start)
    end = len(data) if end < 0 else end
    return data[start:end].strip(), end + 1, line + 1


def _fingerprint(
    path: InputFile, data: bytes, rows: int
) -> dict[str, str | int | bool]:
    digest = hashlib.sha256(data).hexdigest()
    official = celeba.OFFICIAL_FILES.get(digest) == rows
    return {"file": path.name, "sha256": digest, "rows": rows, "official": official}


def _line_error(path: InputFile, line: int, complaint: str) -> UserError:
    return _input_error(
        f"{path}:{line}: {complaint}.", "Correct the line or download the file again."
    )


def _show(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))


def _input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)
