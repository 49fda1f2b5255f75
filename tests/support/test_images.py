"""Images are what they seem to be: checked, upright, resized; nothing else gets in."""

import hashlib
import io
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from support import images
from support.errors import ExitCode, UserError


def image(height=48, width=40):
    """(height, width, 3) uint8 whose four quarters differ."""
    rng = np.random.default_rng(0)
    quarters = rng.integers(0, 256, (2, 2, 3))
    return np.kron(quarters, np.ones((height // 2, width // 2, 1))).astype(np.uint8)


def jpeg(pixels=None, **options):
    return simplejpeg.encode_jpeg(image() if pixels is None else pixels, **options)


def gray_jpeg():
    pixels = image()[:, :, :1].copy()
    return jpeg(pixels, colorspace="GRAY", colorsubsampling="Gray")


def with_exif(data, orientation, order="<"):
    """Puts an EXIF segment of one field in front of a JPEG."""
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(f"{order}HI", 42, 8)
    tiff += struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return (
        data[:2]
        + b"\xff\xe1"
        + struct.pack(">H", len(segment) + 2)
        + segment
        + data[2:]
    )


def reason_of(data):
    with pytest.raises(images.BadImage) as caught:
        images.prepare_jpeg(data)
    return caught.value.reason, caught.value.detail


def test_good_images_pass_untouched():
    data = jpeg()
    assert images.check_header(data) == (48, 40, "YCbCr", 1)
    assert images.prepare_jpeg(data) == (data, (48, 40), False)
    assert images.prepare_jpeg(data, (48, 40)) == (data, (48, 40), False)
    gray = gray_jpeg()
    assert images.prepare_jpeg(gray) == (gray, (48, 40), False)


def test_decoding_is_exact():
    pixels = images.decode_rgb(jpeg())
    np.testing.assert_array_equal(pixels, Image.open(io.BytesIO(jpeg())))
    gray = gray_jpeg()
    assert len(set(images.decode_rgb(gray)[0, 0].tolist())) == 1


def test_every_cut_is_detected():
    data = jpeg(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    for length in range(2, len(data) - 2):
        assert reason_of(data[:length])[0] in ("truncated", "damaged")


@pytest.mark.parametrize(
    "data, reason, detail",
    [
        (b"", "empty", "0 bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a JPEG", "a PNG"),
        (b"  <!DOCTYPE html>", "not a JPEG", "a web page"),
        (b"PK\x03\x04", "not a JPEG", "a zip"),
        (b"hello\n", "not a JPEG", "it is text: 'hello'"),
        (b"h\xe9llo\n", "not a JPEG", "68 e9 6c"),
        (b"\0\1\2", "not a JPEG", "00 01 02"),
        (b"\xff\xd8\xff", "truncated", "before its pixels"),
    ],
)
def test_other_files_are_named(data, reason, detail):
    found = reason_of(data)
    assert found[0] == reason and detail in found[1]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(orientation, order):
    data = with_exif(jpeg(quality=95), orientation, order)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    prepared, shape, turned = images.prepare_jpeg(data)
    assert turned == (orientation != 1)
    assert shape == (expected.height, expected.width)
    pixels = simplejpeg.decode_jpeg(prepared).astype(int)
    assert np.abs(pixels - np.asarray(expected)).mean() < 2
    assert images.orientation_of(prepared) == 1 or not turned


def test_invalid_orientations_are_ignored():
    assert images.orientation_of(with_exif(jpeg(), 9)) == 1
    for old, new in ((b"II*\0", b"XX*\0"), (b"II*\0\x08", b"II*\0\xff")):
        broken = with_exif(jpeg(), 6).replace(old, new)
        assert images.orientation_of(broken) == 1


@pytest.mark.parametrize("place", [2, -1], ids=["first", "before the scan"])
@pytest.mark.parametrize("noise", [b"\xff\xda\0\x08", b"\xff\xd9", b"Exif\0\0"])
def test_orientation_is_found_behind_other_segments(place, noise):
    data = jpeg()
    place = place if place > 0 else data.index(b"\xff\xda")
    exif = with_exif(data, 6)[2 : len(with_exif(data, 6)) - len(data) + 2]
    profile = b"\xff\xe2" + struct.pack(">H", 60_002) + (noise * 60_000)[:60_000]
    for fill in (b"", b"\xff" * 5):  # any number of them may precede a marker
        data = data[:place] + 2 * profile + fill + exif + data[place:]
        assert images.orientation_of(data) == 6
        assert images.prepare_jpeg(data)[1:] == ((40, 48), True)
        data = jpeg()


@pytest.mark.parametrize("orientation", [1, 6, None])
def test_orientation_of_png(orientation):
    exif, file = Image.Exif(), io.BytesIO()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(image()).save(file, "PNG", exif=exif)
    data = file.getvalue()
    assert images.orientation_of(data) == (orientation or 1)
    if orientation:  # exiftool writes it behind the pixels
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4])
        moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
        assert images.orientation_of(moved) == orientation
    assert images.orientation_of(data[:40]) == 1


@pytest.mark.parametrize(
    "size, digest", [((17, 31), "194e345f"), ((96, 80), "eb8f936e")]
)
def test_resize_is_pinned(size, digest):
    """Datasets of other versions and machines rely on these bytes."""
    pixels = (np.arange(48 * 40 * 3, dtype=np.uint64) ** 2 % 251).astype(np.uint8)
    pixels = pixels.reshape(48, 40, 3)
    resized = images.resize(pixels, size)
    assert resized.shape == (*size, 3) and resized.dtype == np.uint8
    assert hashlib.sha256(resized.tobytes()).hexdigest()[:8] == digest
    gray = images.resize(pixels[..., 1:2], size)
    np.testing.assert_array_equal(gray, resized[..., 1:2])


def test_prepare_resizes_and_keeps_gray():
    gray = gray_jpeg()
    data, shape, turned = images.prepare_jpeg(gray, (24, 20))
    assert (shape, turned) == ((24, 20), False)
    assert images.check_header(data) == (24, 20, "Gray", 1)


@pytest.mark.parametrize("path", ["s3://b/x", "http://h/x", "gs://b/x", "", "~/x"])
def test_remote_schemes_are_refused(path):
    with pytest.raises(UserError, match="--celeba_dir") as caught:
        images.require_local(path, "celeba_dir")
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(images.require_local("data/celeba", "celeba_dir")) == "data/celeba"
