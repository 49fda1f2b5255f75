"""Files that a build reads, on this machine or of a file system that Beam serves.

A remote zip file is read by ranges to learn its contents; for its images each process
brings it near once, because Beam's readers fetch 16 MB at a time wherever one starts.
"""

import contextlib
import dataclasses
import functools
import os
import stat
import tempfile
from collections.abc import Hashable, Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from beam_pipelines.sources import remote
from support.files import output_errors

_PART = 16 << 20  # bytes of one request, as Beam's readers make them
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
    b"version https://git-lfs": "a pointer of Git LFS",
    b"/annex/objects/": "a pointer of git-annex",
}


@dataclasses.dataclass(frozen=True)
class File:
    """A file; its text is its path."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """Its name without directory."""
        return os.path.basename(self.path)

    def exists(self) -> bool:
        """Whether it is there, and no directory."""
        with self.errors():
            if remote.is_remote(self.path):
                return FileSystems.exists(self.path)
            return stat.S_ISREG(mode_of(self.path))

    def read_bytes(self, most: int = -1) -> bytes:
        """All its bytes, or some more than the `most` that are of use."""
        with self.errors():
            if not remote.is_remote(self.path):
                return _read_small(self.path, most)
            with self.open() as file:
                return file.read(most + (most >= 0))

    @functools.cached_property
    def version(self) -> Hashable:
        """Changes when the file's content does: its size in bytes, and when."""
        with self.errors():
            entry = FileSystems.get_filesystem(self.path).metadata(self.path)
        return entry.size_in_bytes, entry.last_updated_in_seconds

    def open(self) -> BinaryIO:
        """Opens it for reading at any position."""
        as_it_is = CompressionTypes.UNCOMPRESSED  # Beam would unpack a .gz
        return FileSystems.open(self.path, compression_type=as_it_is)

    def nearby(self) -> "File":
        """The same content where many small reads are cheap."""
        return _Copy(self.path) if remote.is_remote(self.path) else self

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Turns what a failed read raises into a `UserError`, exit 3."""
        return remote.read_errors(self.path)


class _Copy(File):
    """A remote file that is fetched to this machine's disk when it is opened."""

    def open(self) -> BinaryIO:
        with output_errors(tempfile.gettempdir(), self.version[0]):
            copy = tempfile.TemporaryFile(prefix="celeba-")  # gone with the process
            for part in self._parts():
                copy.write(part)
        return copy

    def _parts(self) -> Iterator[bytes]:
        """The bytes in order; errors of reading stay apart from those of writing."""
        with self.errors(), super().open() as file:
            while part := file.read(_PART):
                yield part


def mode_of(path: str) -> int:
    """The mode of a local file or directory, 0 if there is none.

    Raises:
      OSError: that cannot be known, or it is a link that leads nowhere.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):  # as git-annex leaves them
            what = "it is a link that leads nowhere"
            raise FileNotFoundError(error.errno, what) from error
        return 0


def _read_small(path: str, most: int) -> bytes:
    """A file's bytes: Python's own file objects take twice as long for small ones."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _CHUNK)
        if more := os.read(descriptor, _CHUNK):
            with open(descriptor, "rb", closefd=False) as file:
                data = b"".join((data, more, file.read(most)))
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
    if not start:
        return "an empty file"
    if start[257:262] == b"ustar":
        return "a tar archive"
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return name
    return None
