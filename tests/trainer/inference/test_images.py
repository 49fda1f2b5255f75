"""Images to predict: finding, naming and decoding them."""

import functools
import io
import os
import zipfile

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from support.errors import ExitCode, UserError
from support.images import BadImage
from trainer.inference import images

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
JPEG = simplejpeg.encode_jpeg(PIXELS)


def png(**options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "png", **options)
    return buffer.getvalue()


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)


def paths(*words):
    return [image.path for image in images.find(words)]


def load(source, number=0):
    [image] = images.from_source(source, number)
    return image.load()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_find_expands_directories_zip_files_and_patterns(here):
    fill(here, "a/2.jpg", "a/deep/1.JPEG", "b/2.jpg", "3.png", "a/notes.txt")
    fill(here, "a/.hidden.jpg", "a/.git/4.jpg", "a/__MACOSX/._5.jpg", "[1].jpg")
    with zipfile.ZipFile("z.zip", "w") as archive:
        for name in ("b/2.jpg", "a/2.jpg", "../6.PNG", "a/readme", "a/.7.jpg"):
            archive.writestr(name, JPEG)
    assert paths("a") == ["a/2.jpg", "a/deep/1.JPEG"]
    assert paths("z.zip") == ["z.zip/../6.PNG", "z.zip/a/2.jpg", "z.zip/b/2.jpg"]
    assert paths("**/*.jpg", "a/*") == [
        "[1].jpg",
        "a/2.jpg",
        "b/2.jpg",
        "a/__MACOSX",  # without an image
        "a/deep/1.JPEG",
        "a/notes.txt",  # named, as a shell would name it
    ]
    assert paths("[1].jpg", "*.zip")[:2] == ["[1].jpg", "z.zip/../6.PNG"]
    assert paths("b/2.jpg", "./b", "b/../b/2.jpg", "a/.hidden.jpg") == [
        "b/2.jpg",
        "a/.hidden.jpg",
    ]
    found = images.find(["a", "z.zip", "b", "3.png"])
    assert images.image_ids(found) == [
        "a/2.jpg",
        "1.JPEG",
        "6.PNG",
        "z.zip/a/2.jpg",
        "z.zip/b/2.jpg",
        "b/2.jpg",
        "3.png",
    ]
    expected = images.decode(JPEG)
    assert all(np.array_equal(image.load(), expected) for image in found)


def test_names_in_other_encodings(here):
    fill(here, os.fsdecode(b"a/\xe9.jpg"))
    path = here / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/XX.jpg", JPEG)
    path.write_bytes(path.read_bytes().replace(b"XX", b"\xe9\xff"))
    found = images.find(["a", "z.zip"])
    assert [image.load().shape for image in found] == [(8, 16, 3)] * 2
    assert images.image_ids(found) == ["\\xe9.jpg", "\\xe9\\xff.jpg"]


