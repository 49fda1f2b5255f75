"""Images in a zip file, read in place.

The list of contents at the end of the file (the central directory) is parsed once per
process with array operations; a member is one positioned read. Nothing is unpacked, so
no member's path can lead anywhere; usually its last part is its name.

Source of the format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import array
import collections
import dataclasses
import functools
import struct
import threading
import zlib
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

from support.errors import ExitCode, UserError
from support.files import megabytes
from support.folders import Listing, RandomAccess, name_foreign_file
from support.images import BadImage

#: Members that claim to be larger are refused before anything is unpacked.
MAX_MEMBER_BYTES = 64_000_000

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
_ENTRY = np.dtype(
    {
        "names": "flags method crc packed size name extra comment offset".split(),
        "offsets": [8, 10, 16, 20, 24, 28, 30, 32, 42],
        "formats": "<u2 <u2 <u4 <u4 <u4 <u2 <u2 <u2 <u4".split(),
        "itemsize": 46,
    }
)
_KEPT = np.dtype([("flags", "<u2"), ("method", "<u2"), ("crc", "<u4")])
_ELSEWHERE = 0xFFFFFFFF  # the number is too large for its field: see the extra field
_LONGEST_END = 22 + 65_535  # with the longest comment
_LONGEST_PATH = 512  # no image of CelebA is behind a longer one
_LOCAL_HEADER, _SLACK = 30, 226  # a local header's own length; its name and extras
_METHODS = {0: "stored", 8: "deflated"}
_BLOCK = 16_384  # entries whose paths are looked at together
_IMAGES = (b".jpg", b".jpeg", b".png")


@dataclasses.dataclass(frozen=True)
class ZipSource:
    """The files of a zip file, by the last part of their paths or by all of it.

    Attributes:
      file: the zip file.
      whole: its size when complete, bytes, to say how much of it is missing; 0 =
        unknown.
      by_path: files go by their whole paths, with slashes; otherwise by the last part,
        and two images of one name are refused.
    """

    file: RandomAccess
    whole: int = 0
    by_path: bool = False

    def __str__(self) -> str:
        return str(self.file)

    def __reduce__(self) -> tuple[Any, ...]:
        return ZipSource, (self.file, self.whole, self.by_path)

    @functools.cached_property
    def _contents(self) -> "_Contents":
        with _lock:  # threads wait for one parse instead of each doing their own
            return _open(self.file, self.file.version(), self.whole, self.by_path)

    @functools.cached_property
    def _nearby(self) -> RandomAccess:
        return self._contents.file.nearby()

    def list(self) -> Listing:
        """Names and sizes of all files.

        Raises:
          UserError: exit 3, if this is no zip file, or a cut or ambiguous one.
        """
        contents = self._contents
        rows = np.fromiter(contents.index.values(), np.int64, len(contents.index))
        methods, flags = contents.entries["method"][rows], contents.entries["flags"]
        if len(rows) and (flags[rows] & 1).all():
            raise _input_error(
                f"{self} is protected by a password.",
                "Unpack it yourself and name the folder instead.",
            )
        kinds = [name for method, name in _METHODS.items() if method in methods]
        return Listing(
            names=np.array(list(contents.index), "S"),
            sizes=contents.sizes[rows],
            archive_bytes=contents.bytes,
            packing=" and ".join(kinds),
            notes=contents.notes,
        )

    def read(self, name: str) -> bytes:
        # Old programs write names in other encodings than UTF-8.
        row = self._contents.index.get(name.encode(errors="surrogateescape"))
        if row is None:
            raise BadImage("missing", "it is not in the zip file")
        return _extract(self._nearby, self._contents, row)

    def member(self, name: str) -> "ZipMember | None":
        """A file to read whole, if it is there."""
        return ZipMember(self, name) if name.encode() in self._contents.index else None

    def read_once(self, name: str) -> bytes:
        """As `read`, but from where the zip file is, without bringing it nearby."""
        contents = self._contents
        return _extract(contents.file, contents, contents.index[name.encode()])


@dataclasses.dataclass(frozen=True)
class ZipMember:
    """One file in a zip file, to be read whole."""

    source: ZipSource
    name: str

    def __str__(self) -> str:
        return f"{self.source}/{self.name}"

    def read_bytes(self) -> bytes:
        try:
            return self.source.read_once(self.name)
        except BadImage as error:
            raise _input_error(
                f"{self} is {error.reason}: {error.detail}.",
                "Download the zip file again.",
            ) from error


@dataclasses.dataclass(frozen=True)
class _Contents:
    """The parsed list of contents.

    Attributes:
      file: the zip file that it describes.
      bytes: the file's size.
      entries: (entries,) of type `_KEPT`.
      sizes, packed, offsets: (entries,) int64: bytes of a member unpacked and packed,
        and where its local header begins.
      index: each path or its last part -> its row.
      notes: what the user should know.
    """

    file: RandomAccess
    bytes: int
    entries: np.ndarray
    sizes: np.ndarray
    packed: np.ndarray
    offsets: np.ndarray
    index: dict[bytes, int]
    notes: tuple[str, ...]


_lock = threading.Lock()


@functools.lru_cache(maxsize=2)
def _open(
    file: RandomAccess, version: Hashable, whole: int, by_path: bool
) -> _Contents:
    """Parses a file's list of contents once per process and version of the file."""
    size = file.size()
    raw, base = _read_directory(file, size, whole)
    starts = _entry_starts(raw, file)
    entries = np.zeros(0, _ENTRY)
    if len(starts):
        text = np.frombuffer(raw, np.uint8)
        entries = _windows(text, starts, _ENTRY.itemsize).view(_ENTRY)[:, 0]
    large = ("size", "packed", "offset")
    numbers = np.array([entries[column] for column in large], np.int64)
    for row in np.flatnonzero((numbers == _ELSEWHERE).any(axis=0)).tolist():
        _read_large_numbers(raw, int(starts[row]), entries[row], numbers[:, row])
    lengths = entries["name"].astype(np.int64)
    entries = entries[list(_KEPT.names)].astype(_KEPT)  # the rest is not needed again
    index, notes = _index(raw, starts, lengths, file, by_path)
    sizes, packed, offsets = numbers
    offsets += base
    return _Contents(file, size, entries, sizes, packed, offsets, index, notes)


