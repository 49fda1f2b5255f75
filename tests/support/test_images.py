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
        images.check_jpeg(data)
    return caught.value.reason, caught.value.detail


def test_good_images_pass_untouched():
    data = jpeg()
    assert images.check_jpeg(data) == (48, 40, 1)
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
        (b"\0\1\2", "not a JPEG", "00 01 02"),
        (b"\xff\xd8\xff", "damaged", ""),
    ],
)
def test_other_files_are_named(data, reason, detail):
    found = reason_of(data)
    assert found[0] == reason and detail in found[1]


def test_forged_sizes_are_refused_by_the_header(monkeypatch):
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    monkeypatch.delattr(simplejpeg, "decode_jpeg")  # its memory is never asked for
    assert reason_of(bytes(data)) == ("too large", "65500x65500 pixels")


def test_cmyk_is_refused():
    file = io.BytesIO()
    Image.fromarray(image()).convert("CMYK").save(file, "JPEG")
    assert reason_of(file.getvalue())[0] == "color space"


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
    assert images.check_jpeg(prepared)[2] == 1 or not turned


def test_invalid_orientations_are_ignored():
    assert images.check_jpeg(with_exif(jpeg(), 9))[2] == 1
    for old, new in ((b"II*\0", b"XX*\0"), (b"II*\0\x08", b"II*\0\xff")):
        broken = with_exif(jpeg(), 6).replace(old, new)
        assert images.check_jpeg(broken)[2] == 1


def test_orientation_behind_a_large_color_profile():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    profile = bytes(200_000)
    Image.fromarray(image()).save(file, "JPEG", exif=exif, icc_profile=profile)
    data = file.getvalue()
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
    tables = data.index(b"\xff\xdb", end + len(profile))
    moved = data[:start] + data[end:tables] + data[start:end] + data[tables:]
    assert moved.index(b"Exif") > len(profile)
    assert images.check_jpeg(moved)[2] == images.check_jpeg(data)[2] == 6


@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_of_png(orientation):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(image()).save(file, "PNG", exif=exif)
    assert images.orientation_of(file.getvalue()) == orientation


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
