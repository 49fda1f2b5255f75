"""Where the parts of CelebA lie: in a folder, in a zip file, here or in a bucket."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from beam_pipelines.sources import remote
from beam_pipelines.writing import store as stores
from schemas import celeba
from support.errors import ExitCode, UserError
from support.folders import Folder, ImageSource, InputFile, LocalFolder
from support.zips import ZipSource

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

    attributes: InputFile
    partition: InputFile | None
    identity: InputFile | None
    sample: InputFile | None
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
    sample = folder.text(celeba.SAMPLE_FILE)
    return Layout(*texts.values(), sample=sample, images=images, unused=unused)


def _open(location: str) -> tuple[Folder, str]:
    """Returns the folder to look into, and the name of the zip file in it or ""."""
    if stores.is_remote(location):
        location = location.rstrip("/")
        parent, _, name = location.rpartition("/")
        if name.lower().endswith(".zip"):
            return remote.RemoteFolder(parent), name
        return remote.RemoteFolder(location), ""
    path = Path(location)
    if path.is_file():
        return LocalFolder(path.parent), path.name
    if path.is_dir():
        return LocalFolder(path), ""
    raise _input_error(
        f"The CelebA folder {path} does not exist.",
        f"Give --celeba_dir the folder that holds {celeba.ATTRIBUTES_FILE} and "
        f"{celeba.IMAGE_FOLDER}/, or make a sample with "
        "python -m beam_pipelines.synthesize.",
    )


def _find_text(folder: Folder, source: ZipSource | None, name: str) -> InputFile | None:
    """The official text file or a CSV copy of it; in the zip file first."""
    spellings = (name, Path(name).stem + ".csv")
    found: Iterator[InputFile | None] = (
        source.member(spelling) for spelling in spellings if source
    )
    beside = (
        folder.text(_inside(place, spelling))
        for place in _TEXT_FOLDERS
        for spelling in spellings
    )
    return next((file for files in (found, beside) for file in files if file), None)


def _find_folder(folder: Folder) -> ImageSource | None:
    for name in (_DOUBLED, celeba.IMAGE_FOLDER):
        for place in _IMAGE_FOLDERS[::-1]:
            source = folder.images(_inside(place, name))
            if source:
                return source
    return None


def _find_zip(folder: Folder) -> ZipSource | None:
    places = (_inside(place, celeba.IMAGE_ARCHIVE) for place in _IMAGE_FOLDERS)
    found = (_zip_source(folder, place) for place in places)
    return next((source for source in found if source), None)


def _zip_source(folder: Folder, name: str) -> ZipSource | None:
    file = folder.archive(name)
    if file is None:
        return None
    official = file.name == celeba.IMAGE_ARCHIVE
    return ZipSource(file, celeba.IMAGE_ARCHIVE_BYTES if official else 0)


def _inside(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def _not_found(
    folder: Folder, what: str, places: tuple[str, ...], archive: str = ""
) -> UserError:
    found = folder.names()
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    looked = [_inside(str(folder), place).rstrip("/") for place in places]
    if archive:
        looked.insert(0, f"{folder}/{archive}")
    zips = [name for name in found if name.lower().endswith(".zip")]
    remedy = "Put it there, or give --celeba_dir the folder that holds it."
    if zips and not archive:
        remedy = f"If {zips[0]} holds it, use --celeba_dir={folder}/{zips[0]}."
    return _input_error(
        f"There is no {what}: looked in {' and '.join(looked)}; "
        f"{folder} holds {shown or 'nothing'}.",
        remedy,
    )


def _input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)
