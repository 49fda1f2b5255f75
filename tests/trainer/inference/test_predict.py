"""Predictions on files, against the predictions that a run made in its evaluation."""

import io
import json
import shutil
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import simplejpeg
import tensorflow as tf
from PIL import ExifTags, Image

from support.errors import ExitCode, UserError
from support.images import decode_rgb, upright
from tests.faults import catalogues
from tests.trainer.inference.photos import needs_mtcnn, photo
from trainer import models, predict
from trainer.data import open_dataset
from trainer.data.input_pipeline import read_images
from trainer.inference import align, predictor
from trainer.inference.predictor import NO_FACE, AspectWarning


@pytest.fixture
def image_dir(dataset_dir, tmp_path):
    """The files of the test split, in a folder."""
    dataset = open_dataset(dataset_dir)
    names = [f"test-{number:03d}.jpg" for number in range(21)]
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in read_images(dataset, "test", names).items():
        (folder / name).write_bytes(data)
    return folder


def run(run_dir, *words):
    predict.main(["predict", f"--run_dir={run_dir}", *map(str, words)])


def test_predict_equals_the_evaluation(run_dir, image_dir, tmp_path, capsys):
    output = tmp_path / "out.csv"
    (image_dir / "notes.txt").write_text("not an image by its name: ignored")
    run(run_dir, f"--output={output}", "--batch_size=5", image_dir)
    table = pd.read_csv(output)
    expected = pd.read_csv(f"{run_dir}/predictions.csv").sort_values("image_id")
    assert list(table.columns) == ["image_id", "probability", "label", "abstained"]
    assert table["image_id"].tolist() == expected["image_id"].tolist()
    difference = table["probability"].to_numpy() - expected["probability"].to_numpy()
    assert np.abs(difference).max() < 1e-5
    assert table["label"].tolist() == (table["probability"] >= 0.5).astype(int).tolist()
    abstained = (table["probability"] - 0.5).abs() < 0.1
    assert table["abstained"].tolist() == abstained.tolist()
    printed = capsys.readouterr()
    heading = "probability of (perceived) Male\nimage         probability  label"
    assert heading in printed.out
    assert "... and 1 more\n" in printed.out
    assert f"21 of 21 images predicted -> {output}" in printed.out
    assert printed.err == "skipped 1 other file: notes.txt\n"


def test_predict_any_size_and_order_and_bad_files(run_dir, image_dir, tmp_path, capsys):
    first = image_dir / "test-000.jpg"
    pixels = decode_rgb(first.read_bytes())
    png, large = tmp_path / "same.png", tmp_path / "large.jpg"
    png.write_bytes(tf.io.encode_png(pixels).numpy())
    large.write_bytes(simplejpeg.encode_jpeg(pixels.repeat(60, 0).repeat(80, 1)))
    bad = {"cut.jpg": first.read_bytes()[:-200], "x.png": b"\x89PNG", "web.jpg": b"<a>"}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    paths = [large, *(tmp_path / name for name in bad), png, first]
    seen = []
    with pytest.warns(AspectWarning, match="^1 of 6 images have another aspect"):
        table = predict.Predictor(run_dir).predict(
            paths, batch_size=2, progress=seen.append
        )
    assert table["image_id"].tolist() == [path.name for path in paths]
    assert (table["error"] != "").tolist() == [False, True, True, True, False, False]
    assert table["label"].isna().tolist() == (table["error"] != "").tolist()
    probability = table["probability"]
    assert probability[4] == pytest.approx(probability[5], abs=1e-6)
    assert probability[0] == pytest.approx(probability[5], abs=0.05)
    assert seen == [2, 2, 2]

    output = tmp_path / "out.json"
    run(run_dir, f"--output={output}", *paths)
    document = json.loads(output.read_text())
    names = [row["image_id"] for row in document["predictions"]]
    assert names == ["large.jpg", "same.png", "test-000.jpg"]
    assert document["skipped"][2] == {
        "path": f"{tmp_path}/web.jpg",
        "error": "neither JPEG nor PNG: it is a web page or another text",
    }
    printed = capsys.readouterr().err
    assert f"skipped {tmp_path}/web.jpg: neither JPEG nor PNG" in printed
    assert printed.count("training images (32x40), and were distorted to it.") == 1
    assert "warning: 1 of 6 images" in printed and "Photos need --align" in printed
    output.unlink()
    with pytest.raises(UserError, match="None of 3 images") as caught:
        run(run_dir, f"--output={output}", *(tmp_path / name for name in bad))
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    assert not output.exists()


