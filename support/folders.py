"""Where inputs come from: files, folders of images, and archives.

All that a build reads goes through the protocols here, so that a folder, a zip file and
a bucket look alike. Local files are here too, `zips.py` looks into archives, and the
build adds what Beam's file systems serve.
"""

import dataclasses
import functools
import os
import weakref
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from support.files import input_errors
from support.images import BadImage

_CHUNK = 1 << 16  # bytes; nearly every image is smaller

_PAGES = {
    b"quota": "Google Drive's 'Quota exceeded' page",
    b"virus scan": "Google Drive's 'Virus scan warning' page",
}
_SIGNATURES = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip file",
}


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a source, in no particular order.

    Attributes:
      names: (files,) bytes strings, without folder.
      sizes: (files,) int64, bytes, unpacked.
      archive_bytes: size of the archive that holds them, 0 if none does.
      packing: how the archive holds them, for example "stored".
      notes: lines that tell the user what was done otherwise than expected.
    """

    names: np.ndarray
    sizes: np.ndarray
    archive_bytes: int = 0
    packing: str = ""
    notes: tuple[str, ...] = ()


class InputFile(Protocol):
    """A file that is read whole; `pathlib.Path` is one. Its text is its full path."""

    @property
    def name(self) -> str:
        """The file's name without folder."""

    def read_bytes(self) -> bytes:
        """All its bytes."""


class RandomAccess(Protocol):
    """A large file that is read in parts. It pickles as its path, its text too."""

    @property
    def name(self) -> str:
        """The file's name without folder."""

    def size(self) -> int:
        """Its bytes."""

    def version(self) -> Hashable:
        """Something that changes when the file's content does."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`: fewer only where the file ends."""

    def nearby(self) -> "RandomAccess":
        """The same content where many small reads are cheap."""


class ImageSource(Protocol):
    """Where images come from; sources pickle small, so that workers can open them."""

    def list(self) -> Listing:
        """Names and sizes of all files."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
          BadImage: the file is gone or damaged.
          UserError: exit 3, if reading fails otherwise: that says nothing of the image.
        """


class Folder(Protocol):
    """A folder that is looked into; names inside it may hold slashes."""

    def names(self) -> list[str]:
        """Some of what it holds, for messages."""

    def text(self, name: str) -> InputFile | None:
        """A file to read whole, if it is there."""

    def archive(self, name: str) -> RandomAccess | None:
        """A file to read in parts, if it is there."""

    def images(self, name: str) -> ImageSource | None:
        """The images in a folder inside this one, if it is there."""


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A file of this machine; opened once, and safe to share between threads."""

    path: str

    def __str__(self) -> str:
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFile, (self.path,)

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @functools.cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def size(self) -> int:
        with input_errors(self.path):
            return os.stat(self.path).st_size

    def version(self) -> Hashable:
        with input_errors(self.path):
            status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns, status.st_ino

    def read_at(self, offset: int, length: int) -> bytes:
        with input_errors(self.path):
            return os.pread(self._descriptor, length, offset)

    def nearby(self) -> RandomAccess:
        return self


@dataclasses.dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def text(self, name: str) -> InputFile | None:
        path = self.path / name
        return path if path.is_file() else None

    def archive(self, name: str) -> RandomAccess | None:
        path = self.path / name
        return LocalFile(str(path)) if path.is_file() else None

    def images(self, name: str) -> ImageSource | None:
        path = self.path / name
        return FolderSource(str(path)) if path.is_dir() else None


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """The files at the top of a local folder; links to files count as files."""

    folder: str

    def __str__(self) -> str:
        return self.folder

    def list(self) -> Listing:
        names, sizes = [], []
        with os.scandir(os.fsencode(self.folder)) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        sizes.append(entry.stat().st_size)
                        names.append(entry.name)
                except OSError:  # a link that leads nowhere, or a file just removed
                    continue
        return Listing(np.array(names, "S"), np.array(sizes, np.int64))

    def read(self, name: str) -> bytes:
        path = f"{self.folder}/{name}"
        try:
            return _read_small(path)
        except FileNotFoundError as error:
            raise BadImage("missing", "the file is gone") from error
        except OSError:
            with input_errors(path):
                raise


def _read_small(path: str) -> bytes:
    """A file's bytes: Python's own file objects take twice as long for small ones."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _CHUNK)
        while part := os.read(descriptor, _CHUNK):
            data += part
        return data
    finally:
        os.close(descriptor)


def name_foreign_file(start: bytes) -> str | None:
    """What a download turned out to be, by its first bytes; None if nothing known."""
    text = start[:65_536].lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head")):
        for words, page in _PAGES.items():
            if words in text:
                return page
        return "a web page"
    if start[257:262] == b"ustar":
        return "a tar archive"
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return name
    return None
