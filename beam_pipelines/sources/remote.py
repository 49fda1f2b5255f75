"""Inputs that Beam's file systems serve: `gs://` and whatever else is installed.

Annotation files are read whole and folders of images object by object. A remote zip
file is read by ranges to learn what it holds; for its images each process brings it
near once, because Beam's readers fetch 16 MB at a time wherever one starts to read.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import tempfile
import threading
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
from apache_beam.io.filesystem import CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

from support.errors import ExitCode, UserError, usage_error
from support.files import output_errors
from support.folders import ImageSource, InputFile, Listing, LocalFile, RandomAccess
from support.images import BadImage, require_local

#: Scheme -> the module that Beam needs for it, and what installs that.
_EXTRAS = {
    "gs": ("", "-e '.[gcp]'"),  # known to Beam only if it can be used
    "s3": ("boto3", "'apache-beam[aws]'"),
    "azfs": ("azure", "'apache-beam[azure]'"),
    "hdfs": ("hdfs", "'apache-beam[hadoop]'"),
}
_PATTERN_LETTERS = "*?["
_PART = 16 << 20  # bytes of one request, as Beam's readers make them


def require_served(path: str, flag: str) -> None:
    """Checks a flag's value: a local path, or one of a scheme that Beam serves here.

    Raises:
      UserError: exit 2, saying which schemes work and what installs the one asked for.
    """
    scheme = FileSystems.get_scheme(path)
    if scheme is None:
        require_local(path, flag)
        return
    served = schemes()
    if scheme not in served:
        _, package = _EXTRAS.get(scheme, ("", ""))
        works = ", ".join(f"{name}://" for name in served) or "only local paths"
        raise usage_error(
            f"--{flag}={path}: {scheme}:// is not available here; what is: {works}.",
            f"Run: pip install {package}"
            if package
            else "Copy or mount the data first.",
        )
    if any(letter in path for letter in _PATTERN_LETTERS):
        raise usage_error(
            f"--{flag}={path}: Beam takes {' '.join(_PATTERN_LETTERS)} for patterns.",
            "Give a folder whose path has none of these letters.",
        )


def schemes() -> list[str]:
    """The schemes that an installed file system of Beam serves."""
    known = {system.scheme() for system in FileSystem.get_all_subclasses()}
    return sorted(
        scheme
        for scheme in known - {None}
        if not (module := _EXTRAS.get(scheme, ("",))[0])
        or importlib.util.find_spec(module)
    )


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file of a remote file system, for reading whole or in parts."""

    path: str

    def __str__(self) -> str:
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFile, (self.path,)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @functools.cached_property
    def _size(self) -> int:
        with _remote_errors(self.path):
            return FileSystems.match([self.path])[0].metadata_list[0].size_in_bytes

    def size(self) -> int:
        return self._size

    def version(self) -> Hashable:
        with _remote_errors(self.path):
            return self._size, FileSystems.checksum(self.path)

    def read_bytes(self) -> bytes:
        with _remote_errors(self.path), _open(self.path) as file:
            return file.read()

    def read_at(self, offset: int, length: int) -> bytes:
        with _remote_errors(self.path), _open(self.path) as file:
            file.seek(offset)
            return file.read(length)

    def nearby(self) -> RandomAccess:
        """A copy on this machine's disk, one per process, gone when the process is."""
        with _lock:
            return _download(self, self.version())


@dataclasses.dataclass(frozen=True)
class RemoteFolder:
    """A folder of a remote file system, which may know only prefixes of names."""

    path: str

    def __str__(self) -> str:
        return self.path

    def names(self) -> list[str]:
        start = len(self.path) + 1
        paths = [path[start:] for path, _ in _list(self.path, "**", 100)]
        return sorted({path.partition("/")[0] for path in paths})

    def text(self, name: str) -> InputFile | None:
        return self._file(name)

    def archive(self, name: str) -> RandomAccess | None:
        return self._file(name)

    def images(self, name: str) -> ImageSource | None:
        path = f"{self.path}/{name}"
        return RemoteSource(path) if _list(path, limit=1) else None

    def _file(self, name: str) -> RemoteFile | None:
        path = f"{self.path}/{name}"
        with _remote_errors(path):
            return RemoteFile(path) if FileSystems.exists(path) else None


@dataclasses.dataclass(frozen=True)
class RemoteSource:
    """The files at the top of a remote folder; reading one is one request."""

    folder: str

    def __str__(self) -> str:
        return self.folder

    def list(self) -> Listing:
        found = _list(self.folder)
        names = [path.rpartition("/")[2].encode() for path, _ in found]
        return Listing(
            np.array(names, "S"), np.array([size for _, size in found], np.int64)
        )

    def read(self, name: str) -> bytes:
        path = f"{self.folder}/{name}"
        with _remote_errors(path):
            try:
                with _open(path) as file:
                    return file.read()
            except Exception as error:
                # File systems differ in what they raise for a file that is gone.
                if FileSystems.exists(path):
                    raise
                raise BadImage("missing", "the file is gone") from error


_lock = threading.Lock()


@functools.lru_cache(maxsize=2)
def _download(file: RemoteFile, _version: Hashable) -> RandomAccess:
    folder = tempfile.gettempdir()
    with output_errors(folder, file.size()):
        with tempfile.NamedTemporaryFile(prefix="celeba-") as copy:
            for part in _parts(file.path):
                copy.write(part)
            copy.flush()
            near = LocalFile(copy.name)
            near.read_at(0, 1)  # opened: it stays readable when its name is gone
    return near


def _parts(path: str) -> Iterator[bytes]:
    """A file's bytes in order; errors of reading stay apart from those of writing."""
    with _remote_errors(path):
        file = _open(path)
    with file:
        while True:
            with _remote_errors(path):
                part = file.read(_PART)
            if not part:
                return
            yield part


def _list(
    folder: str, pattern: str = "*", limit: int | None = None
) -> list[tuple[str, int]]:
    """Path and size of files in a folder: at its top, or at any depth with `**`."""
    with _remote_errors(folder):
        (found,) = FileSystems.match([f"{folder}/{pattern}"], [limit])
    return [(entry.path, entry.size_in_bytes) for entry in found.metadata_list]


def _open(path: str) -> Any:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


@contextlib.contextmanager
def _remote_errors(path: str) -> Iterator[None]:
    """Turns whatever a file system raises into an error that can be acted on."""
    try:
        yield
    except (BadImage, UserError):
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{path} cannot be read: {what}.",
            "Check the path, your credentials and the network; then run it again.",
            ExitCode.INPUT_DATA,
        ) from error
