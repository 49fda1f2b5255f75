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
from collections.abc import Hashable, Iterator
from typing import BinaryIO

import numpy as np
from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from support.errors import ExitCode, UserError, usage_error
from support.files import output_errors
from support.folders import Listing
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
      UserError: exit 2, saying what installs the scheme.
    """
    scheme = FileSystems.get_scheme(path)
    if scheme is None:
        require_local(path, flag)
        return
    module, package = _EXTRAS.get(scheme, ("", ""))
    known = {system.scheme() for system in FileSystem.get_all_subclasses()}
    if scheme not in known or (module and not importlib.util.find_spec(module)):
        raise usage_error(
            f"--{flag}={path}: {scheme}:// is not available here.",
            f"Run: pip install {package}"
            if package
            else "Copy or mount the data first.",
        )
    if any(letter in path for letter in _PATTERN_LETTERS):
        raise usage_error(
            f"--{flag}={path}: Beam takes {' '.join(_PATTERN_LETTERS)} for patterns.",
            "Give a folder whose path has none of these letters.",
        )


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file of a remote file system: an `InputFile` and an `Archive`."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def exists(self) -> bool:
        with self.errors():
            return FileSystems.exists(self.path)

    def read_bytes(self) -> bytes:
        with self.errors(), self.open() as file:
            return file.read()

    @functools.cached_property
    def _version(self) -> tuple[int, str]:
        with self.errors():
            (entry,) = FileSystems.match([self.path])[0].metadata_list
            return entry.size_in_bytes, FileSystems.checksum(self.path)

    def version(self) -> Hashable:
        return self._version

    def open(self) -> BinaryIO:
        as_it_is = CompressionTypes.UNCOMPRESSED  # Beam would unpack a .gz
        return FileSystems.open(self.path, compression_type=as_it_is)

    def nearby(self) -> "RemoteFile":
        return _Copy(self.path)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns whatever a file system raises into an error that can be acted on."""
        try:
            yield
        except (BadImage, UserError):
            raise
        except Exception as error:
            what = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(
                f"{self.path} cannot be read: {what}.",
                "Check the path, your credentials and the network; then run it again.",
                ExitCode.INPUT_DATA,
            ) from error


class _Copy(RemoteFile):
    """A remote file that is fetched to this machine's disk when it is opened."""

    def open(self) -> BinaryIO:
        with output_errors(tempfile.gettempdir(), self._version[0]):
            copy = tempfile.TemporaryFile(prefix="celeba-")  # gone with the process
            for part in self._parts():
                copy.write(part)
        return copy

    def _parts(self) -> Iterator[bytes]:
        """The bytes in order; errors of reading stay apart from those of writing."""
        with self.errors(), super().open() as file:
            while part := file.read(_PART):
                yield part


@dataclasses.dataclass(frozen=True)
class RemoteSource:
    """The files at the top of a remote folder; reading one is one request."""

    folder: str

    def __str__(self) -> str:
        return self.folder

    def list(self) -> Listing:
        entries = match(f"{self.folder}/*")
        names = [entry.path.rpartition("/")[2].encode() for entry in entries]
        sizes = [entry.size_in_bytes for entry in entries]
        return Listing(np.array(names, "S"), np.array(sizes, np.int64))

    def read(self, name: str) -> bytes:
        file = RemoteFile(f"{self.folder}/{name}")
        try:
            return file.read_bytes()
        except UserError as error:
            # File systems differ in what they raise for a file that is gone.
            if file.exists():
                raise
            raise BadImage("missing", "the file is gone") from error


def match(pattern: str, limit: int | None = None) -> list[FileMetadata]:
    """Files whose paths match; `*` stands for names in a folder, `**` at any depth."""
    with RemoteFile(pattern).errors():
        return FileSystems.match([pattern], [limit])[0].metadata_list


def is_remote(path: str) -> bool:
    """Whether a path has a scheme, such as `gs://`."""
    return FileSystems.get_scheme(path) is not None