def _read_directory(file: RandomAccess, size: int, whole: int) -> tuple[bytes, int]:
    """Returns the list of contents and where the zip file begins in `file`."""
    tail_start = max(0, size - _LONGEST_END)
    tail = file.read_at(tail_start, size - tail_start)
    at = tail.rfind(_END)
    while at >= 0 and not _is_end(tail, at):
        at = tail.rfind(_END, 0, at)
    if at < 0:
        raise _not_a_zip(file, size, whole)
    disk, first_disk, _, _, length, start = struct.unpack_from("<4H2L", tail, at + 4)
    end = tail_start + at
    if (disk or first_disk) and disk != 0xFFFF:
        raise _input_error(
            f"{file} is one part of a zip file in several parts.",
            "Join the parts first, for example with: zip -s 0 PART --out WHOLE.zip",
        )
    locator = file.read_at(end - 20, 20) if end >= 20 else b""
    if locator.startswith(_LOCATOR64):
        end = struct.unpack_from("<Q", locator, 8)[0]
        record = file.read_at(end, 56)
        if not record.startswith(_END64) or len(record) < 56:
            raise _damaged(file, "its ZIP64 record is not where it should be")
        length, start = struct.unpack_from("<2Q", record, 40)
    base = end - length - start  # not 0 if something was put in front of the zip
    if base < 0:
        raise _damaged(file, "its list of contents is cut")
    return file.read_at(base + start, length), base


def _is_end(tail: bytes, at: int) -> bool:
    """Whether the record that a zip ends with, its comment included, fits here."""
    if at + 22 > len(tail):
        return False
    return at + 22 + struct.unpack_from("<H", tail, at + 20)[0] <= len(tail)


def _entry_starts(raw: bytes, file: RandomAccess) -> np.ndarray:
    """Where each entry of the list of contents begins; (entries,) int64."""
    starts, at = array.array("q"), 0
    lengths = struct.Struct("<3H").unpack_from
    while raw.startswith(_CENTRAL, at) and at + _ENTRY.itemsize <= len(raw):
        starts.append(at)
        name, extra, comment = lengths(raw, at + 28)
        at += _ENTRY.itemsize + name + extra + comment
    if at > len(raw) or (at < len(raw) and not raw.startswith(b"PK\x05\x05", at)):
        raise _damaged(file, f"its list of contents breaks off at entry {len(starts)}")
    return np.frombuffer(starts, np.int64) if starts else np.zeros(0, np.int64)