@pytest.mark.parametrize(
    "word, words",
    [
        ("gone.jpg", "gone.jpg does not exist. Check the path"),
        ("gone/*.jpg", "The pattern gone/*.jpg matches nothing"),
        ("empty", "empty contains no .jpg, .jpeg, .jpe, .jfif or .png file. Name"),
        ("text.zip", "or .png file, but 5 other files: 0.txt, 1.txt, 2.txt, 2 more."),
        ("web.zip", "web.zip is not a complete zip file. Download"),
        ("future.zip", "future.zip is not a complete zip file. Download"),
        ("empt*", "empty contains no .jpg"),
    ],
)
def test_find_names_wrong_paths(here, word, words):
    (here / "empty").mkdir()
    (here / "web.zip").write_text("<html>sign in")
    with zipfile.ZipFile("text.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"a/{number}.txt", "a")
    data = bytearray((here / "text.zip").read_bytes())
    data[data.index(b"PK\1\2") + 6] = 99  # a version of the format that nobody reads
    (here / "future.zip").write_bytes(data)
    with pytest.raises(UserError) as caught:
        images.find([word])
    assert words in str(caught.value)
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_find_skips_bad_directories_and_zip_files(here):
    (here / "empty").mkdir()
    (here / "web.zip").write_text("<html>sign in")
    fill(here, "a/1.jpg")
    assert paths("empty", "./empty", "a") == ["empty", "a/1.jpg"]
    found = {image.path: image for image in images.find(["*", "empty"])}
    assert list(found) == ["a/1.jpg", "empty", "web.zip"]
    for path, why in (
        ("web.zip", "not a complete zip file"),
        ("empty", "contains no .jpg"),
    ):
        with pytest.raises(BadImage, match=why):
            found[path].load()


def test_bad_images_give_a_reason_when_loaded(here, monkeypatch):
    fill(here, "gone.jpg", "large.jpg")
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.writestr("1.jpg", JPEG[:-1])
    data = bytearray((here / "z.zip").read_bytes())
    data[60] ^= 1
    (here / "z.zip").write_bytes(data)
    os.mkfifo("pipe")
    found = images.find(["gone.jpg", "pipe", "large.jpg", "z.zip"])
    gone, pipe, large, member = found
    (here / "gone.jpg").unlink()
    monkeypatch.setattr("support.images.MAX_BYTES", len(JPEG) - 1)
    for loaded, reason in (
        (gone.load, "unreadable"),
        (pipe.load, "unreadable"),
        (large.load, "too large"),
        (member.load, "damaged"),
        (functools.partial(load, png()[:80]), "damaged"),
    ):
        with pytest.raises(BadImage) as caught:
            loaded()
        assert caught.value.reason == reason


def test_bytes_and_arrays_are_images():
    assert np.array_equal(load(png()), PIXELS)
    assert np.array_equal(load(PIXELS), PIXELS)
    assert images.from_source(PIXELS, 3)[0].name == "[3]"
    assert np.array_equal(load(PIXELS[..., 0]), PIXELS[..., :1].repeat(3, axis=2))
    with pytest.raises(ValueError, match=r"\(8, 16, 3\) float64: give"):
        load(PIXELS / 255, 0)
    with pytest.raises(ValueError, match="give"):
        load(PIXELS[..., :2], 0)
    with pytest.raises(TypeError, match=r"image \[7\] is a int"):
        load(5, 7)


def test_other_files_are_skipped_by_name(here):
    fill(here, "a/1.JPE", "a/2.jfif", "a/notes.txt", "a/b.zip", "a/.hidden")
    os.symlink(here / "a", here / "a" / "loop", target_is_directory=True)
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.writestr("deep/", "")
        archive.writestr("deep/3.jfif", JPEG)
        archive.writestr("deep/read me", "")
    others = []
    found = images.find(["a", "z.zip"], others)
    assert [image.name for image in found] == ["1.JPE", "2.jfif", "3.jfif"]
    assert others == ["a/b.zip", "a/loop", "a/notes.txt", "z.zip/deep/read me"]
    assert images.counted(others) == "4 other files: b.zip, loop, notes.txt, 1 more"
    assert images.counted(others[:1]) == "1 other file: b.zip"


def test_urls_are_refused(here):
    with pytest.raises(UserError, match="is a URL; only files on this") as caught:
        images.find(["https://example.org/a.jpg"])
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(BadImage, match="unreadable: a URL"):
        load("https://example.org/a.jpg")


TRANSPARENT = {
    "RGBA": {},
    "LA": {},
    "P": {"transparency": 3},
    "1": {"transparency": 0},
    "L": {"transparency": Image.fromarray(PIXELS).convert("L").getpixel((0, 0))},
    "RGB": {"transparency": tuple(PIXELS[0, 0].tolist())},
}


@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparent_images_are_put_on_white(mode):
    alpha = np.arange(128, dtype=np.uint8).reshape(8, 16) * 2
    rgba = Image.fromarray(np.dstack([PIXELS, alpha]))
    file = io.BytesIO()
    rgba.convert(mode).save(file, "png", **TRANSPARENT[mode])
    with Image.open(file) as saved:
        layer = saved.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    want = np.asarray(Image.alpha_composite(white, layer).convert("RGB"), int)
    pixels = load(file.getvalue())
    assert pixels.shape == (8, 16, 4)
    assert np.abs(images.on_white(pixels) - want).max() <= 1
    opaque = np.dstack([PIXELS, np.full((8, 16), 255, np.uint8)])
    file = io.BytesIO()
    Image.fromarray(opaque).save(file, "png")
    assert np.array_equal(load(file.getvalue()), PIXELS)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits(bits):
    file = io.BytesIO()
    Image.fromarray(PIXELS[..., 0]).quantize(2**bits).save(file, "png", bits=bits)
    with Image.open(file) as saved:
        assert np.array_equal(load(file.getvalue()), saved.convert("RGB"))


def test_exif_orientation_of_png_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(images.decode(png(exif=exif)), np.rot90(PIXELS, -1))
