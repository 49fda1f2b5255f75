"""Predictions on files, against the predictions that a run made in its evaluation."""

import numpy as np
import pandas as pd
import pytest
import simplejpeg
import tensorflow as tf

from support import command, images
from support.errors import ExitCode, UserError
from trainer import input_pipeline, predict
from trainer import main as train_main


@pytest.fixture
def run_dir(config):
    train_main.main(["main", *command.flags_text(config).splitlines()])
    return config.run_dir


@pytest.fixture
def pictures(dataset_dir, tmp_path):
    """The files of the test split, in a folder."""
    dataset = input_pipeline.open_dataset(dataset_dir)
    names = [f"test-{number:03d}.jpg" for number in range(21)]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in input_pipeline.read_images(dataset, "test", names).items():
        (folder / name).write_bytes(data)
    return folder


def test_the_data_sets_files_get_the_evaluations_probabilities(
    run_dir, pictures, tmp_path, capsys
):
    output = tmp_path / "out.csv"
    (pictures / "notes.txt").write_text("not a picture by its name: ignored")
    flags = [f"--run_dir={run_dir}", f"--output={output}"]
    predict.main(["predict", *flags, str(pictures)])
    table = pd.read_csv(output)
    expected = pd.read_csv(f"{run_dir}/predictions.csv").sort_values("image_id")
    assert list(table.columns) == ["image_id", "probability", "label"]
    assert table["image_id"].tolist() == expected["image_id"].tolist()
    difference = table["probability"].to_numpy() - expected["probability"].to_numpy()
    assert np.abs(difference).max() < 1e-5
    assert table["label"].tolist() == (table["probability"] >= 0.5).astype(int).tolist()
    printed = capsys.readouterr().out
    assert "probability of (perceived) Male" in printed
    assert "... and 1 more\n21 of 21 files" in printed


def test_any_size_and_order_and_bad_files(run_dir, pictures, tmp_path, capsys):
    first = pictures / "test-000.jpg"
    pixels = images.decode_rgb(first.read_bytes())
    png, large = tmp_path / "same.png", tmp_path / "large.jpg"
    png.write_bytes(tf.io.encode_png(pixels).numpy())
    large.write_bytes(simplejpeg.encode_jpeg(pixels.repeat(3, 0).repeat(4, 1)))
    bad = {"cut.jpg": first.read_bytes()[:-200], "x.png": b"\x89PNG", "web.jpg": b"<a>"}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    paths = [large, *(tmp_path / name for name in bad), png, first]
    table = predict.Predictor(run_dir).predict(paths)
    assert table["image_id"].tolist() == [path.name for path in paths]
    assert (table["error"] != "").tolist() == [False, True, True, True, False, False]
    assert table["label"].isna().tolist() == (table["error"] != "").tolist()
    probability = table["probability"]
    assert probability[4] == pytest.approx(probability[5], abs=1e-6)
    assert probability[0] == pytest.approx(probability[5], abs=0.05)

    output = tmp_path / "out.csv"
    flags = [f"--run_dir={run_dir}", f"--output={output}"]
    predict.main(["predict", *flags, *map(str, paths)])
    assert pd.read_csv(output)["image_id"].tolist() == [
        "large.jpg",
        "same.png",
        "test-000.jpg",
    ]
    errors = capsys.readouterr().err
    assert f"skipped {tmp_path}/web.jpg: not a JPEG: it is a web page" in errors
    output.unlink()
    with pytest.raises(UserError, match="None of 3 files") as caught:
        predict.main(["predict", *flags, *(str(tmp_path / name) for name in bad)])
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    assert not output.exists()


def test_an_exif_orientation_is_undone():
    pixels = np.zeros((8, 16, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(pixels)
    assert predict.decode(jpeg).shape == (8, 16, 3)
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
    turned = jpeg[:2] + header + segment + jpeg[2:]
    assert predict.decode(turned).shape == (16, 8, 3)


def test_paths_and_flags_are_checked(tmp_path):
    with pytest.raises(UserError, match="gone does not exist") as caught:
        predict.find_images([str(tmp_path / "gone")])
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    with pytest.raises(UserError, match="holds no .jpg"):
        predict.find_images([str(tmp_path)])
    with pytest.raises(UserError, match="--run_dir is missing"):
        predict.main(["predict", "a.jpg"])
    flags = ["--run_dir=run", f"--output={tmp_path}/none/out.csv"]
    with pytest.raises(UserError, match="not a file in an existing folder") as caught:
        predict.main(["predict", *flags, "a.jpg"])
    assert caught.value.exit_code == ExitCode.OUTPUT
    with pytest.raises(UserError, match="No picture is named"):
        predict.main(["predict", "--run_dir=run", "--output=out.csv"])
