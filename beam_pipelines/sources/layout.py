"""Search for the parts of CelebA: in a directory or zip file, here or in a bucket."""

import dataclasses
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from beam_pipelines.sources import parquet, remote
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import File, mode_of
from beam_pipelines.sources.images import FolderSource, ImageSource
from beam_pipelines.sources.parquet import ParquetSource
from schemas import celeba
from schemas.dataset import DataSet
from support.errors import UserError, input_error

_Place = TypeVar("_Place")

#: Directories inside the data set's where a file may be: the official archive's own.
_TEXT_FOLDERS = ("", "Anno", "Eval")
_IMAGE_FOLDERS = ("", "Img")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The parts of CelebA; None for an optional file that is not there.

    Attributes:
      attributes, partition, identity: the annotation files, or the Parquet files with
        such columns.
      sample: the file that says that the faces are drawn.
      images: the directory, zip file or Parquet files that are read.
      unused: a zip file of the images next to the directory that is read instead.
    """

    attributes: File | ParquetSource
    partition: File | ParquetSource | None
    identity: File | ParquetSource | None
    sample: File | None
    images: ImageSource
    unused: ZipSource | None


def find_layout(location: str, data_set: DataSet) -> Layout:
    """Finds the annotation files and the images.

    Args:
      location: a directory, or a zip file with the images; then the annotation
        files are in it or next to it. Local, or of a scheme that Beam serves.
      data_set: which names are looked for.

    Raises:
      UserError: exit 3, saying what was looked for and what is there.
    """
    folder, archive = _open(location, data_set)
    source = _archive(folder, archive) if archive else None
    names = (
        data_set.attributes_file,
        data_set.partition_file,
        data_set.identity_file,
    )
    texts = [_first(_texts(folder, source, name)) for name in names]
    sample = _file(folder, celeba.SAMPLE_FILE)
    if texts[0] is None:
        if not source and (found := parquet.find(folder)):
            return _parquet_layout(found, texts, sample, data_set)
        raise _not_found(folder, names[0], _TEXT_FOLDERS, archive)
    images, unused = source, None
    inner = data_set.image_folder
    if images is None:
        unused = _first(
            _archive(folder, place, data_set.image_archive) for place in _IMAGE_FOLDERS
        )
        images = _first(
            _folder(folder, place, name)
            # Some unpackers put the folder into another one of its name.
            for name in (f"{inner}/{inner}", inner)
            for place in _IMAGE_FOLDERS[::-1]
        )
    if images is None:
        images, unused = unused, None
    if images is None and (found := parquet.find(folder)):
        return _parquet_layout(found, texts, sample, data_set)
    if images is None:
        what = f"{inner}/ and no {data_set.image_archive}"
        raise _not_found(folder, what, _IMAGE_FOLDERS)
    return Layout(*texts, sample, images, unused)


def _parquet_layout(
    found: ParquetSource,
    texts: list[File | None],
    sample: File | None,
    data_set: DataSet,
) -> Layout:
    """Takes from annotation files next to Parquet files only what those lack."""
    found.check_schemas(data_set)
    attributes, partition, identity = texts
    if attributes is None or set(data_set.attributes) & set(found.columns):
        attributes = found
    if partition is None or found.has_splits:
        partition = found
    return Layout(
        attributes,
        partition,
        found if found.identity else identity,
        sample,
        found,
        None,
    )


def _open(location: str, data_set: DataSet) -> tuple[str, str]:
    """Returns the directory to look into, and the name of the zip file in it or ""."""
    if remote.is_remote(location):
        location = location.rstrip("/")
        is_file, is_folder = location.lower().endswith(".zip"), True
    else:
        location = str(Path(location))
        with remote.read_errors(location):
            mode = mode_of(location)
        is_file, is_folder = stat.S_ISREG(mode), stat.S_ISDIR(mode)
    if is_file and location.lower().endswith(".parquet"):
        raise input_error(
            f"--celeba_dir={location} is one Parquet file.",
            "Give the directory that contains it and those of the other splits.",
        )
    if is_file:
        folder, name = os.path.split(location)
        return folder or ".", name
    if is_folder:
        return location, ""
    own = data_set is celeba.CELEBA
    raise input_error(
        f"The {data_set.about.name} directory {location} does not exist.",
        f"Give --celeba_dir the directory with {data_set.attributes_file} and "
        f"{data_set.image_folder}/"
        + (", or make a sample: python -m beam_pipelines.synthesize." if own else "."),
    )


def _file(*parts: str) -> File | None:
    file = File(os.path.join(*parts))
    return file if file.exists() else None


def _folder(*parts: str) -> ImageSource | None:
    path = os.path.join(*parts)
    if remote.is_remote(path):
        there = remote.match(f"{path}/*", 1)  # it may know only prefixes of names
    else:
        with remote.read_errors(path):
            there = stat.S_ISDIR(mode_of(path))
    return FolderSource(path) if there else None


def _names(folder: str) -> list[str]:
    """Some of a directory's contents, for messages."""
    if not remote.is_remote(folder):
        with remote.read_errors(folder):
            return sorted(os.listdir(folder))
    paths = [entry.path for entry in remote.match(f"{folder}/**", 100)]
    return sorted({path[len(folder) + 1 :].partition("/")[0] for path in paths})


def _texts(folder: str, source: ZipSource | None, name: str) -> Iterator[File | None]:
    """The official text file and CSV copies of it; those in the zip file first."""
    spellings = (name, Path(name).stem + ".csv") if name else ()
    if source:
        yield from map(source.member, spellings)
    for place in _TEXT_FOLDERS:
        for spelling in spellings:
            yield _file(folder, place, spelling)


def _archive(*parts: str) -> ZipSource | None:
    file = _file(*parts)
    if file is None:
        return None
    official = file.name == celeba.IMAGE_ARCHIVE
    return ZipSource(file, celeba.IMAGE_ARCHIVE_BYTES if official else 0)


def _first(found: Iterable[_Place | None]) -> _Place | None:
    return next((place for place in found if place), None)


def _not_found(
    folder: str, what: str, places: tuple[str, ...], archive: str = ""
) -> UserError:
    found = _names(folder)
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    looked = [os.path.join(folder, place).rstrip("/") for place in places]
    if archive:
        looked.insert(0, f"{folder}/{archive}")
    zips = [name for name in found if name.lower().endswith(".zip")]
    remedy = "Put it there, or give --celeba_dir the directory that contains it."
    if zips and not archive:
        remedy = f"If {zips[0]} contains it, use --celeba_dir={folder}/{zips[0]}."
    return input_error(
        f"There is no {what}: looked in {' and '.join(looked)}; "
        f"{folder} contains {shown or 'nothing'}.",
        remedy,
    )
