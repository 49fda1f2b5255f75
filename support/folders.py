"""Where inputs come from: files, folders of images, and archives.

The protocols make a folder, a zip file and a bucket look alike. Local files are here,
`zips.py` looks into archives, and the build adds what Beam's file systems serve.
"""

import contextlib
import dataclasses
import os
from collections.abc import Hashable
from typing import BinaryIO, Protocol

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


class Archive(Protocol):
    """A large file that is read in parts. It pickles small; its text is its path."""

    def version(self) -> Hashable:
        """Something that changes when the file's content does."""

    def open(self) -> BinaryIO:
        """Opens it for reading at any position."""

    def nearby(self) -> "Archive":
        """The same content where many small reads are cheap."""

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Turns what a failed read raises into a `UserError`, exit 3."""


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


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A file of this machine: an `InputFile` and an `Archive`."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def read_bytes(self) -> bytes:
        with self.errors(), self.open() as file:
            return file.read()

    def version(self) -> Hashable:
        with self.errors():
            status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns, status.st_ino

    def open(self) -> BinaryIO:
        return open(self.path, "rb")

    def nearby(self) -> "LocalFile":
        return self

    def errors(self) -> contextlib.AbstractContextManager[None]:
        return input_errors(self.path)


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
