"""Images to predict: found in files, directories, zip files and patterns, decoded.

There is one decoder for all of them, and it is the build's and the evaluation's: the
same file gives the same pixels everywhere.
"""

import collections
import dataclasses
import functools
import glob
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from support import images
from support.errors import UserError, input_error
from support.files import input_errors, megabytes
from support.images import BadImage
from trainer.inference import zips

SUFFIXES = (".jpg", ".jpeg", ".png")

#: Larger files, and members of zip files, are refused before they are read.
_MAX_BYTES = 64_000_000
_PNG = b"\x89PNG"


@dataclasses.dataclass(frozen=True)
class InputImage:
    """An image that can be loaded.

    Attributes:
      name: the file's name without directory.
      path: as the user named it; of an image in a zip file, `ZIP/PATH`.
      load: reads and decodes it: (height, width, 3) uint8, RGB, 0..255; raises
        `support.images.BadImage`.
      problem: why a directory or zip file, which this stands for, gives no image.
    """

    name: str
    path: str
    load: Callable[[], np.ndarray]
    problem: UserError | None = None


#: Inputs of a prediction: a path, the bytes of a file, pixels, or a result of `find`.
Source = str | os.PathLike | bytes | np.ndarray | InputImage


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG file, its EXIF orientation applied.

    Returns:
      (height, width, 3) uint8, RGB, 0..255.

    Raises:
      support.images.BadImage: not an image of these kinds, damaged, or too large.
    """
    if data.startswith(_PNG):
        return _decode_png(data)
    # An image that must be turned is encoded again first, as the build does.
    jpeg, _, _ = images.prepare_jpeg(data)
    return images.decode_rgb(jpeg)


def _decode_png(data: bytes) -> np.ndarray:
    # The header comes first, so that a forged size is never allocated.
    width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
    if max(height, width) > images.MAX_SIDE or height * width > images.MAX_PIXELS:
        raise BadImage("too large", f"{height}x{width} pixels")
    try:
        pixels = tf.io.decode_png(data, channels=3).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise BadImage("damaged", "the PNG decoder refuses it") from error
    return images.upright(pixels, images.orientation_of(data))


def from_source(source: Source, number: int) -> InputImage:
    """An image from a path, bytes or pixels.

    Args:
      source: a file's path; the bytes of a JPEG or PNG file; pixels (height, width, 3)
        or, gray, (height, width), uint8, 0..255, RGB; or an `InputImage`.
      number: names an image without a name, as `[number]`.

    Raises:
      TypeError, ValueError: it is none of these.
    """
    if isinstance(source, InputImage):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return InputImage(path.name, os.fspath(source), lambda: decode(_read(path)))
    name = f"[{number}]"
    if isinstance(source, bytes):
        return InputImage(name, name, functools.partial(decode, source))
    if not isinstance(source, np.ndarray):
        raise TypeError(
            f"image {name} is a {type(source).__name__}: give a path, the bytes of a "
            "file, or an array"
        )
    gray, color = source.ndim == 2, source.ndim == 3 and source.shape[2] == 3
    if source.dtype != np.uint8 or not (gray or color) or not source.size:
        raise ValueError(
            f"image {name} is an array {source.shape} {source.dtype}: give (height, "
            "width, 3) uint8, RGB 0..255, or (height, width) for gray"
        )
    pixels = np.repeat(source[..., None], 3, axis=2) if gray else source
    return InputImage(name, name, lambda: pixels)


def find(words: Sequence[str]) -> list[InputImage]:
    """Finds the images in files, directories, zip files and patterns.

    A directory stands for the images in it at any depth, by their suffixes (links to
    directories and zip files inside are skipped), a zip file for those in it. A pattern
    (`*`, `?`, `[...]`, and `**` for directories at any depth) stands for its matches.
    Hidden files count only if they are named. A file that is named twice counts once.
    A directory or zip file that is empty or cannot be read becomes an image that cannot
    be loaded, unless nothing else is found.

    Args:
      words: as on a command line.

    Returns:
      In the order of the words; sorted by name within a directory, zip file or pattern.

    Raises:
      UserError: exit 3, a path does not exist, a pattern matches nothing, or all
        directories and zip files are empty or cannot be read.
    """
    found: dict[str, InputImage] = {}
    for word in words:
        matches = [image for path in _expand(word) for image in _images_at(path)]
        for image in matches or [_empty(word)]:
            found.setdefault(os.path.abspath(image.path), image)
    problems = [image.problem for image in found.values() if image.problem]
    if problems and len(problems) == len(found):
        raise problems[0]
    return list(found.values())


def image_ids(found: Sequence[InputImage]) -> list[str]:
    """Each image's name or, where several have one name, its path."""
    count = collections.Counter(image.name for image in found)
    return [
        in_utf8(image.name if count[image.name] == 1 else image.path) for image in found
    ]