def test_predictor_accepts_paths_bytes_and_arrays(run_dir, image_dir):
    predictor = predict.Predictor(run_dir)
    path = image_dir / "test-003.jpg"
    data = path.read_bytes()
    pixels = decode_rgb(data)
    many = predictor.predict([path, str(path), data, pixels])
    assert many["image_id"].tolist() == [str(path), str(path), "[2]", "[3]"]
    ones = [predictor.predict(one) for one in (str(path), data, pixels)]
    ones.append(predictor.predict(np.stack([pixels, pixels])))
    every = np.concatenate([table["probability"] for table in [many, *ones]])
    assert len(every) == 9
    assert np.ptp(every) < 1e-6
    assert predictor.predict([]).empty
    assert predictor.predict(image_dir)["error"].tolist() == [""] * 21
    [error] = predictor.predict([image_dir / "gone.zip"])["error"]
    assert "gone.zip cannot be read: No such file" in error


def test_links_are_written_through_and_transparency_is_noted(
    run_dir, image_dir, tmp_path, capsys
):
    pixels = decode_rgb((image_dir / "test-000.jpg").read_bytes())
    alpha = np.full((*pixels.shape[:2], 1), 128, np.uint8)
    png = tf.io.encode_png(np.concatenate([pixels, alpha], axis=2)).numpy()
    (tmp_path / "half.png").write_bytes(png)
    for name in ("old.csv", "new.csv"):
        link = tmp_path / f"link-{name}"
        link.symlink_to(tmp_path / name)
        if name == "old.csv":
            link.write_text("")
        run(run_dir, f"--output={link}", tmp_path / "half.png")
        assert link.is_symlink()
        assert pd.read_csv(tmp_path / name)["image_id"].tolist() == ["half.png"]
    assert "note: 1 transparent images were put on white" in capsys.readouterr().out


def test_json_describes_the_model_and_ids_are_unique(
    run_dir, image_dir, tmp_path, capsys
):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(image_dir / "test-001.jpg", "deep/test-000.jpg")
    output, folder = tmp_path / "out.json", tmp_path / "annotated"
    run(
        run_dir,
        f"--output={output}",
        f"--annotate={folder}",
        "--abstain=0.5",
        f"{image_dir}/test-00[01].jpg",
        tmp_path / "more.zip",
    )
    document = json.loads(output.read_text())
    record = models.read_run(run_dir)
    assert document["model"] == {
        "attribute": "Male",
        "probability_of": "perceived Male",
        "label_names": {"0": "not Male", "1": "Male"},
        "architecture": "tiny",
        "input_size": 32,
        "threshold": 0.5,
        "temperature": record["temperature"],
        "abstain": 0.5,
        "sha256": record["files"]["best.keras"],
        "manifest_digest": record["manifest_digest"],
    }
    rows = pd.DataFrame(document["predictions"])
    assert rows["image_id"].tolist() == [
        f"{image_dir}/test-000.jpg",
        "test-001.jpg",
        f"{tmp_path}/more.zip/deep/test-000.jpg",
    ]
    assert rows["probability"][1] == pytest.approx(rows["probability"][2], abs=1e-6)
    assert rows["abstained"].all()
    index = pd.read_csv(folder / "index.csv")
    assert index["image_id"].tolist() == rows["image_id"].tolist()
    assert {path.name for path in folder.iterdir()} == {"index.csv", *index["file"]}
    printed = capsys.readouterr().out
    assert "0 Male, 0 not Male, 3 abstained (less than 0.5 from 0.5)" in printed
    assert "note: 2 images share their names" in printed
    with pytest.raises(UserError, match="contains files already"):
        run(run_dir, f"--annotate={folder}", image_dir)


def test_abstention_threshold_is_that_of_the_run(run_dir, tmp_path):
    assert predict.Predictor(run_dir).abstain == 0.1
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    metrics = json.loads((copy / "metrics.json").read_text())
    for text, expected in (
        (metrics | {"abstention": metrics["abstention"] | {"abstain": 0.3}}, 0.3),
        ({key: metrics[key] for key in metrics if key != "abstention"}, 0.1),  # older
    ):
        (copy / "metrics.json").write_text(json.dumps(text))
        assert predict.Predictor(copy).abstain == expected
    assert predict.Predictor(copy, abstain=0.0).abstain == 0
    for text, problem in (
        ("{", "is not complete JSON"),
        (json.dumps(metrics | {"abstention": {"abstain": "0.2"}}), "abstention.abst"),
    ):
        (copy / "metrics.json").write_text(text)
        with pytest.raises(UserError, match=f"metrics.json.* {problem}"):
            predict.Predictor(copy)


