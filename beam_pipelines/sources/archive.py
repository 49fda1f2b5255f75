"""Images in a zip file, read in place by the last part of their paths.

`zipfile` parses the list of contents once per process. Nothing is unpacked, so no
member's path can lead anywhere.
"""

import dataclasses
import functools
import os
import threading
import weakref
import zipfile
from collections.abc import Hashable
from typing import BinaryIO

import numpy as np

from beam_pipelines.sources.files import File, name_foreign_file
from beam_pipelines.sources.images import Listing
from support import zips
from support.errors import UserError, input_error
from support.files import megabytes
from support.images import BadImage

#: Members that claim to be larger are refused before anything is unpacked.
MAX_MEMBER_BYTES = 64_000_000

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1  # flag of a member
_LONGEST_NAME = 255
_IMAGES = (".jpg", ".jpeg", ".png")


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
        _, members = self._open(self.file)
        infos = members.values()
        if infos and all(info.flag_bits & _ENCRYPTED for info in infos):
            raise input_error(
                f"{self} is protected by a password.",
                "Unpack it yourself and name the directory instead.",
            )
        return Listing(
            names=np.array([name.encode() for name in members], "S"),
            sizes=np.array([info.file_size for info in infos], np.int64),
            archive_bytes=self.file.version[0],
        )

    def read(self, name: str) -> bytes:
        return self.extract(self.file.nearby(), name)

    def member(self, name: str) -> "ZipMember | None":
        """A file to read whole, if it is there."""
        there = name in self._open(self.file)[1]
        return ZipMember(f"{self}/{name}", self) if there else None

    def extract(self, file: File, name: str) -> bytes:
        """As `read`, but from `file`: this or a copy nearby."""
        archive, members = self._open(file)
        if name not in members:
            raise BadImage("missing", "it is not in the zip file")
        with self.file.errors():
            return _extract(archive, members[name])

    def _open(self, file: File) -> "_Contents":
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


#: A zip file and, by the last part of their paths, what is in it.
_Contents = tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]
_lock = threading.Lock()


@functools.lru_cache(maxsize=2)
def _open(file: File, version: Hashable, complete: int) -> _Contents:
    """Opens a zip file once per process and version of the file."""
    stream = file.open()
    try:
        archive = zipfile.ZipFile(stream)
        members = _by_name(file, archive.filelist)
    except zips.DAMAGED as error:
        with stream:
            raise _not_a_zip(file, stream, complete, error) from error
    except UserError:
        stream.close()
        raise
    weakref.finalize(archive, stream.close)
    return archive, members


def _by_name(file: File, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Maps names to members, without directories and hidden files."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        path = zips.path_of(info)
        name = path[path.rfind("/") + 1 :]
        hidden = name.startswith(".") or path.startswith("__MACOSX/")
        if not name or hidden or len(name) > _LONGEST_NAME:
            continue
        if info.volume:
            raise input_error(
                f"{file} is one part of a zip file in several parts.",
                "Join the parts first, for example with: zip -s 0 PART --out WHOLE.zip",
            )
        if name in members and name.lower().endswith(_IMAGES):
            other = zips.path_of(members[name])
            if other != path:  # otherwise the newer one counts
                raise input_error(
                    f"{file} contains two images of one name: {other} and {path}.",
                    "Unpack it and name one of the two directories instead.",
                )
        members[name] = info
    return members


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
    except zips.DAMAGED as error:
        raise BadImage("damaged", f"it cannot be unpacked: {error}") from error
    if len(data) != info.file_size:
        raise BadImage("damaged", f"{len(data)} bytes instead of {info.file_size}")
    return data


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
        elif str(error) == "File is not a zip file":
            cause = f"is cut: {megabytes(size)} without the list of contents at the end"
        remedy = "Continue the download, or download it again."
    elif what and "archive" in what:
        cause, remedy = f"is {what}", "Unpack it and name the directory instead."
    else:
        cause = f"is not a zip file but {what or 'something else'}"
    return input_error(f"{file} {cause}.", remedy)
