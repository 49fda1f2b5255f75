"""Images to predict: found in files, directories, zip files and patterns, decoded.

There is one decoder for all of them, and it is the build's and the evaluation's: the
same file gives the same pixels everywhere.
"""

import collections
import dataclasses
import functools
import glob
import io
import os
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from support import images
from support.errors import UserError, input_error, usage_error
from support.files import input_errors
from support.images import BadImage

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")

_MOST_NAMES = 3
_UTF8 = 0x800  # flag of a member of a zip file
_ALPHA = (4, 6)  # kinds of PNGs, in their header
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclasses.dataclass(frozen=True)
class InputImage:
    """An image that can be loaded.

    Attributes:
      name: the file's name without directory.
      path: as the user named it; of an image in a zip file, `ZIP/PATH`.
      load: reads and decodes it, see `decode`.
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
      (height, width, 3) uint8, RGB, 0..255; of an image that is transparent anywhere
      (height, width, 4), RGBA, see `on_white`.

    Raises:
      support.images.BadImage: not an image of these kinds, damaged, or too large.
    """
    if not data.startswith(images.PNG):
        # One with an EXIF orientation is encoded again first, as the build does.
        try:
            jpeg, _, _ = images.prepare_jpeg(data)
        except BadImage as error:
            if error.reason != "not a JPEG":
                raise
            raise BadImage("neither JPEG nor PNG", error.detail) from error
        return images.decode_rgb(jpeg)
    # The header comes first, so that a forged size is never allocated.
    width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
    images.check_size(height, width)
    try:
        pixels = tf.io.decode_png(data, channels=3).numpy()
        if data[25] in _ALPHA or images.png_chunk(data, b"tRNS") is not None:
            # Not TensorFlow's four channels: of few bits each they are wrong.
            with Image.open(io.BytesIO(data)) as image:
                alpha = np.asarray(image.convert("RGBA"))[..., 3:]
            if alpha.min() < 255:
                pixels = np.concatenate([pixels, alpha], axis=2)
    except Exception as error:  # both libraries raise several kinds
        raise BadImage("damaged", "the PNG decoder refuses it") from error
    return images.upright(pixels, images.orientation_of(data))


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Composites (height, width, 4) uint8, RGBA, on white; RGB stays as it is."""
    if pixels.shape[2] == 3:
        return pixels
    image = Image.fromarray(pixels)
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image)
    return np.asarray(canvas)


def from_source(
    source: Source, number: int = 0, skipped: list[str] | None = None
) -> list[InputImage]:
    """Finds the images of a path, of bytes or of pixels.

    Args:
      source: the path of a file, directory or zip file, see `find`; the bytes of a JPEG
        or PNG file; pixels (height, width, 3) or, gray, (height, width), uint8, 0..255,
        RGB; or an `InputImage`.
      number: names an image without a name, as `[number]`.
      skipped: gets the paths in a directory or zip file that are not named as images.

    Raises:
      TypeError, ValueError: it is none of these.
    """
    if isinstance(source, InputImage):
        return [source]
    if isinstance(source, str | os.PathLike):
        return _at(os.fspath(source), [] if skipped is None else skipped)
    name = f"[{number}]"
    if isinstance(source, bytes):
        return [InputImage(name, name, functools.partial(decode, source))]
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
    return [InputImage(name, name, lambda: pixels)]


def find(words: Sequence[str], skipped: list[str] | None = None) -> list[InputImage]:
    """Finds the images in files, directories, zip files and patterns.

    A directory stands for the images in it at any depth, by their suffixes (links to
    directories and zip files inside are skipped), a zip file for those in it. A pattern
    (`*`, `?`, `[...]`, and `**` for directories at any depth) stands for its matches.
    Hidden files count only if they are named. A file that is named twice counts once.
    A directory or zip file that is empty or cannot be read becomes an image that cannot
    be loaded, unless nothing else is found.

    Args:
      words: as on a command line.
      skipped: gets the paths in directories and zip files that are not named as images.

    Returns:
      In the order of the words; sorted by name within a directory, zip file or pattern.

    Raises:
      UserError: a URL (exit 2); a path does not exist, a pattern matches nothing, or
        all directories and zip files are empty or cannot be read (3).
    """
    found: dict[str, InputImage] = {}
    for word in words:
        for path in _expand(word):
            for image in from_source(path, skipped=skipped):
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


def counted(paths: Sequence[str]) -> str:
    """The number of some files and the first of their names, for a message."""
    names = [os.path.basename(path) for path in paths[:_MOST_NAMES]]
    rest = [f"{len(paths) - len(names):,} more"] if len(paths) > len(names) else []
    plural = "s" if len(paths) > 1 else ""
    return f"{len(paths):,} other file{plural}: {', '.join(names + rest)}"


def _expand(word: str) -> list[str]:
    """The path itself or, if it is a pattern, its matches."""
    if os.path.exists(word):
        return [word]
    if _URL.match(word):
        raise usage_error(
            f"{word} is a URL; only files on this machine are read.",
            "Download it, and name the file.",
        )
    if not glob.has_magic(word):
        raise input_error(f"{word} does not exist.", "Check the path.")
    paths = sorted(glob.glob(os.path.expanduser(word), recursive=True))
    if not paths:
        raise input_error(
            f"The pattern {word} matches nothing.",
            "Check it; ** stands for directories at any depth, [[] for a [.",
        )
    return paths


def _at(path: str, skipped: list[str]) -> list[InputImage]:
    """The images of a directory or zip file; a file itself."""
    if os.path.isdir(path):
        reader = _in_directory
    elif path.lower().endswith(".zip"):
        reader = _in_zip
    else:
        load = functools.partial(_load_file, path)
        return [InputImage(os.path.basename(path), path, load)]
    others: list[str] = []
    try:
        with input_errors(path):
            found = reader(path, others)
        if not found:
            suffixes = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
            raise input_error(
                f"{path} contains no {suffixes} file"
                f"{f', but {counted(others)}' if others else ''}.",
                "Name images, or directories or zip files with some.",
            )
    except UserError as error:
        return [_unreadable(path, error)]
    skipped += others
    return found


def _in_directory(directory: str, others: list[str]) -> list[InputImage]:
    paths = []
    for root, folders, names in os.walk(directory, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [os.path.join(root, name) for name in names + links]
    return [
        InputImage(os.path.basename(path), path, functools.partial(_load_file, path))
        for path in _images_of(paths, others)
    ]


def _in_zip(path: str, others: list[str]) -> list[InputImage]:
    try:
        archive = zipfile.ZipFile(path)
        members = {
            f"{path}/{_path_of(member)}": member
            for member in archive.infolist()
            if not member.is_dir()
        }
    except OSError:
        raise
    except Exception as error:  # `zipfile` raises many kinds for damage
        cause = f"{path} is not a complete zip file."
        raise input_error(cause, "Download or copy it again.") from error
    return [
        InputImage(
            os.path.basename(name),
            name,
            functools.partial(_load_member, archive, members[name]),
        )
        for name in _images_of(members, others)
    ]


def _path_of(member: zipfile.ZipInfo) -> str:
    """The path of a member with slashes: old programs write UTF-8 without saying so."""
    path = member.filename
    if not (member.flag_bits & _UTF8 or path.isascii()):
        # `zipfile` took the bytes for cp437, or the name from an extra field.
        path = os.fsdecode(member.orig_filename.encode("cp437"))
    return path.replace("\\", "/")


def _images_of(paths: Iterable[str], others: list[str]) -> list[str]:
    """Those that are named as images, sorted; `others` gets the rest but the hidden."""
    shown = [path for path in paths if not os.path.basename(path).startswith(".")]
    others += sorted(path for path in shown if not path.lower().endswith(SUFFIXES))
    return sorted(path for path in shown if path.lower().endswith(SUFFIXES))


def _load_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    images.check_bytes(member.file_size)
    try:
        data = archive.read(member)  # no more than the size that it claims
    except (OSError, RuntimeError) as error:  # encrypted, or an unknown method
        raise BadImage("unreadable", f"in the zip file: {error}") from error
    except Exception as error:  # many kinds, again
        raise BadImage("damaged", f"in the zip file: {error}") from error
    return decode(data)


def _load_file(name: str) -> np.ndarray:
    path = Path(name)
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe might never end
            raise BadImage("unreadable", "not a regular file")
        images.check_bytes(size)
        return decode(path.read_bytes())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if _URL.match(name):
            reason = "a URL; only files on this machine are read"
        raise BadImage("unreadable", reason) from error


def _unreadable(path: str, problem: UserError) -> InputImage:
    """A placeholder of a directory or zip file in which no image can be found."""

    def load() -> np.ndarray:
        raise BadImage("unreadable", problem.cause)

    return InputImage(os.path.basename(os.path.abspath(path)), path, load, problem)


def _raise(error: OSError) -> None:
    raise error
