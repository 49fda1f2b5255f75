"""Pictures to predict: found in files, folders, zip files and patterns, decoded.

There is one decoder for all of them, and it is the build's and the evaluation's: the
same file gives the same pixels everywhere.
"""

import collections
import dataclasses
import functools
import glob
import itertools
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from support import images
from support.errors import ExitCode, UserError
from support.files import input_errors, megabytes
from support.folders import LocalFile
from support.zips import MAX_MEMBER_BYTES, ZipSource

SUFFIXES = (".jpg", ".jpeg", ".png")

#: Larger files are refused before they are read, as in zip files.
_MAX_BYTES = MAX_MEMBER_BYTES
_PNG = b"\x89PNG"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that can be loaded.

    Attributes:
      name: the file's name without folder.
      path: as the user named it; of a picture in a zip file, `ZIP/PATH`.
      load: reads and decodes it: (height, width, 3) uint8, RGB; raises
        `images.BadImage`.
    """

    name: str
    path: str
    load: Callable[[], np.ndarray]


#: What can be predicted: a path, the bytes of a file, pixels, or what `find` found.
Source = str | os.PathLike | bytes | np.ndarray | Picture


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG file; a JPEG is turned upright by its EXIF orientation.

    Returns:
      (height, width, 3) uint8, RGB.

    Raises:
      images.BadImage: not a picture of these kinds, damaged, or too large.
    """
    if data.startswith(_PNG):
        return _decode_png(data)
    # What must be turned is encoded again first: the build writes it so.
    jpeg, _, _ = images.prepare_jpeg(data)
    return images.decode_rgb(jpeg)


def _decode_png(data: bytes) -> np.ndarray:
    # The header comes first, so that a forged size is never allocated.
    width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
    if max(height, width) > images.MAX_SIDE or height * width > images.MAX_PIXELS:
        raise images.BadImage("too large", f"{height}x{width} pixels")
    try:
        return tf.io.decode_png(data, channels=3).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise images.BadImage("damaged", "the PNG decoder refuses it") from error


def of(source: Source, number: int) -> Picture:
    """A picture of whatever a program has at hand.

    Args:
      source: a file's path; the bytes of a JPEG or PNG file; pixels (height, width, 3)
        or, gray, (height, width), uint8, 0..255, RGB; or a `Picture`.
      number: names what has no name, as `[number]`.

    Raises:
      TypeError, ValueError: it is none of these.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return Picture(os.path.basename(path), path, functools.partial(_load, path))
    name = f"[{number}]"
    if isinstance(source, bytes):
        return Picture(name, name, functools.partial(decode, source))
    if not isinstance(source, np.ndarray):
        raise TypeError(
            f"picture {name} is a {type(source).__name__}: give a path, the bytes of a "
            "file, or an array"
        )
    gray, color = source.ndim == 2, source.ndim == 3 and source.shape[2] == 3
    if source.dtype != np.uint8 or not (gray or color) or not source.size:
        raise ValueError(
            f"picture {name} is an array {source.shape} {source.dtype}: give (height, "
            "width, 3) uint8, RGB 0..255, or (height, width) for gray"
        )
    pixels = np.repeat(source[..., None], 3, axis=2) if gray else source
    return Picture(name, name, lambda: pixels)


def find(words: Sequence[str]) -> list[Picture]:
    """Finds the pictures in files, folders, zip files and patterns.

    A folder stands for the pictures in it at any depth, by their suffixes (links to
    folders and zip files inside are left alone), a zip file for those in it. A pattern
    (`*`, `?`, `[...]`, and `**` for folders at any depth) stands for what it matches.
    Hidden files count only if they are named. What is named twice counts once.

    Args:
      words: as on a command line.

    Returns:
      In the order of the words; sorted by name within a folder, zip file or pattern.

    A folder or zip file that is empty or cannot be read is a picture that cannot be
    loaded, unless nothing else is found.

    Raises:
      UserError: exit 3, a path does not exist, a pattern matches nothing, or all
        folders and zip files are empty or cannot be read.
    """
    found: dict[str, Picture] = {}
    problems: dict[str, UserError] = {}
    for word in words:
        here = []
        for path in _expand(word):
            try:
                here += _pictures(path)
            except UserError as error:
                problems.setdefault(os.path.abspath(path), error)
                here.append(_unreadable(path, error.cause))
        if not here:
            cause = f"{word} holds no .jpg, .jpeg or .png file."
            remedy = "Name pictures, or folders or zip files that hold some."
            error = _input_error(cause, remedy)
            problems.setdefault(os.path.abspath(word), error)
            here = [_unreadable(word, cause)]
        for picture in here:
            found.setdefault(os.path.abspath(picture.path), picture)
    if problems and len(problems) == len(found):
        raise next(iter(problems.values()))
    return list(found.values())


def image_ids(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Each picture's name or, where several have one name, its path."""
    count = collections.Counter(names)
    return [
        in_utf8(name if count[name] == 1 else path)
        for name, path in zip(names, paths, strict=True)
    ]


def in_utf8(name: str) -> str:
    """A name that can be written: old disks and zip files hold some in no UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def in_groups(sources: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Cuts a sequence into lists of `size`; the last may be shorter."""
    sources = iter(sources)
    while group := list(itertools.islice(sources, size)):
        yield group


def _expand(word: str) -> list[str]:
    """The path itself or, if it is a pattern, what it matches."""
    if os.path.exists(word):
        return [word]
    if not glob.has_magic(word):
        raise _input_error(f"{word} does not exist.", "Check the path.")
    paths = sorted(glob.glob(os.path.expanduser(word), recursive=True))
    if not paths:
        raise _input_error(
            f"The pattern {word} matches nothing.",
            "Check it; ** stands for folders at any depth.",
        )
    return paths


def _unreadable(path: str, why: str) -> Picture:
    """What stands for a folder or zip file in which no picture can be found."""

    def load() -> np.ndarray:
        raise images.BadImage("unreadable", why)

    return Picture(os.path.basename(os.path.abspath(path)), path, load)


def _pictures(path: str) -> list[Picture]:
    if os.path.isdir(path):
        return _in_folder(path)
    return _in_zip(path) if path.lower().endswith(".zip") else [of(path, 0)]


def _in_folder(folder: str) -> list[Picture]:
    paths = []
    with input_errors(folder):
        for root, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths += [os.path.join(root, name) for name in names if _is_picture(name)]
    return [of(path, 0) for path in sorted(paths)]


def _in_zip(path: str) -> list[Picture]:
    with input_errors(path):
        source = ZipSource(LocalFile(path), by_path=True)
        listed = source.list().names.tolist()
    members = [member.decode(errors="surrogateescape") for member in listed]
    return [
        Picture(
            os.path.basename(member),
            f"{path}/{member}",
            functools.partial(_load_member, source, member),
        )
        for member in sorted(members)
        if _is_picture(os.path.basename(member))
    ]


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _load(path: str) -> np.ndarray:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe might never end
            raise images.BadImage("unreadable", "not a regular file")
        if status.st_size > _MAX_BYTES:
            raise images.BadImage("too large", megabytes(status.st_size))
        data = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise images.BadImage("unreadable", reason) from error
    return decode(data)


def _load_member(source: ZipSource, member: str) -> np.ndarray:
    try:
        data = source.read(member)
    except UserError as error:
        raise images.BadImage("unreadable", error.cause) from error
    return decode(data)


def _raise(error: OSError) -> None:
    raise error


def _input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)