def test_terminal_shows_progress_and_no_control_characters(
    run_dir, image_dir, tmp_path, monkeypatch, capsys
):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("support.progress.LIVE_INTERVAL", 0.0)
    monkeypatch.setattr("sys.stderr", Terminal())
    shutil.copy(image_dir / "test-000.jpg", tmp_path / "a\x1b[2J.jpg")
    run(run_dir, image_dir, tmp_path / "a\x1b[2J.jpg")
    assert "22/22" in predict.sys.stderr.getvalue()
    printed = capsys.readouterr().out
    assert "a?[2J.jpg" in printed and "\x1b" not in printed
    assert "more" not in printed  # without a file every row is shown


@pytest.mark.parametrize(
    "flags, words, code",
    [
        ([], "--run_dir is missing", ExitCode.USAGE),
        (["--run_dir=r", "--output=o.txt"], "neither a .csv nor", ExitCode.USAGE),
        (["--run_dir=r", "--output=no/o.csv"], "existing, writable", ExitCode.OUTPUT),
        (["--run_dir=r", "--output=d.csv"], "not a file in", ExitCode.OUTPUT),
        (["--run_dir=r", "--output=m.json"], "is no prediction of", ExitCode.OUTPUT),
        (["--run_dir=r", "--annotate=f"], "--annotate=f is not a", ExitCode.OUTPUT),
        (["--run_dir=r", "--abstain=0.6"], "not between 0 and 0.5", ExitCode.USAGE),
        (["--run_dir=r", "--batch_size=0"], "is below 1", ExitCode.USAGE),
        (["--run_dir=r", "gone.jpg"], "gone.jpg does not exist", ExitCode.INPUT_DATA),
        (["--run_dir=r", "f"], "r is not a run folder", ExitCode.INPUT_DATA),
        (["--run_dir=r"], "No image is named", ExitCode.USAGE),
    ],
)
def test_predict_checks_paths_and_flags(tmp_path, monkeypatch, flags, words, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").touch()
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "m.json").write_text('{"accuracy": 1}')
    with pytest.raises(UserError, match=words) as caught:
        predict.main(["predict", *flags])
    assert caught.value.exit_code == code


@pytest.fixture
def fake_faces(monkeypatch):
    """Instead of the detector: a face in the left half of wide images, one in each."""

    def find_faces(image):
        height, width = image.shape[:2]
        if height > width:
            return []
        return [
            align.Face((x, 10, 50, 60.4), 0.9, align.POSITIONS / 2 + (x, 5))
            for x in (1.0, width / 2)[: 1 + (width > 2 * height)]
        ]

    monkeypatch.setattr(predictor, "find_faces", find_faces)
    for module in (predict, predictor):
        monkeypatch.setattr(module, "detector", lambda: None)
    return find_faces


