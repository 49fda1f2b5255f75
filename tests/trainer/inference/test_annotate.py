"""Annotated images: readable at any size, nothing covered, nothing overwritten."""

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from support.errors import ExitCode, UserError
from support.figures import MUTED, PRIMARY, SECONDARY
from trainer.inference import annotate, images

NAMES = ("not Male", "Male")
COLORS = {
    color: [int(color[n : n + 2], 16) for n in (1, 3, 5)]
    for color in (PRIMARY, SECONDARY, MUTED)
}


@pytest.mark.parametrize(
    "height, width, text",
    [
        (218, 178, "Male 97.3%"),
        (2449, 2000, "abstained, Male 51.0%"),
        (50, 40, "Male 9.1%"),
        (218, 178, "abstained, 5 o Clock Shadow 51.0%"),
    ],
)
def test_caption_is_complete_and_large_enough(height, width, text):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    drawn = annotate.draw(pixels, text, PRIMARY)
    left = (drawn.shape[1] - width) // 2
    assert np.array_equal(drawn[:height, left : left + width], pixels)
    strip = drawn[height:].astype(int)
    ink = (np.abs(strip - COLORS[PRIMARY]).sum(axis=2) > 60).nonzero()
    assert (strip == 255).all(axis=2).any()  # white text
    for positions, side in zip(ink, strip.shape[:2], strict=True):
        assert 0 < positions.min() and positions.max() < side - 1
    capital = ink[0].max() - ink[0].min()
    assert capital >= max(9, 0.04 * min(height, width)), "too small to read"
    assert drawn.shape[1] == width or width < 200


def test_captions():
    assert annotate.caption(0.973, 1, False, NAMES) == "Male 97.3%"
    assert annotate.caption(0.027, 0, False, NAMES) == "not Male 97.3%"
    assert annotate.caption(0.45, 0, True, NAMES) == "abstained, Male 45.0%"


def test_file_names_are_safe_and_unique():
    ids = ["1.jpg", "a/1.jpg", "a_1.JPG", "/x/1.jpg", "../../x/1.jpg", "b.png", "b.jpg"]
    assert annotate.file_names([*ids, "ü\n*.jpg", "...", "é" * 300]) == [
        "1.jpg",
        "a_1.jpg",
        "a_1-2.JPG",
        "x_1.jpg",
        "x_1-2.jpg",
        "b.png.jpg",
        "b.jpg",
        "ü__.jpg",
        "image.jpg",
        "é" * 100 + ".jpg",
    ]


def write(folder, sources, **columns):
    found = [
        image
        for number, source in enumerate(sources)
        for image in images.from_source(source, number)
    ]
    ids = [image.path for image in found]
    return annotate.write(
        folder, found, pd.DataFrame({"image_id": ids} | columns), NAMES
    )


def test_annotate_writes_each_prediction(tmp_path):
    pixels = np.full((64, 64, 3), 255, np.uint8)
    errors = write(
        tmp_path / "new" / "out",
        [pixels, b"", pixels, pixels],
        probability=[0.9, 0.8, 0.1, 0.55],
        label=[1, 1, 0, 1],
        abstained=[False, False, False, True],
    )
    assert errors == ["", "empty: 0 bytes", "", ""]
    folder = tmp_path / "new" / "out"
    index = pd.read_csv(folder / "index.csv")
    assert index.to_dict("list") == {
        "file": [f"_{number}_.jpg" for number in (0, 2, 3)],
        "image_id": ["[0]", "[2]", "[3]"],
    }
    colors = (PRIMARY, SECONDARY, MUTED)
    for name, color in zip(index["file"], colors, strict=True):
        drawn = simplejpeg.decode_jpeg((folder / name).read_bytes())
        assert np.abs(drawn[-2, 1].astype(int) - COLORS[color]).max() < 8
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_annotate_frames_each_face_and_has_a_strip_for_it(tmp_path):
    pixels = np.full((300, 400, 3), 255, np.uint8)
    table = pd.DataFrame(
        {
            "image_id": ["a.jpg", "a.jpg", "b.jpg"],
            "image": [0, 0, 1],
            "probability": [0.9, 0.1, np.nan],
            "label": pd.array([1, 0, pd.NA], "Int64"),
            "abstained": False,
            "error": ["", "", "no face found"],
            "face": [1, 2, 0],
            "x": pd.array([50, 250, pd.NA], "Int64"),
            **{name: pd.array([100, 100, pd.NA], "Int64") for name in ("y", "width")},
            "height": pd.array([120, 120, pd.NA], "Int64"),
        }
    )
    found = [image for n in range(2) for image in images.from_source(pixels, n)]
    assert annotate.write(tmp_path / "out", found, table, NAMES) == ["", ""]
    index = pd.read_csv(tmp_path / "out" / "index.csv")
    assert index["image_id"].tolist() == ["a.jpg", "b.jpg"]
    two, none = (
        simplejpeg.decode_jpeg((tmp_path / "out" / name).read_bytes()).astype(int)
        for name in index["file"]
    )
    for x, color in ((50, PRIMARY), (250, SECONDARY)):
        for at in ((150, x), (150, x + 100), (100, x + 50), (220, x + 50)):
            assert np.abs(two[at] - COLORS[color]).max() < 40
        assert (two[150, x + 50] > 240).all()
    assert np.abs(two[-3, 2] - COLORS[SECONDARY]).max() < 8
    strip = (len(two) - 300) // 2
    assert np.abs(two[-strip - 3, 2] - COLORS[PRIMARY]).max() < 8
    assert (none[:300] > 240).all()
    assert np.abs(none[-3, 2] - COLORS[MUTED]).max() < 8


def test_annotate_directory_is_complete_and_overwrites_nothing(tmp_path):
    folder = tmp_path / "out"
    row = {"probability": [0.9], "label": [1], "abstained": [False]}
    pixels = np.zeros((1, 20_000, 3), np.uint8)
    folder.mkdir()
    annotate.check_folder(folder)
    with pytest.raises(TypeError):
        write(folder, [pixels], **row | {"label": ["1"]})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    write(folder, [pixels], **row)
    with pytest.raises(UserError, match="contains files"):  # of another program
        write(folder, [pixels], **row)
    for path, words in ((folder, "contains files"), (folder / "_0_.jpg", "is not a")):
        with pytest.raises(UserError, match=words) as caught:
            annotate.check_folder(path)
        assert caught.value.exit_code == ExitCode.OUTPUT
