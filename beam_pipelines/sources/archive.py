"""Images in a zip file, read in place by the last part of their paths.

The list of contents at the end of the file (the central directory) is looked through
once per process; its entries are decoded when a file is read. `zipfile` makes an object
of each, which for CelebA costs every process a second and 100 MB more.
Nothing is unpacked, so no member's path can lead anywhere.

Source of the format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import dataclasses
import functools
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Hashable
from typing import BinaryIO, NamedTuple

import numpy as np

from beam_pipelines.sources.files import File, name_foreign_file
from beam_pipelines.sources.images import Listing
from support.errors import UserError, input_error
from support.files import megabytes
from support.images import BadImage, check_bytes

_CENTRAL, _END = b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
_ENCRYPTED = 0x1  # flag of a member
_STORED, _DEFLATED = 0, 8
_LONGEST_NAME = 255
_LONGEST_END = 22 + 65_535  # with the longest comment
_IMAGES = (b".jpg", b".jpeg", b".png")
#: Of an entry: flags, method, checksum, packed size, size, lengths of name and extra
#: fields, volume, offset of the local header.
_ENTRY = struct.Struct("<8xHH4xLLLHH2xH6xL")
_LENGTHS = struct.Struct("<28xHHH12x")  # of an entry's name, extra fields and comment
_ELSEWHERE = 0xFFFFFFFF  # the number is too large for its field: see the extra fields
_LARGEST = 1 << 62  # no file is larger; sums with it stay in 64 bits
_LOCAL = struct.Struct("<26xHH")  # of a local header: lengths of name, extra fields
_NO_END = "there is no list of contents"


@dataclasses.dataclass(frozen=True)
class ZipSource:
    """The files of a zip file; two images of one name are refused.

    Attributes:
      file: the zip file.
      complete: its size when complete, bytes, to say how much is missing; 0 = unknown.
    """

    file: File
    complete: int = 0

    def __str__(self) -> str:
        return str(self.file)

    def list(self) -> Listing:
        """Names and sizes of all files.

        Raises:
          UserError: exit 3, if this is no zip file, or a cut or ambiguous one.
        """
        archive = self._open(self.file)
        places = np.fromiter(archive.members.values(), np.int64)
        flags = _column(archive.directory, places + 8, "<u2")
        sizes = _column(archive.directory, places + 24, "<u4").astype(np.int64)
        for index in np.flatnonzero(sizes == _ELSEWHERE):
            sizes[index] = archive.entry(places[index]).size
        if len(flags) and (flags & _ENCRYPTED).all():
            raise input_error(
                f"{self} is protected by a password.",
                "Unpack it yourself and name the directory instead.",
            )
        names = np.array(list(archive.members), "S")
        return Listing(names, sizes, archive_bytes=self.file.version[0])

    def read(self, name: str) -> bytes:
        return self.extract(self.file.nearby(), name)

    def member(self, name: str) -> "ZipMember | None":
        """A file to read whole, if it is there."""
        there = name.encode() in self._open(self.file).members
        return ZipMember(f"{self}/{name}", self) if there else None

    def extract(self, file: File, name: str) -> bytes:
        """As `read`, but from `file`: this or a copy nearby."""
        archive = self._open(file)
        at = archive.members.get(name.encode())
        if at is None:
            raise BadImage("missing", "it is not in the zip file")
        with self.file.errors():
            return _extract(archive, archive.entry(at))

    def _open(self, file: File) -> "_Archive":
        version = self.file.version
        with _lock, self.file.errors():  # threads wait for one parse
            return _open(file, version, self.complete)


@dataclasses.dataclass(frozen=True)
class ZipMember(File):
    """One file in a zip file, to be read whole."""

    source: ZipSource

    def read_bytes(self) -> bytes:
        try:
            return self.source.extract(self.source.file, self.name)
        except BadImage as error:
            raise input_error(
                f"{self} is {error.reason}: {error.detail}.",
                "Download the zip file again.",
            ) from error


class _Entry(NamedTuple):
    """What the list of contents says about a file."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    volume: int
    offset: int


