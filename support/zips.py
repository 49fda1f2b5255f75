"""Images in a zip file, read in place.

`zipfile` parses the list of contents once per process. Nothing is unpacked, so no
member's path can lead anywhere; usually its last part is its name.
"""

import dataclasses
import functools
import os
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Hashable
from typing import BinaryIO

import numpy as np

from support.errors import ExitCode, UserError
from support.files import megabytes
from support.folders import Archive, Listing, name_foreign_file
from support.images import BadImage

#: Members that claim to be larger are refused before anything is unpacked.
MAX_MEMBER_BYTES = 64_000_000

_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a member
_LONGEST_PATH = 512  # no image of CelebA is behind a longer one
_IMAGES = (".jpg", ".jpeg", ".png")
_DAMAGED = (zipfile.BadZipFile, struct.error, zlib.error, ValueError, EOFError)


@dataclasses.dataclass(frozen=True)
class ZipSource:
    """The files of a zip file, by the last part of their paths or by all of it.

    Attributes:
      file: the zip file.
      complete: its size when complete, bytes, to say how much is missing; 0 = unknown.
      by_path: files go by their whole paths, with slashes; otherwise by the last part,
        and two images of one name are refused.
    """

    file: Archive
    complete: int = 0
    by_path: bool = False

    def __str__(self) -> str:
        return str(self.file)

    def list(self) -> Listing:
        """Names and sizes of all files.

        Raises:
          UserError: exit 3, if this is no zip file, or a cut or ambiguous one.
        """
        contents = self._open(self.file)
        members = contents.members.values()
        if members and all(member.flag_bits & _ENCRYPTED for member in members):
            raise _input_error(
                f"{self} is protected by a password.",
                "Unpack it yourself and name the folder instead.",
            )
        methods = {member.compress_type for member in members}
        kinds = [name for method, name in _METHODS.items() if method in methods]
        return Listing(
            names=np.array([name.encode(*_LOSSLESS) for name in contents.members], "S"),
            sizes=np.array([member.file_size for member in members], np.int64),
            archive_bytes=contents.bytes,
            packing=" and ".join(kinds),
            notes=contents.notes,
        )

    def read(self, name: str) -> bytes:
        return self._read(self.file.nearby(), name)

    def member(self, name: str) -> "ZipMember | None":
        """A file to read whole, if it is there."""
        there = name in self._open(self.file).members
        return ZipMember(self, name) if there else None

    def read_once(self, name: str) -> bytes:
        """As `read`, but from where the zip file is, without bringing it nearby."""
        return self._read(self.file, name)

    def _open(self, file: Archive) -> "_Contents":
        version = self.file.version()
        with _lock, self.file.errors():  # threads wait for one parse
            return _open(file, version, self.complete, self.by_path)

    def _read(self, file: Archive, name: str) -> bytes:
        contents = self._open(file)
        member = contents.members.get(name)
        if member is None:
            raise BadImage("missing", "it is not in the zip file")
        with self.file.errors():
            return _extract(contents.archive, member)


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
    """An open zip file.

    Attributes:
      archive: it.
      bytes: its size.
      members: each path or its last part -> the member.
      notes: what the user should know.
    """

    archive: zipfile.ZipFile
    bytes: int
    members: dict[str, zipfile.ZipInfo]
    notes: tuple[str, ...]


_lock = threading.Lock()
_LOSSLESS = ("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=2)
def _open(file: Archive, version: Hashable, complete: int, by_path: bool) -> _Contents:
    """Opens a zip file once per process and version of the file."""
    stream = file.open()
    try:
        contents = _read_contents(file, stream, complete, by_path)
    except BaseException:
        stream.close()
        raise
    weakref.finalize(contents.archive, stream.close)
    return contents


def _read_contents(
    file: Archive, stream: BinaryIO, complete: int, by_path: bool
) -> _Contents:
    size = stream.seek(0, os.SEEK_END)
    try:
        archive = zipfile.ZipFile(stream)
    except (*_DAMAGED, NotImplementedError) as error:
        raise _not_a_zip(file, stream, size, complete, error) from error
    if any(member.volume for member in archive.filelist):
        raise _input_error(
            f"{file} is one part of a zip file in several parts.",
            "Join the parts first, for example with: zip -s 0 PART --out WHOLE.zip",
        )
    members, repeated = _by_name(archive.filelist, file, by_path)
    notes = ()
    if repeated:
        count = f"{len(repeated):,} names such as " if len(repeated) > 1 else ""
        what = f"{count}{min(repeated)[-80:]} {'are' if count else 'is'}"
        notes = (f"{what} in {file} more than once: the last one is used.",)
    return _Contents(archive, size, members, notes)


def _by_name(
    infos: list[zipfile.ZipInfo], file: Archive, by_path: bool
) -> tuple[dict[str, zipfile.ZipInfo], set[str]]:
    """Maps names to members, without folders and hidden files; names what repeats."""
    members: dict[str, zipfile.ZipInfo] = {}
    repeated = set()
    for info in infos:
        # Some programs for Windows write backslashes.
        path = _path(info).replace("\\", "/")
        name = path[path.rfind("/") + 1 :]
        hidden = name.startswith(".") or path.startswith("__MACOSX/")
        if not name or hidden or len(path) > _LONGEST_PATH:
            continue
        key = path if by_path else name
        if key in members:
            other = _path(members[key]).replace("\\", "/")
            if other != path and name.lower().endswith(_IMAGES):
                raise _input_error(
                    f"{file} holds two images of one name: {other} and {path}.",
                    "Unpack it and name one of the two folders instead.",
                )
            repeated.add(key)
        members[key] = info
    return members, repeated


def _path(info: zipfile.ZipInfo) -> str:
    """The path as written: `zipfile` takes what states no encoding for cp437."""
    if info.flag_bits & _UTF8 or info.filename.isascii():
        return info.filename
    return info.filename.encode("cp437").decode(*_LOSSLESS)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Reads, unpacks and checks one member."""
    if info.flag_bits & _ENCRYPTED:
        raise BadImage("encrypted", "it is protected by a password")
    if info.compress_type not in _METHODS:
        raise BadImage("compression", f"method {info.compress_type}; 0 and 8 are read")
    largest = max(info.file_size, info.compress_size)
    if largest > MAX_MEMBER_BYTES:
        raise BadImage("too large", f"{megabytes(largest)} in the zip file")
    try:
        with archive.open(info) as member:
            # With a number of bytes, what is unpacked stays below it.
            data = member.read(info.file_size + 1)
    except (*_DAMAGED, NotImplementedError) as error:
        raise BadImage("damaged", f"it cannot be unpacked: {error}") from error
    if len(data) != info.file_size:
        raise BadImage("damaged", f"{len(data)} bytes instead of {info.file_size}")
    return data


def _not_a_zip(
    file: Archive, stream: BinaryIO, size: int, complete: int, error: Exception
) -> UserError:
    stream.seek(0)
    start = stream.read(65_536)
    if start.startswith(b"PK\x03\x04"):
        cut = f"{megabytes(size)} without the list of contents at a zip file's end"
        if size < complete:
            cut = f"{megabytes(size)} of {megabytes(complete)}"
        elif str(error) != "File is not a zip file":
            return _input_error(f"{file} is damaged: {error}.", "Download it again.")
        return _input_error(
            f"{file} is cut: {cut}.", "Continue the download, or download it again."
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


def _input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)
