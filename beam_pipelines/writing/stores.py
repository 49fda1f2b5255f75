"""Where a build writes: a local folder, or a prefix of a bucket.

Beam's file systems serve the remote ones, by the scheme of the path. Files there take
their name when they are closed; they cannot be renamed, exchanged or locked.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from support import files
from support.errors import ExitCode, UserError

_CHUNK = 1 << 20
#: Beam would unpack a file whose name ends in .gz.
_AS_IT_IS = {"compression_type": CompressionTypes.UNCOMPRESSED}


@runtime_checkable  # Beam checks what its stages are given
class Store(Protocol):
    """A flat set of named files. Stores pickle, so that workers can open them."""

    def writer(
        self, name: str, durable: bool = True
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """Opens a file that takes its name only when the block ends well.

        With `durable=False` it survives a power cut only after a later `sync`.
        """

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises FileNotFoundError."""

    def sizes(self) -> dict[str, int]:
        """Names and sizes, in bytes, of all files; none where there is no folder."""

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Whether a file is there, whole and the one described."""

    def delete(self, names: Iterable[str]) -> None:
        """Removes those of the files that exist."""

    def sync(self, name: str) -> None:
        """Makes a file survive a power cut."""


@dataclasses.dataclass(frozen=True)
class LocalStore:
    """The files of a folder on this machine; temporary names begin with a dot."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def writer(
        self, name: str, durable: bool = True
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        return files.atomic_writer(self.folder / name, durable)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def sizes(self) -> dict[str, int]:
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def holds(self, name: str, size: int, sha256: str) -> bool:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size:
            return False
        return files.sha256_file(path) == sha256

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def sync(self, name: str) -> None:
        files.sync_file(self.folder / name)


@dataclasses.dataclass(frozen=True)
class RemoteStore:
    """The objects right below a prefix such as `gs://bucket/celeba`."""

    prefix: str

    def __str__(self) -> str:
        return self.prefix

    @contextlib.contextmanager
    def writer(self, name: str, durable: bool = True) -> Iterator[BinaryIO]:
        # A block that fails leaves an object without a receipt, which nothing lists
        # and the next attempt overwrites.
        with self._errors(), FileSystems.create(self._path(name), **_AS_IT_IS) as file:
            yield file

    def read(self, name: str) -> bytes:
        with self._errors():
            if not FileSystems.exists(self._path(name)):
                raise FileNotFoundError(self._path(name))
            with self._open(name) as file:
                return file.read()

    def sizes(self) -> dict[str, int]:
        found = self._match("*")
        start = len(self.prefix) + 1
        return {
            entry.path[start:]: entry.size_in_bytes
            for entry in found
            if "/" not in entry.path[start:]
        }

    def holds(self, name: str, size: int, sha256: str) -> bool:
        found = self._match(name)
        if not found or found[0].size_in_bytes != size:
            return False
        digest = hashlib.sha256()
        with self._errors(), self._open(name) as file:
            while part := file.read(_CHUNK):
                digest.update(part)
        return digest.hexdigest() == sha256

    def delete(self, names: Iterable[str]) -> None:
        there = self.sizes()
        paths = [self._path(name) for name in names if name in there]
        with self._errors():
            if paths:
                FileSystems.delete(paths)

    def sync(self, name: str) -> None:
        """Closed objects are durable."""

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _match(self, pattern: str) -> list[FileMetadata]:
        with self._errors():
            return FileSystems.match([self._path(pattern)])[0].metadata_list

    def _open(self, name: str) -> BinaryIO:
        return FileSystems.open(self._path(name), **_AS_IT_IS)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns what the file system raises into an error that can be acted on.

        Each has exceptions of its own, which its library alone knows.
        """
        try:
            yield
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(
                f"{self.prefix} cannot be read or written: {what}.",
                "Check the bucket's name, your permissions and the network.",
                ExitCode.OUTPUT,
            ) from error


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, such as `gs://`."""
    return FileSystems.get_scheme(path) is not None


def open_store(path: str) -> Store:
    """The store at a path, local or remote."""
    return RemoteStore(path.rstrip("/")) if is_remote(path) else LocalStore(Path(path))