@dataclasses.dataclass(frozen=True)
class _Archive:
    """An opened zip file.

    Attributes:
      stream: the file.
      begin: where the zip begins in it: not 0 if something was put in front.
      directory: the list of contents.
      members: last part of a path -> where its entry begins in `directory`.
    """

    stream: BinaryIO
    begin: int
    directory: bytes
    members: dict[bytes, int] = dataclasses.field(default_factory=dict)

    def path(self, at: int) -> bytes:
        """The path in the entry that begins at `at`."""
        start = at + _ENTRY.size
        return self.directory[
            start : start + _LENGTHS.unpack_from(self.directory, at)[0]
        ]

    def entry(self, at: int) -> _Entry:
        """Decodes the entry that begins at `at`."""
        fields = _ENTRY.unpack_from(self.directory, at)
        flags, method, crc, packed, size, name, extra, volume, offset = fields
        if _ELSEWHERE in (size, packed, offset):
            start = at + _ENTRY.size + name
            extras = self.directory[start : start + extra]
            size, packed, offset = _large_numbers(extras, [size, packed, offset])
        return _Entry(flags, method, crc, packed, size, volume, self.begin + offset)


_lock = threading.Lock()
_lock_of_remote = threading.Lock()


@functools.lru_cache(maxsize=64)  # a build from Parquet has one a pass
def _open(file: File, version: Hashable, complete: int) -> _Archive:
    """Opens a zip file once per process and version of the file."""
    stream = file.open()
    try:
        archive = _read_directory(stream)
        _find_members(file, archive)
    except (ValueError, struct.error) as error:
        with stream:
            raise _not_a_zip(file, stream, complete, error) from error
    except UserError:
        stream.close()
        raise
    weakref.finalize(archive, stream.close)
    return archive


def _read_directory(stream: BinaryIO) -> _Archive:
    """Finds and reads the list of contents.

    Raises:
      ValueError: there is none, or it is cut.
    """
    size = stream.seek(0, os.SEEK_END)
    tail_start = max(0, size - _LONGEST_END)
    tail = _read_at(stream, tail_start, size - tail_start)
    at = tail.rfind(_END)
    while at >= 0 and not _ends_here(tail, at):
        at = tail.rfind(_END, 0, at)
    if at < 0:
        raise ValueError(_NO_END)
    length, start = struct.unpack_from("<12xLL", tail, at)
    end = tail_start + at
    locator = _read_at(stream, max(0, end - 20), 20)
    if locator.startswith(_LOCATOR64):
        end = min(struct.unpack_from("<8xQ", locator)[0], _LARGEST)
        record = _read_at(stream, end, 56)
        if not record.startswith(_END64):
            raise ValueError("its ZIP64 record is not where it should be")
        length, start = struct.unpack_from("<40xQQ", record)
    begin = end - length - start
    if begin < 0:
        raise ValueError("its list of contents is cut")
    return _Archive(stream, begin, _read_at(stream, begin + start, length))


def _ends_here(tail: bytes, at: int) -> bool:
    """Tells whether the record that a zip ends with, its comment included, fits."""
    if at + 22 > len(tail):
        return False
    return at + 22 + struct.unpack_from("<20xH", tail, at)[0] <= len(tail)


def _find_members(file: File, archive: _Archive) -> None:
    """Fills `archive.members`, without directories and hidden files.

    Raises:
      ValueError: the list of contents is damaged.
      UserError: exit 3, two images of one name or a part of a split zip.
    """
    directory, members, at = archive.directory, archive.members, 0
    while directory.startswith(_CENTRAL, at):
        path = archive.path(at)
        # Some programs for Windows write backslashes.
        name = path[max(path.rfind(b"/"), path.rfind(b"\\")) + 1 :]
        hidden = name.startswith(b".") or path.startswith(b"__MACOSX/")
        if name and not hidden and len(name) <= _LONGEST_NAME:
            if name in members and name.lower().endswith(_IMAGES):
                other = archive.path(members[name])
                if other != path:  # otherwise the newer one counts
                    raise _ambiguous(file, other, path)
            members[name] = at
        at += _ENTRY.size + sum(_LENGTHS.unpack_from(directory, at))
    if at != len(directory):
        raise ValueError(f"its list of contents breaks off at byte {at}")
    if members and archive.entry(next(iter(members.values()))).volume:
        raise input_error(
            f"{file} is one part of a zip file in several parts.",
            "Join the parts first, for example with: zip -s 0 PART --out WHOLE.zip",
        )


