"""Pictures are found wherever they lie, told apart, and decoded in one way."""

import io
import os
import zipfile

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from support.errors import ExitCode, UserError
from support.images import BadImage
from trainer.inference import pictures

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
    return [picture.path for picture in pictures.find(words)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_zip_files_and_patterns_stand_for_what_is_in_them(here):
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
        "a/deep/1.JPEG",
        "a/notes.txt",  # named, as a shell would name it
    ]
    assert paths("[1].jpg", "*.zip")[:2] == ["[1].jpg", "z.zip/../6.PNG"]
    assert paths("b/2.jpg", "./b", "b/../b/2.jpg", "a/.hidden.jpg") == [
        "b/2.jpg",
        "a/.hidden.jpg",
    ]
    found = pictures.find(["a", "z.zip", "b", "3.png"])
    names = [picture.name for picture in found]
    assert pictures.image_ids(names, [picture.path for picture in found]) == [
        "a/2.jpg",
        "1.JPEG",
        "6.PNG",
        "z.zip/a/2.jpg",
        "z.zip/b/2.jpg",
        "b/2.jpg",
        "3.png",
    ]
    expected = pictures.decode(JPEG)
    assert all(np.array_equal(picture.load(), expected) for picture in found)


def test_names_in_other_encodings_can_be_read_and_written(here):
    fill(here, os.fsdecode(b"a/\xe9.jpg"))
    path = here / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/XX.jpg", JPEG)
    path.write_bytes(path.read_bytes().replace(b"XX", b"\xe9\xff"))
    found = pictures.find(["a", "z.zip"])
    assert [picture.load().shape for picture in found] == [(8, 16, 3)] * 2
    ids = pictures.image_ids([picture.name for picture in found], [""] * 2)
    assert ids == ["\\xe9.jpg", "\\xe9\\xff.jpg"]


@pytest.mark.parametrize(
    "word, words",
    [
        ("gone.jpg", "gone.jpg does not exist. Check the path"),
        ("gone/*.jpg", "The pattern gone/*.jpg matches nothing"),
        ("empty", "empty holds no .jpg, .jpeg or .png file. Name"),
        ("text.zip", "text.zip holds no .jpg, .jpeg or .png file. Name"),
        ("web.zip", "web.zip is not a zip file but a web page. Download it"),
        ("empt*", "empt* holds no .jpg"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(here, word, words):
    (here / "empty").mkdir()
    (here / "web.zip").write_text("<html>sign in")
    with zipfile.ZipFile("text.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(UserError) as caught:
        pictures.find([word])
    assert words in str(caught.value)
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_one_bad_folder_or_zip_does_not_keep_the_others(here):
    (here / "empty").mkdir()
    (here / "web.zip").write_text("<html>sign in")
    fill(here, "a/1.jpg")
    assert paths("empty", "./empty", "a") == ["empty", "a/1.jpg"]
    found = {picture.path: picture for picture in pictures.find(["*", "empty"])}
    assert list(found) == ["a/1.jpg", "web.zip", "empty"]
    for path, why in (("web.zip", "not a zip file"), ("empty", "holds no .jpg")):
        with pytest.raises(BadImage, match=why):
            found[path].load()


def test_bad_pictures_say_why_when_they_are_loaded(here, monkeypatch):
    fill(here, "gone.jpg", "large.jpg")
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.writestr("1.jpg", JPEG)
    data = bytearray((here / "z.zip").read_bytes())
    data[60] ^= 1
    (here / "z.zip").write_bytes(data)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    wide = header + (20_000).to_bytes(4, "big") + (1).to_bytes(4, "big")
    os.mkfifo("pipe")
    found = pictures.find(["gone.jpg", "pipe", "large.jpg", "z.zip"])
    gone, pipe, large, member = found
    (here / "gone.jpg").unlink()
    monkeypatch.setattr(pictures, "_MAX_BYTES", len(JPEG) - 1)
    for load, reason in (
        (gone.load, "unreadable"),
        (pipe.load, "unreadable"),
        (large.load, "too large"),
        (member.load, "damaged"),
        (pictures.of(wide, 0).load, "too large"),
        (pictures.of(png()[:80], 0).load, "damaged"),
        (pictures.of(JPEG[:-20], 0).load, "truncated"),
        (pictures.of(b"<html>", 0).load, "not a JPEG"),
    ):
        with pytest.raises(BadImage) as caught:
            load()
        assert caught.value.reason == reason


def test_bytes_and_arrays_are_pictures_too():
    assert np.array_equal(pictures.of(png(), 0).load(), PIXELS)
    assert np.array_equal(pictures.of(PIXELS, 3).load(), PIXELS)
    assert pictures.of(PIXELS, 3).name == "[3]"
    gray = pictures.of(PIXELS[..., 0], 0).load()
    assert np.array_equal(gray, PIXELS[..., :1].repeat(3, axis=2))
    with pytest.raises(ValueError, match=r"\(8, 16, 3\) float64: give"):
        pictures.of(PIXELS / 255, 0)
    with pytest.raises(ValueError, match="give"):
        pictures.of(PIXELS[..., :2], 0)
    with pytest.raises(TypeError, match=r"picture \[7\] is a int"):
        pictures.of(5, 7)


def test_an_exif_orientation_is_undone():
    assert pictures.decode(JPEG).shape == (8, 16, 3)
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
    turned = JPEG[:2] + header + segment + JPEG[2:]
    assert pictures.decode(turned).shape == (16, 8, 3)
