"""Sources of images: all that a build reads looks like a directory of files."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from beam_pipelines.sources import remote
from beam_pipelines.sources.files import File
from support.errors import UserError
from support.images import MAX_BYTES, BadImage, check_bytes


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a source, in no particular order.

    Attributes:
      names: (files,) bytes strings, without directory.
      sizes: (files,) int64, bytes, unpacked.
      archive_bytes: size of the archive that contains them, 0 if none does.
    """

    names: np.ndarray
    sizes: np.ndarray
    archive_bytes: int = 0


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
class FolderSource:
    """The files at the top of a directory, local or remote; links count as files."""

    folder: str

    def __str__(self) -> str:
        return self.folder

    def list(self) -> Listing:
        entries = _remote if remote.is_remote(self.folder) else _local
        with remote.read_errors(self.folder):
            files = dict(entries(self.folder))
        sizes = np.array(list(files.values()), np.int64)
        return Listing(np.array(list(files), "S"), sizes)

    def read(self, name: str) -> bytes:
        file = File(f"{self.folder}/{name}")
        try:
            data = file.read_bytes(MAX_BYTES)
        except UserError as error:
            gone = isinstance(error.__cause__, FileNotFoundError)
            # Remote file systems differ in what they raise.
            if gone or (remote.is_remote(self.folder) and not file.exists()):
                raise BadImage("missing", "the file is gone") from error
            raise
        check_bytes(len(data))
        return data


@dataclasses.dataclass(frozen=True)
class RenamedSource:
    """A source whose files end otherwise than the names that are asked for.

    Attributes:
      source: where the images are.
      ending: how the names end that are asked for, such as ".jpg".
      own: how the files' names end, such as ".JPG".
    """

    source: ImageSource
    ending: str
    own: str

    def __str__(self) -> str:
        return f"{self.source} (*{self.own})"

    def list(self) -> Listing:
        listing = self.source.list()
        names = [self._rename(name) for name in listing.names.tolist()]
        return dataclasses.replace(listing, names=np.array(names, "S"))

    def read(self, name: str) -> bytes:
        return self.source.read(name.removesuffix(self.ending) + self.own)

    def _rename(self, name: bytes) -> bytes:
        """A file's name as it is asked for; an empty one if it ends otherwise."""
        stem, own = os.path.splitext(name)
        return stem + self.ending.encode() if own == self.own.encode() else b""


def _local(folder: str) -> Iterator[tuple[bytes, int]]:
    """Name and size of each file."""
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            try:
                if entry.is_file():
                    yield entry.name, entry.stat().st_size
            except OSError:  # a link that leads nowhere, or a file just removed
                continue


def _remote(folder: str) -> Iterator[tuple[bytes, int]]:
    for entry in remote.match(f"{folder}/*"):
        yield entry.path.rpartition("/")[2].encode(), entry.size_in_bytes
