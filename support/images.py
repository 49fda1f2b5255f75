"""JPEG images: checked, EXIF orientation applied, resized."""

import io
import os
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from support.errors import usage_error
from support.files import megabytes

#: Quality and subsampling of the JPEGs that are encoded again. 95 without chroma
#: subsampling keeps the loss below what the source's own encoding lost.
JPEG_QUALITY = 95
SUBSAMPLING = "444"
ENCODING = f"JPEG, quality {JPEG_QUALITY}, subsampling {':'.join(SUBSAMPLING)}"

#: Larger images are refused by their header, before any memory is taken for them.
MAX_SIDE, MAX_PIXELS = 16_384, 50_000_000
#: Larger files are refused before they are read or unpacked.
MAX_BYTES = 64_000_000

#: A JPEG's smallest block, of 8×8 pixels, takes a bit or more.
_PIXELS_PER_BYTE = 512
#: Pixels times scans that a decoder may have to go over; 14 scans are many.
_MAX_WORK = 2_000_000_000
_SCAN_BYTES = 10  # of the shortest scan

_SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image",
    b"BM": "a BMP image",
    b"PK\x03\x04": "a zip file",
    b"<": "a web page or another text",
}
PNG = b"\x89PNG"  # what a PNG image begins with

_SEGMENT = struct.Struct(">BBH")  # of a JPEG: 255, kind, length from the length on
_CHUNK = struct.Struct(">I4s")  # of a PNG: length, kind; then the data and 4 bytes
_APP1, _END, _SCAN, _FILL = 0xE1, 0xD9, 0xDA, 0xFF  # kinds of segments
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # a field of EXIF
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "L"}  # kinds of fields
_FILLS = re.compile(rb"\xff+")
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # between pixels
_MOST_PARTS = 100_000  # segments or chunks of one image

warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd PNGs


class BadImage(Exception):
    """An image that cannot be used.

    Attributes:
      reason: a short fixed word or phrase to count by, for example "truncated".
      detail: what exactly was found.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def require_local(path: str, flag: str) -> Path:
    """A flag's value as a local path.

    Raises:
      UserError: exit 2, for an empty path, one of a remote scheme such as `s3://`, or
        a `~` that the shell left as it is.
    """
    if path.startswith("~"):
        raise usage_error(
            f"--{flag}={path}: the shell does not replace a ~ behind an equals sign.",
            f"Write --{flag}={os.path.expanduser(path)}.",
        )
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", path)
    if scheme or not path:
        what = f"the scheme {scheme[0]} is not supported" if scheme else "no directory"
        raise usage_error(
            f"--{flag}={path}: {what}.",
            "Give a directory on this machine; copy or mount remote data first.",
        )
    return Path(path)


def check_header(data: bytes) -> tuple[int, int, str, int]:
    """Checks a JPEG's header: signature, size, colors.

    Returns:
      height and width in pixels, the color space ("Gray", "RGB" or "YCbCr"), and the
      EXIF orientation, 1 to 8.

    Raises:
      BadImage: with the reason and what was found.
    """
    if data[:2] != b"\xff\xd8":
        raise BadImage(*_what_instead(data))
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if b"\xff\xda" not in data:
            raise BadImage("truncated", "it ends before its pixels") from error
        raise BadImage("damaged", _message(error)) from error
    check_size(height, width)
    _check_work(data, height * width)
    if colors not in ("YCbCr", "RGB", "Gray"):
        raise BadImage("color space", f"{colors}; RGB and grayscale are accepted")
    return height, width, colors, orientation_of(data)


def check_size(height: int, width: int) -> None:
    """Refuses an image by its size in pixels; raises `BadImage`."""
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise BadImage("too large", f"{height}x{width} pixels")


def check_bytes(count: int) -> None:
    """Refuses an image by the size of its file; raises `BadImage`."""
    if count > MAX_BYTES:
        raise BadImage("too large", megabytes(count))


def _check_work(data: bytes, pixels: int) -> None:
    """Refuses a few bytes that would take much memory or time to decode."""
    if pixels > _PIXELS_PER_BYTE * len(data):
        what = f"{len(data):,} bytes cannot hold {pixels:,} pixels"
        raise BadImage("truncated", what)
    if pixels * (len(data) // _SCAN_BYTES) > _MAX_WORK:  # else not worth a search
        scans = _count_scans(data)
        if pixels * scans > _MAX_WORK:
            raise BadImage("too large", f"{scans:,} scans of {pixels:,} pixels")


def _count_scans(data: bytes) -> int:
    """How often a JPEG goes over its pixels."""
    at, scans = 2, 0
    while marker := _MARKER.search(data, at):
        kind, at = data[marker.end() - 1], marker.end()
        if kind == _END or at + 2 > len(data):
            break
        scans += kind == _SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return scans


def prepare_jpeg(
    data: bytes, size: tuple[int, int] | None = None
) -> tuple[bytes, tuple[int, int], bool]:
    """Checks a JPEG to its last bit, applies its EXIF orientation and resizes it.

    The bytes stay as they are unless the EXIF orientation or `size` changes the image;
    then it is encoded again with `JPEG_QUALITY`.

    Args:
      data: the JPEG file.
      size: (height, width) to resize to, None to keep the size.

    Returns:
      the JPEG file, its (height, width), and whether an orientation was applied.

    Raises:
      BadImage: with the reason and what was found.
    """
    height, width, colors, orientation = check_header(data)
    if orientation == 1 and size in (None, (height, width)):
        # At an eighth of the scale and in gray, which takes half the time of a full
        # decode and finds the same damage.
        _decode(data, "GRAY", min_height=1, min_width=1)
        return data, (height, width), False
    gray = colors == "Gray"
    pixels = upright(_decode(data, "GRAY" if gray else "RGB"), orientation)
    if size is not None:
        pixels = resize(pixels, size)
    return encode_jpeg(pixels), pixels.shape[:2], orientation != 1


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Encodes an image (height, width, 1 or 3) uint8 as a JPEG, with `JPEG_QUALITY`."""
    gray = pixels.shape[2] == 1
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=JPEG_QUALITY,
        colorspace="GRAY" if gray else "RGB",
        colorsubsampling="Gray" if gray else SUBSAMPLING,
    )


