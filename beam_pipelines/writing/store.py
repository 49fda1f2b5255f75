"""The place that a build writes into: a local folder, or a prefix of a bucket.

Beam's file systems serve the remote ones, by the scheme of the path. Files there take
their name when they are closed; they cannot be renamed, exchanged or locked.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from beam_pipelines.sources.remote import is_remote
from support import files
from support.errors import UserError, output_error

#: Beam would unpack a file whose name ends in .gz.
_AS_IT_IS = {"compression_type": CompressionTypes.UNCOMPRESSED}


@dataclasses.dataclass(frozen=True)
class Store:
    """A flat set of named files. It pickles, so that workers can open it.

    Local failures are OSErrors, remote ones a UserError with exit 4.

    Attributes:
      location: a local folder, or a prefix such as `gs://bucket/celeba`.
    """

    location: str

    def __str__(self) -> str:
        return self.location

    @property
    def is_remote(self) -> bool:
        return is_remote(self.location)

    @contextlib.contextmanager
    def writer(self, name: str, durable: bool = True) -> Iterator[BinaryIO]:
        """Opens a file that takes its name only when the block ends well.

        With `durable=False` it survives a power cut only after a later `sync`.
        """
        if not self.is_remote:
            with files.atomic_writer(self._path(name), durable) as file:
                yield file
            return
        # A block that fails leaves an object without a report, which nothing lists
        # and the next attempt overwrites.
        with self._errors(), FileSystems.create(self._path(name), **_AS_IT_IS) as file:
            yield file

    def write(self, name: str, data: str | bytes, durable: bool = True) -> None:
        """Writes a file (text as UTF-8), complete or not at all; see `writer`."""
        with self.writer(name, durable) as file:
            file.write(files.encode(data))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file to read, at any place; raises FileNotFoundError."""
        with self._errors():
            if not FileSystems.exists(self._path(name)):
                raise FileNotFoundError(self._path(name))
            with FileSystems.open(self._path(name), **_AS_IT_IS) as file:
                yield file

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises FileNotFoundError."""
        with self.open(name) as file:
            return file.read()

    def sizes(self) -> dict[str, int]:
        """Names and sizes, in bytes, of all files; none where there is no folder."""
        if self.is_remote:
            with self._errors():
                (result,) = FileSystems.match([self._path("*")])
            start = len(self._path(""))
            sizes = {
                entry.path[start:]: entry.size_in_bytes
                for entry in result.metadata_list
            }
            return {name: size for name, size in sizes.items() if "/" not in name}
        if not os.path.isdir(self.location):
            return {}
        with os.scandir(self.location) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def contains(self, name: str, sha256: str) -> bool:
        """Tells whether a file is there and has this sha256, in hexadecimal."""
        try:
            with self.open(name) as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    def delete(self, names: Iterable[str]) -> None:
        """Removes those of the files that exist."""
        existing = self.sizes()
        paths = [self._path(name) for name in names if name in existing]
        if not self.is_remote:
            for path in paths:
                os.unlink(path)
        elif paths:
            with self._errors():
                FileSystems.delete(paths)

    def sync(self, name: str) -> None:
        """Makes a file survive a power cut; remote ones do when they are closed."""
        if not self.is_remote:
            files.sync_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.location.rstrip('/')}/{name}"

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns what a remote file system raises into an error that can be acted on.

        Each has exceptions of its own, which its library alone knows.
        """
        try:
            yield
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:
            if not self.is_remote:
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise output_error(
                f"{self.location} cannot be read or written: {what}.",
                "Check the bucket's name, your permissions and the network.",
            ) from error