def test_align_gives_a_row_for_each_face(run_dir, tmp_path, capsys, fake_faces):
    rng = np.random.default_rng(5)
    two = rng.integers(0, 256, (120, 300, 3), np.uint8)
    (tmp_path / "cut.jpg").write_bytes(simplejpeg.encode_jpeg(two)[:-900])
    (tmp_path / "none.png").write_bytes(tf.io.encode_png(two[:, :90]).numpy())
    (tmp_path / "two.png").write_bytes(tf.io.encode_png(two).numpy())
    output, folder = tmp_path / "out.csv", tmp_path / "annotated"
    output.write_text("image_id,probability,label,abstained\nold.jpg,1,1,False\n")
    run(run_dir, "--align", f"--output={output}", f"--annotate={folder}", tmp_path)
    table = pd.read_csv(output, keep_default_na=False)
    columns = "image_id probability label abstained face x y width height score error"
    assert list(table.columns) == columns.split()
    assert table["image_id"].tolist() == ["cut.jpg", "none.png", "two.png", "two.png"]
    assert table["face"].tolist() == [0, 0, 1, 2]
    assert table["error"].tolist()[1:] == [NO_FACE, "", ""]
    assert table["error"][0].startswith("truncated: ")
    boxes = table[["x", "y", "width", "height", "score"]].to_numpy().tolist()
    assert boxes[:2] == [[""] * 5] * 2
    assert [float(x) for x in boxes[3]] == [150, 10, 50, 60, 0.9]
    assert table["probability"].tolist()[:2] == table["label"].tolist()[:2] == [""] * 2

    model = predict.Predictor(run_dir)
    crops = [align.aligned(two, face, (40, 32)) for face in fake_faces(two)]
    expected = model.predict(crops)["probability"]
    assert table["probability"][2:].astype(float).tolist() == pytest.approx(expected)
    printed = capsys.readouterr()
    assert "two.png 2: 50x60 at 150, 10" in printed.out
    assert f"2 faces in 1 of 3 images predicted -> {output}, {folder}" in printed.out
    assert f"skipped {tmp_path}/none.png: no face found" in printed.err
    assert "aspect" not in printed.err
    index = pd.read_csv(folder / "index.csv")
    assert index["image_id"].tolist() == ["none.png", "two.png"]

    run(run_dir, "--align", f"--output={output}", tmp_path / "none.png")
    assert "0 faces in 0 of 1 images predicted" in capsys.readouterr().out
    output = tmp_path / "out.json"
    run(run_dir, "--align", f"--output={output}", tmp_path / "none.png")
    document = json.loads(output.read_text())
    assert document["predictions"][0]["label"] is None
    assert document["predictions"][0]["error"] == NO_FACE
    with pytest.raises(UserError, match="None of 1 images could be read"):
        run(run_dir, "--align", tmp_path / "cut.jpg")


def test_align_in_python_names_each_image(run_dir, image_dir, fake_faces):
    wide = np.zeros((100, 250, 3), np.uint8)
    seen = []
    table = predict.Predictor(run_dir).predict(
        [wide, wide[:, :120], image_dir / "test-001.jpg"],
        batch_size=2,
        progress=seen.append,
        align=True,
    )
    assert table["image_id"].tolist() == ["[0]", "[0]", "[1]", "test-001.jpg"]
    assert table["image"].tolist() == [0, 0, 1, 2]
    assert table["face"].tolist() == [1, 2, 1, 0]
    assert table["width"].isna().tolist() == [False, False, False, True]
    assert sum(seen) == 3


def test_align_applies_the_exif_orientation_first(run_dir, fake_faces):
    tall = np.random.default_rng(1).integers(0, 256, (200, 90, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    Image.fromarray(tall).save(file, "PNG", exif=exif)
    model = predict.Predictor(run_dir)
    stored, turned = (
        model.predict(source, align=True)
        for source in (file.getvalue(), np.ascontiguousarray(upright(tall, 6)))
    )
    assert stored["face"].tolist() == turned["face"].tolist() == [1, 2]
    assert stored["probability"].tolist() == turned["probability"].tolist()
    assert model.predict(tall, align=True)["error"].tolist() == [NO_FACE]


def test_align_is_refused_for_another_data_set(run_dir, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    record = json.loads((copy / "run.json").read_text())
    record["data"]["dataset"] |= {"key": "shapes", "name": "Shapes"}
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="this model was trained on Shapes") as caught:
        predict.Predictor(copy).predict([], align=True)
    assert caught.value.exit_code == ExitCode.USAGE


@needs_mtcnn
def test_align_finds_the_faces_of_a_photo(run_dir, tmp_path):
    image = photo((3, 130, 170, 1, 15), (4, 380, 190, 1.2, -25))
    (tmp_path / "photo.jpg").write_bytes(simplejpeg.encode_jpeg(image))
    run(run_dir, "--align", f"--output={tmp_path / 'out.csv'}", tmp_path / "photo.jpg")
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["face"].tolist() == [1, 2]
    centers = table["x"] + table["width"] / 2
    assert centers.tolist() == pytest.approx([130, 380], abs=25)
    assert table["probability"].between(0, 1).all()


@pytest.mark.parametrize(
    "check", [catalogues.predict_images, catalogues.predict_members]
)
def test_bad_images_are_skipped_with_a_reason(run_dir, check):
    assert catalogues.in_new_folder(check, run_dir) == []


@pytest.mark.parametrize("case", catalogues.ZIPS, ids=lambda case: case.name)
def test_bad_zip_files_say_why(run_dir, case):
    assert catalogues.in_new_folder(catalogues.predict_zip, run_dir, case) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_forged_headers_take_no_memory(run_dir):
    assert catalogues.in_new_folder(catalogues.memory_of_forged, run_dir) == []