def png_to_jpeg(data: bytes) -> bytes:
    """Encodes a PNG image as JPEG; leaves all else, and PNG that is damaged, as it is.

    Grayscale stays grayscale; an EXIF orientation is applied.
    """
    if not data.startswith(PNG):
        return data
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_size(image.height, image.width)
            if data[24] == 16:  # bits, of which Pillow would drop 8
                return data
            if image.has_transparency_data:
                alpha = image.convert("RGBA").getchannel("A")
                if alpha.getextrema()[0] < 255:
                    return data
            gray = image.mode in ("1", "L", "LA")
            pixels = np.asarray(image.convert("L" if gray else "RGB"))
    except Exception:  # whatever Pillow raises for a damaged file
        return data
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return encode_jpeg(upright(pixels, orientation_of(data)))


def decode_rgb(data: bytes) -> np.ndarray:
    """Decodes a JPEG exactly: the accurate DCT, smooth chroma, any damage an error.

    Args:
      data: the JPEG file, RGB or grayscale.

    Returns:
      (height, width, 3) uint8, RGB.

    Raises:
      BadImage: with the reason and what was found.
    """
    return _decode(data, "RGB")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation (1 to 8) to an image (height, width, channels)."""
    if orientation >= 5:  # stored with rows and columns exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image with Pillow: bilinear, antialiased.

    `tf.image.resize(antialias=True)` differs by one level at most.

    Args:
      pixels: (height, width, channels) uint8; 1 or 3 channels.
      size: (height, width) of the result.

    Returns:
      (*size, channels) uint8.
    """
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    resized = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(*size, -1)


def orientation_of(data: bytes) -> int:
    """The EXIF orientation of a JPEG or PNG, 1 if it states none or an invalid one.

    Returns:
      1 to 8, as `upright` takes it.
    """
    try:
        is_png = data.startswith(PNG)
        block = png_chunk(data, b"eXIf") if is_png else _exif_of_jpeg(data)
        value = _orientation_in(block or b"")
    except (struct.error, KeyError):  # damaged metadata
        return 1
    return value if value in range(1, 9) else 1


def _orientation_in(block: bytes) -> int:
    """Looks the orientation up in EXIF's first list of fields; 0 if it is not there.

    Pillow copies what every field points to: 64 kB that name each other 5,000 times.
    """
    tiff = block.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
    (start,) = struct.unpack_from(order + "4xL", tiff)
    (fields,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, start + 2 + 12 * fields, 12):
        tag, kind, count = struct.unpack_from(order + "HHL", tiff, at)
        if tag == _ORIENTATION and count == 1 and kind in _WHOLE_NUMBERS:
            form = order + _WHOLE_NUMBERS[kind]
            return struct.unpack_from(form, tiff, at + 8)[0]
    return 0


def png_chunk(data: bytes, expected: bytes) -> bytes | None:
    """The content of a PNG's first chunk of a kind, before or behind the pixels."""
    at = 8
    for _ in range(_MOST_PARTS):
        if at + _CHUNK.size > len(data):
            break
        length, kind = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        if kind == expected:
            return data[at : at + length]
        at += length + 4
    return None


def _exif_of_jpeg(data: bytes) -> bytes | None:
    """Walks the segments of the header, at a hundredth of the cost of Pillow's."""
    at = 2
    for _ in range(_MOST_PARTS):
        mark, kind, length = _SEGMENT.unpack_from(data, at)
        if kind == _FILL:  # any number of them may precede a kind
            at = _FILLS.match(data, at).end() - 1
        elif mark != _FILL or kind == _SCAN:
            return None
        elif kind == _APP1 and data.startswith(_EXIF, at + _SEGMENT.size):
            return data[at + _SEGMENT.size : at + 2 + length]
        else:
            at += 2 + length
    return None


def _decode(data: bytes, colors: str, **scale: int) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, colors, fastdct=bool(scale), **scale)
    except ValueError as error:
        message = _message(error)
        cut = "premature end" in message.lower()
        raise BadImage("truncated" if cut else "damaged", message) from error


def _message(error: ValueError) -> str:
    return " ".join(str(error).split())


def _what_instead(data: bytes) -> tuple[str, str]:
    if not data:
        return "empty", "0 bytes"
    text = data.lstrip()
    for signature, name in _SIGNATURES.items():
        if text.startswith(signature):
            return "not a JPEG", f"it is {name}"
    start = b" ".join(text[:40].split()).decode("latin-1")
    if start.isascii() and start.isprintable():
        return "not a JPEG", f"it is text: {start!r}"
    return "not a JPEG", f"it begins with the bytes {data[:8].hex(' ')}"
