"""Where the parts of CelebA lie: in a folder, in a zip file, here or in a bucket."""

import dataclasses
import itertools
import os
from pathlib import Path

from beam_pipelines.sources import remote
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import File
from beam_pipelines.sources.images import FolderSource, ImageSource
from schemas import celeba
from support.errors import UserError, input_error

#: Folders inside the CelebA folder where a file may lie: the official archive's own.
_TEXT_FOLDERS = ("", "Anno", "Eval")
_IMAGE_FOLDERS = ("", "Img")
#: Some unpackers put the folder into another one of its name: that is looked at first.
_DOUBLED = f"{celeba.IMAGE_FOLDER}/{celeba.IMAGE_FOLDER}"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the parts of CelebA lie; None for an optional file that is not there.

    Attributes:
      attributes, partition, identity: the annotation files.
      sample: the file that says that the faces are drawn.
      images: the folder or zip file that is read.
      unused: a zip file of the images beside the folder that is read instead.
    """

    attributes: File
    partition: File | None
    identity: File | None
    sample: File | None
    images: ImageSource
    unused: ZipSource | None


def find_layout(location: str) -> Layout:
    """Finds the annotation files and the images.

    Args:
      location: a folder, or a zip file that holds the images; then the annotation
        files lie in it or beside it. Local, or of a scheme that Beam serves.

    Raises:
      UserError: exit 3, saying what was looked for and what is there.
    """
    folder, archive = _open(location)
    source = _zip_source(folder, archive) if archive else None
    texts = {
        name: _find_text(folder, source, name)
        for name in (
            celeba.ATTRIBUTES_FILE,
            celeba.PARTITION_FILE,
            celeba.IDENTITY_FILE,
        )
    }
    if texts[celeba.ATTRIBUTES_FILE] is None:
        raise _not_found(folder, celeba.ATTRIBUTES_FILE, _TEXT_FOLDERS, archive)
    beside = None if source else _find_zip(folder)
    images = source or _find_folder(folder) or beside
    if images is None:
        what = f"{celeba.IMAGE_FOLDER}/ and no {celeba.IMAGE_ARCHIVE}"
        raise _not_found(folder, what, _IMAGE_FOLDERS)
    unused = None if images is beside else beside
    sample = _file(folder, celeba.SAMPLE_FILE)
    return Layout(*texts.values(), sample=sample, images=images, unused=unused)


def _open(location: str) -> tuple[str, str]:
    """Returns the folder to look into, and the name of the zip file in it or ""."""
    if remote.is_remote(location):
        location = location.rstrip("/")
        is_file, is_folder = location.lower().endswith(".zip"), True
    else:
        location = str(Path(location))
        is_file, is_folder = os.path.isfile(location), os.path.isdir(location)
    if is_file:
        folder, name = os.path.split(location)
        return folder or ".", name
    if is_folder:
        return location, ""
    raise input_error(
        f"The CelebA folder {location} does not exist.",
        f"Give --celeba_dir the folder that holds {celeba.ATTRIBUTES_FILE} and "
        f"{celeba.IMAGE_FOLDER}/, or make a sample with "
        "python -m beam_pipelines.synthesize.",
    )


def _file(*parts: str) -> File | None:
    file = File(os.path.join(*parts))
    return file if file.exists() else None


def _folder(*parts: str) -> ImageSource | None:
    path = os.path.join(*parts)
    # Remote file systems may know only prefixes of names.
    there = (
        remote.match(f"{path}/*", 1) if remote.is_remote(path) else os.path.isdir(path)
    )
    return FolderSource(path) if there else None


def _names(folder: str) -> list[str]:
    """Some of what a folder holds, for messages."""
    if not remote.is_remote(folder):
        with remote.read_errors(folder):
            return sorted(os.listdir(folder))
    paths = [entry.path for entry in remote.match(f"{folder}/**", 100)]
    return sorted({path[len(folder) + 1 :].partition("/")[0] for path in paths})


def _find_text(folder: str, source: ZipSource | None, name: str) -> File | None:
    """The official text file or a CSV copy of it; in the zip file first."""
    spellings = (name, Path(name).stem + ".csv")
    inside = (source.member(spelling) for spelling in spellings if source)
    outside = (
        _file(folder, place, spelling)
        for place in _TEXT_FOLDERS
        for spelling in spellings
    )
    return next(filter(None, itertools.chain(inside, outside)), None)


def _find_folder(folder: str) -> ImageSource | None:
    found = (
        _folder(folder, place, name)
        for name in (_DOUBLED, celeba.IMAGE_FOLDER)
        for place in _IMAGE_FOLDERS[::-1]
    )
    return next(filter(None, found), None)


def _find_zip(folder: str) -> ZipSource | None:
    found = (
        _zip_source(folder, place, celeba.IMAGE_ARCHIVE) for place in _IMAGE_FOLDERS
    )
    return next(filter(None, found), None)


def _zip_source(*parts: str) -> ZipSource | None:
    file = _file(*parts)
    if file is None:
        return None
    official = file.name == celeba.IMAGE_ARCHIVE
    return ZipSource(file, celeba.IMAGE_ARCHIVE_BYTES if official else 0)


def _not_found(
    folder: str, what: str, places: tuple[str, ...], archive: str = ""
) -> UserError:
    found = _names(folder)
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    looked = [os.path.join(folder, place).rstrip("/") for place in places]
    if archive:
        looked.insert(0, f"{folder}/{archive}")
    zips = [name for name in found if name.lower().endswith(".zip")]
    remedy = "Put it there, or give --celeba_dir the folder that holds it."
    if zips and not archive:
        remedy = f"If {zips[0]} holds it, use --celeba_dir={folder}/{zips[0]}."
    return input_error(
        f"There is no {what}: looked in {' and '.join(looked)}; "
        f"{folder} holds {shown or 'nothing'}.",
        remedy,
    )