def in_utf8(name: str) -> str:
    """A name that can be written: old disks and zip files have some in no UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _expand(word: str) -> list[str]:
    """The path itself or, if it is a pattern, its matches."""
    if os.path.exists(word):
        return [word]
    if not glob.has_magic(word):
        raise input_error(f"{word} does not exist.", "Check the path.")
    paths = sorted(glob.glob(os.path.expanduser(word), recursive=True))
    if not paths:
        raise input_error(
            f"The pattern {word} matches nothing.",
            "Check it; ** stands for directories at any depth.",
        )
    return paths


def _images_at(path: str) -> list[InputImage]:
    """The images of a directory or zip file; a file itself."""
    try:
        if os.path.isdir(path):
            return _in_directory(path)
        if path.lower().endswith(".zip"):
            return _in_zip(path)
    except UserError as error:
        return [_unreadable(path, error)]
    return [from_source(path, 0)]


def _in_directory(directory: str) -> list[InputImage]:
    paths = []
    with input_errors(directory):
        for root, folders, names in os.walk(directory, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths += [os.path.join(root, name) for name in names if _is_image(name)]
    return [from_source(path, 0) for path in sorted(paths)]


def _in_zip(path: str) -> list[InputImage]:
    with input_errors(path):
        try:
            archive = zipfile.ZipFile(path)
        except zips.DAMAGED as error:
            cause = f"{path} is not a complete zip file."
            raise input_error(cause, "Download or copy it again.") from error
    members = {
        zips.path_of(member, "surrogateescape"): member for member in archive.infolist()
    }
    return [
        InputImage(
            os.path.basename(name),
            f"{path}/{name}",
            functools.partial(_load_member, archive, member),
        )
        for name, member in sorted(members.items())
        if _is_image(os.path.basename(name))
    ]


def _load_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.file_size > _MAX_BYTES:
        raise BadImage("too large", megabytes(member.file_size))
    try:
        data = archive.read(member)  # no more than the size that it claims
    except (OSError, RuntimeError) as error:  # encrypted, or an unknown method
        raise BadImage("unreadable", f"in the zip file: {error}") from error
    except zips.DAMAGED as error:
        raise BadImage("damaged", f"in the zip file: {error}") from error
    return decode(data)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe might never end
            raise BadImage("unreadable", "not a regular file")
        if size > _MAX_BYTES:
            raise BadImage("too large", megabytes(size))
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadImage("unreadable", reason) from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _empty(word: str) -> InputImage:
    cause = f"{word} contains no .jpg, .jpeg or .png file."
    remedy = "Name images, or directories or zip files with some."
    return _unreadable(word, input_error(cause, remedy))


def _unreadable(path: str, problem: UserError) -> InputImage:
    """A placeholder of a directory or zip file in which no image can be found."""

    def load() -> np.ndarray:
        raise BadImage("unreadable", problem.cause)

    return InputImage(os.path.basename(os.path.abspath(path)), path, load, problem)


def _raise(error: OSError) -> None:
    raise error