def _windows(text: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """(starts, width) uint8: the bytes from each start on."""
    return np.lib.stride_tricks.sliding_window_view(text, width)[starts]


def _index(
    raw: bytes,
    starts: np.ndarray,
    lengths: np.ndarray,
    file: RandomAccess,
    by_path: bool,
) -> tuple[dict[bytes, int], tuple[str, ...]]:
    """Maps each path or its last part to its row; folders and hidden files go."""
    index: dict[bytes, int] = {}
    repeated: collections.Counter[bytes] = collections.Counter()
    starts = starts + _ENTRY.itemsize
    for row, path in enumerate(_paths(raw, starts, lengths)):
        # Some programs for Windows write backslashes.
        name = path[max(path.rfind(b"/"), path.rfind(b"\\")) + 1 :]
        if not name or name.startswith(b".") or path.startswith(b"__MACOSX/"):
            continue
        if by_path:
            name = path.replace(b"\\", b"/")
        before = index.get(name)
        if before is not None:
            other = raw[starts[before] : starts[before] + lengths[before]]
            if other != path and name.lower().endswith(_IMAGES):
                raise _input_error(
                    f"{file} holds two images of one name: {_show(other)} and "
                    f"{_show(path)}.",
                    "Unpack it and name one of the two folders instead.",
                )
            repeated[name] += 1
        index[name] = row
    if not repeated:
        return index, ()
    example = _show(next(iter(repeated)))
    what = f"{example} is"
    if len(repeated) > 1:
        what = f"{len(repeated):,} names such as {example} are"
    return index, (f"{what} in {file} more than once: the last one is used.",)


def _paths(raw: bytes, starts: np.ndarray, lengths: np.ndarray) -> Iterator[bytes]:
    """Yields the members' paths; those that are too long come out empty."""
    lengths = np.where(lengths > _LONGEST_PATH, 0, lengths)
    for first in range(0, len(starts), _BLOCK):  # blocks bound the memory
        block, size = starts[first : first + _BLOCK], lengths[first : first + _BLOCK]
        longest = max(int(size.max()), 1)
        text = raw[block[0] : block[-1] + longest] + bytes(longest)
        letters = _windows(np.frombuffer(text, np.uint8), block - block[0], longest)
        letters[np.arange(longest) >= size[:, None]] = 0
        yield from letters.view(f"S{longest}")[:, 0].tolist()


def _read_large_numbers(
    raw: bytes, start: int, entry: np.void, numbers: np.ndarray
) -> None:
    """Takes from an entry's ZIP64 field what its own fields are too small for.

    Args:
      raw: the list of contents.
      start: where the entry begins.
      entry: its own fields.
      numbers: (3,) size, packed size and offset, changed in place.
    """
    at = start + _ENTRY.itemsize + int(entry["name"])
    end = at + int(entry["extra"])
    while at + 4 <= end:
        kind, length = struct.unpack_from("<2H", raw, at)
        field = raw[at + 4 : min(at + 4 + length, end)]
        at += 4 + length
        if kind != 1:
            continue
        for column in np.flatnonzero(numbers == _ELSEWHERE).tolist():
            if len(field) >= 8:
                # No file is larger than 2^62, and sums with it stay in 64 bits.
                numbers[column] = min(struct.unpack_from("<Q", field)[0], 1 << 62)
                field = field[8:]


def _extract(file: RandomAccess, contents: _Contents, row: int) -> bytes:
    """Reads, unpacks and checks one member."""
    entry = contents.entries[row]
    size, packed = int(contents.sizes[row]), int(contents.packed[row])
    offset = int(contents.offsets[row])
    method = int(entry["method"])
    if entry["flags"] & 1:
        raise BadImage("encrypted", "it is protected by a password")
    if method not in _METHODS:
        raise BadImage("compression", f"method {method}; 0 and 8 are read")
    if max(size, packed) > MAX_MEMBER_BYTES:
        raise BadImage("too large", f"{megabytes(max(size, packed))} in the zip file")
    data = b""
    if offset < contents.bytes:
        data = file.read_at(offset, _LOCAL_HEADER + _SLACK + packed)
    if len(data) < _LOCAL_HEADER or not data.startswith(_LOCAL):
        raise BadImage("damaged", "the zip file has no member at its place")
    # The local header's own lengths count: its extras differ from the entry's.
    start = _LOCAL_HEADER + sum(struct.unpack_from("<2H", data, 26))
    if len(data) < start + packed:
        data, start = file.read_at(offset + start, packed), 0
    data = data[start : start + packed]
    if len(data) < packed:
        raise BadImage("truncated", "the zip file ends inside it")
    if method:
        data = _inflate(data, size)
    if len(data) != size or zlib.crc32(data) != entry["crc"]:
        raise BadImage("damaged", "its checksum in the zip file differs")
    return data


def _inflate(data: bytes, size: int) -> bytes:
    try:
        # One byte more than announced shows a lie and bounds the memory.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise BadImage("damaged", f"it cannot be unpacked: {error}") from error


def _not_a_zip(file: RandomAccess, size: int, whole: int) -> UserError:
    start = file.read_at(0, 65_536)
    if start.startswith(_LOCAL):
        if size < whole:
            how = f"{megabytes(size)} of {megabytes(whole)}"
        else:
            how = f"{megabytes(size)} without the list of contents at a zip file's end"
        return _input_error(
            f"{file} is cut: {how}.", "Continue the download, or download it again."
        )
    if not size:
        return _input_error(f"{file} is empty.", "Download it again.")
    what = name_foreign_file(start)
    if what is None:
        remedy = "Name a folder or a zip file; if it is one, get it again."
    elif "archive" in what:
        remedy = "Unpack it and name the folder instead."
    else:
        remedy = "Download it again, later or in a browser."
    return _input_error(
        f"{file} is not a zip file{f' but {what}' if what else ''}.", remedy
    )


def _damaged(file: RandomAccess, how: str) -> UserError:
    return _input_error(f"{file} is damaged: {how}.", "Download it again.")


def _show(path: bytes) -> str:
    return path[-80:].decode(errors="replace")


def _input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)
