"""Images are what they seem to be: checked, upright, resized; nothing else gets in."""

import hashlib
import io
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from support import images
from support.errors import ExitCode, UserError


def picture(height=48, width=40):
    """(height, width, 3) uint8 whose four quarters differ."""
    rng = np.random.default_rng(0)
    quarters = rng.integers(0, 256, (2, 2, 3))
    return np.kron(quarters, np.ones((height // 2, width // 2, 1))).astype(np.uint8)


def jpeg(pixels=None, **options):
    return simplejpeg.encode_jpeg(picture() if pixels is None else pixels, **options)


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
    gray = jpeg(picture()[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
    assert images.prepare_jpeg(gray) == (gray, (48, 40), False)


def test_decoding_is_exact():
    pixels = images.decode_rgb(jpeg())
    np.testing.assert_array_equal(pixels, Image.open(io.BytesIO(jpeg())))
    gray = jpeg(picture()[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
    assert len(set(images.decode_rgb(gray)[0, 0].tolist())) == 1


def test_every_cut_is_found():
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
    Image.fromarray(picture()).convert("CMYK").save(file, "JPEG")
    assert reason_of(file.getvalue())[0] == "color space"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honored_as_pillow_does(orientation, order):
    from PIL import ImageOps

    data = with_exif(jpeg(quality=95), orientation, order)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    prepared, shape, turned = images.prepare_jpeg(data)
    assert turned == (orientation != 1)
    assert shape == (expected.height, expected.width)
    pixels = simplejpeg.decode_jpeg(prepared).astype(int)
    assert np.abs(pixels - np.asarray(expected)).mean() < 2
    assert images.check_jpeg(prepared)[2] == 1 or not turned


def test_nonsense_orientations_are_ignored():
    assert images.check_jpeg(with_exif(jpeg(), 9))[2] == 1
    broken = with_exif(jpeg(), 6).replace(b"II*\0", b"XX*\0")
    assert images.check_jpeg(broken)[2] == 1


@pytest.mark.parametrize("size", [(24, 20), (17, 31), (96, 80), (48, 40), (1, 1)])
def test_resize_matches_pillow(size):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    expected = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
    found = images.resize(pixels, size)
    assert found.shape == (*size, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1


def test_resize_is_pinned_and_sums_whole_numbers():
    """Datasets of other versions and machines rely on it."""
    pixels = np.arange(48 * 40 * 3, dtype=np.uint64) ** 2 % 251
    pixels = pixels.astype(np.uint8).reshape(48, 40, 3)
    digests = [
        hashlib.sha256(images.resize(pixels, size).tobytes()).hexdigest()[:8]
        for size in ((17, 31), (96, 80))
    ]
    assert digests == ["7fe2fc8f", "7c105c99"]
    for source, target in ((218, 96), (96, 218), (16_384, 8), (5, 5)):
        weights = images._weights(source, target)
        assert (weights == np.rint(weights)).all() and (weights >= 0).all()
        assert (weights.sum(axis=1) == images._ONE).all()


def test_prepare_resizes_and_keeps_gray():
    gray = jpeg(picture()[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
    data, shape, turned = images.prepare_jpeg(gray, (24, 20))
    assert (shape, turned) == ((24, 20), False)
    assert images.check_header(data) == (24, 20, "Gray")


@pytest.mark.parametrize("path", ["s3://b/x", "http://h/x", "gs://b/x", "", "~/x"])
def test_remote_schemes_are_refused(path):
    with pytest.raises(UserError, match="--celeba_dir") as caught:
        images.require_local(path, "celeba_dir")
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(images.require_local("data/celeba", "celeba_dir")) == "data/celeba"