def _large_numbers(extras: bytes, numbers: list[int]) -> list[int]:
    """The numbers with those from the ZIP64 field that their own are too small for.

    Args:
      extras: an entry's extra fields.
      numbers: size, packed size and offset, in the order of that field.
    """
    at = 0
    while at + 4 <= len(extras):
        kind, length = struct.unpack_from("<HH", extras, at)
        at += 4
        if kind == 1:
            field = struct.iter_unpack("<Q", extras[at : at + length // 8 * 8])
            large = [number for (number,) in field][::-1]
            return [
                min(large.pop(), _LARGEST) if number == _ELSEWHERE and large else number
                for number in numbers
            ]
        at += length
    return numbers


def _column(data: bytes, places: np.ndarray, kind: str) -> np.ndarray:
    """The numbers of a type that begin at `places`; (places,)."""
    width = np.arange(np.dtype(kind).itemsize)
    return np.frombuffer(data, np.uint8)[places[:, None] + width].view(kind)[:, 0]


def _extract(archive: _Archive, entry: _Entry) -> bytes:
    """Reads, unpacks and checks one member."""
    if entry.flags & _ENCRYPTED:
        raise BadImage("encrypted", "it is protected by a password")
    if entry.method not in (_STORED, _DEFLATED):
        raise BadImage("compression", f"method {entry.method}; 0 and 8 are read")
    check_bytes(max(entry.size, entry.packed))
    header = _read_at(archive.stream, entry.offset, _LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
        raise BadImage("damaged", "the zip file has no member at its place")
    # The local header's own lengths count: its extra fields differ from the entry's.
    begin = entry.offset + _LOCAL.size + sum(_LOCAL.unpack(header))
    data = _read_at(archive.stream, begin, entry.packed)
    if entry.method == _DEFLATED:
        data = _unpack(data, entry.size)
    if len(data) != entry.size or zlib.crc32(data) != entry.crc:
        raise BadImage("damaged", "its checksum in the zip file differs")
    return data


def _unpack(data: bytes, size: int) -> bytes:
    try:
        # One byte more than announced shows a lie and bounds the memory.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise BadImage("damaged", f"it cannot be unpacked: {error}") from error


def _read_at(stream: BinaryIO, at: int, size: int) -> bytes:
    """Bytes from a position on, fewer where the file ends."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):  # of a remote file
        with _lock_of_remote:
            stream.seek(at)
            return stream.read(size)
    return os.pread(descriptor, size, at)


def _ambiguous(file: File, *paths: bytes) -> UserError:
    first, second = (path.decode(errors="replace") for path in paths)
    return input_error(
        f"{file} contains two images of one name: {first} and {second}.",
        "Unpack it and name one of the two directories instead.",
    )


def _not_a_zip(
    file: File, stream: BinaryIO, complete: int, error: Exception
) -> UserError:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    start = stream.read(65_536)
    what = name_foreign_file(start)
    remedy = "Download it again, later or in a browser."
    if start.startswith(b"PK\x03\x04"):
        cause = f"is damaged: {error}"
        if size < complete:
            cause = f"is cut: {megabytes(size)} of {megabytes(complete)}"
        elif str(error) == _NO_END:
            cause = f"is cut: {megabytes(size)} without the list of contents at the end"
        remedy = "Continue the download, or download it again."
    elif what and "archive" in what:
        cause, remedy = f"is {what}", "Unpack it and name the directory instead."
    else:
        cause = f"is not a zip file but {what or 'something else'}"
    return input_error(f"{file} {cause}.", remedy)
