"""Exports, loaded again in a process of their own and compared with the original."""

import ast
import hashlib
import json
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from support.errors import ExitCode, UserError
from tests.trainer.conftest import COUNTS
from trainer import export, models
from trainer.data import open_dataset
from trainer.inference import export_check, export_formats
from trainer.inference.export_formats import FORMATS
from trainer.runs import provenance
from trainer.runs.record import write_run


@pytest.fixture
def make_run(tiny, dataset_dir, tmp_path):
    """Makes a run's folder: random weights, probabilities neither all 0 nor all 1."""
    temperature = 2.0

    def make(name=tiny, preprocessing=models.CAFFE, flip_average=True):
        keras.utils.set_random_seed(0)
        options = {"dropout": 0.2, "flip_average": flip_average}
        model = models.build(name, 32, preprocessing, **options)
        dataset = open_dataset(dataset_dir)
        logits = model.predict_on_batch(export.read_images(dataset, 32))[:, 0]
        logit, scale = model.get_layer("logit"), 1.5 * temperature / logits.std()
        logit.kernel.assign(logit.kernel * scale)
        logit.bias.assign([-logits.mean() * scale])
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "flags.txt").write_text(f"--data_dir={dataset_dir}\n")
        run = {
            "model": name,
            "input_size": 32,
            "preprocessing": preprocessing,
            "flip_average": flip_average,
            "attribute": "Male",
            "manifest_digest": "1" * 64,
            "temperature": temperature,
            "files": {models.BEST: models.save(model, folder / models.BEST)},
        }
        write_run(folder, run)
        return folder

    return make


@pytest.fixture
def in_process(monkeypatch):
    """Runs exports here, where what is tested is not that they run alone."""

    def run(name, path, images):
        function = export_check.LOADERS[name](str(path))
        sizes = export.BATCH_SIZES
        return np.stack([export_check.run(function, images, size) for size in sizes])

    monkeypatch.setattr(export, "run_alone", run)


def run_export(run_dir, name, *flags) -> Path:
    """Exports through the program and returns what it wrote."""
    for module in FORMATS[name].packages:
        pytest.importorskip(module)
    export.main(["export", f"--run_dir={run_dir}", f"--format={name}", *flags])
    output = [flag.split("=")[1] for flag in flags if flag.startswith("--output")]
    return Path(output[0]) if output else run_dir / FORMATS[name].default_name


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_original_probabilities(
    make_run, dataset_dir, name, capsys, monkeypatch
):
    found, run_alone = [], export.run_alone
    monkeypatch.setattr(
        export, "run_alone", lambda *words: found.append(run_alone(*words)) or found[0]
    )
    run_dir = make_run()
    before = names(run_dir)
    path = run_export(run_dir, name)
    assert names(run_dir) == before | {path.name, f"{path.name}.json"}
    record = json.loads((run_dir / f"{path.name}.json").read_text())
    run = models.read_run(run_dir)
    assert record["format"] == name
    assert record["file"] == path.name
    exports = provenance.find_exports(run_dir)
    assert list(exports) == [path]
    *_, last = provenance.verify(run_dir, exports=exports)
    assert last == f"{path}: sha256 {record['sha256']}"
    assert record["model_sha256"] == run["files"]["best.keras"]
    assert record["manifest_digest"] == "1" * 64
    assert record["attribute"] == "Male"
    assert record["input"]["shape"] == ["batch", 32, 32, 3]
    assert record["versions"].keys() >= {"keras", *FORMATS[name].packages.values()}
    assert 0 <= record["largest_difference"] < 1e-5
    assert record["compared_on"]["images"] == COUNTS["validation"]
    assert "largest difference to the run's model" in capsys.readouterr().out
    # The same comparison by hand.
    images = export.read_images(open_dataset(dataset_dir), 32)
    logits = models.load(run_dir).predict_on_batch(images)[:, 0]
    expected = 1 / (1 + np.exp(-logits / run["temperature"]))
    assert found[0].shape == (len(export.BATCH_SIZES), COUNTS["validation"])
    assert expected.min() < 0.3 and expected.max() > 0.7
    assert np.abs(found[0] - expected).max() < 1e-5


def test_export_that_differs_is_removed(make_run, monkeypatch):
    run_dir = make_run()
    before = names(run_dir)
    right = export_formats.probability_model
    monkeypatch.setattr(
        export_formats,
        "probability_model",
        lambda model, temperature: right(model, temperature * 1.01),
    )
    with pytest.raises(UserError, match="apart, 1e-04 allowed") as caught:
        run_export(run_dir, "onnx")
    assert caught.value.exit_code == ExitCode.INTEGRITY
    assert names(run_dir) == before


def test_export_that_does_not_run_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    images = np.zeros((2, 32, 32, 3), "float32")
    with pytest.raises(UserError, match="does not run on its own: .*bad.onnx") as error:
        export.run_alone("onnx", tmp_path / "bad.onnx", images)
    assert error.value.exit_code == ExitCode.INTEGRITY
    with pytest.raises(UserError, match="nan apart"):
        export.check(np.array([[0.5, np.nan]]), np.array([0.5, 0.5]), "onnx")


def test_overwrite_replaces_exports_only(make_run, in_process, dataset_dir, tmp_path):
    run_dir = make_run()
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"mine")
    flags = [f"--output={folder}", f"--data_dir={dataset_dir}"]
    with pytest.raises(UserError, match="served exists already") as caught:
        run_export(run_dir, "savedmodel", *flags)
    assert caught.value.exit_code == ExitCode.OUTPUT
    with pytest.raises(UserError, match="served contains no SavedModel"):
        run_export(run_dir, "savedmodel", *flags, "--overwrite")
    assert names(folder) == {"photo.jpg"}
    (folder / "saved_model.pb").write_bytes(b"older")
    (run_dir / "flags.txt").unlink()
    run_export(run_dir, "savedmodel", *flags, "--overwrite")
    assert "photo.jpg" not in names(folder)
    assert names(tmp_path) == {"run", "served", "served.json"}
    listed = subprocess.run(
        "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads((tmp_path / "served.json").read_text())
    assert record["sha256"] == listed.stdout.split()[0]


@pytest.mark.parametrize(
    ("name", "there", "message"),
    [
        ("best.keras", "best.keras", "best.keras is the name of a run's own model"),
        (
            "metrics.keras",
            "metrics.keras.json",
            "for its record, another file",
        ),
    ],
)
def test_export_replaces_no_other_file(make_run, tmp_path, name, there, message):
    run_dir = make_run()
    (tmp_path / there).write_text("{}")
    with pytest.raises(UserError, match=message) as caught:
        run_export(run_dir, "keras", f"--output={tmp_path / name}", "--overwrite")
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert (tmp_path / there).read_text() == "{}"


def test_export_writes_through_links(make_run, in_process, tmp_path):
    run_dir = make_run()
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "blob.keras", tmp_path / "m[1].keras"
    target.write_bytes(b"older")
    link.symlink_to(target)
    run_export(run_dir, "keras", f"--output={link}", "--overwrite")
    record = json.loads((tmp_path / "m[1].keras.json").read_text())
    assert link.is_symlink() and names(tmp_path / "disk") == {"blob.keras"}
    assert record["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert record["file"] == "m[1].keras"


@pytest.mark.parametrize("character", "*?[\\")
def test_savedmodel_in_a_path_that_is_a_pattern_is_refused(tmp_path, character):
    folder = tmp_path / f"a{character}1]"
    for flags in ([f"--output={folder}/m", "--run_dir=r"], [f"--run_dir={folder}"]):
        with pytest.raises(UserError, match="cannot load a SavedModel from") as caught:
            export.main(["export", "--format=savedmodel", *flags])
        assert caught.value.exit_code == ExitCode.USAGE
        assert caught.value.remedy == f"Choose an --output without {character}."


@pytest.mark.parametrize(
    ("flags", "cause", "remedy"),
    [
        (["--format=onnx"], "--run_dir is missing", "--run_dir=runs/NAME"),
        (["--run_dir=r"], "--format is missing", "--format=onnx"),
        (["--run_dir=r", "--format=onx"], "no format 'onx'", "Did you mean onnx"),
        (
            ["--run_dir=r", "--format=litert", "--output=a.onnx"],
            "--output=a.onnx does not end in .tflite",
            "--output=NAME.tflite",
        ),
    ],
)
def test_export_names_wrong_options(flags, cause, remedy):
    with pytest.raises(UserError) as caught:
        export.main(["export", *flags])
    assert cause in caught.value.cause and remedy in caught.value.remedy
    assert caught.value.exit_code == ExitCode.USAGE


def test_export_names_missing_packages(monkeypatch):
    monkeypatch.setitem(FORMATS["onnx"].packages, "no_such_module", "no-such-package")
    with pytest.raises(UserError, match="needs .*no-such-package") as caught:
        export.main(["export", "--run_dir=run", "--format=onnx"])
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.remedy == "Install the extra: pip install -e '.[export]'"


def test_export_needs_the_dataset(make_run, tmp_path):
    run_dir = make_run()
    (run_dir / "flags.txt").write_text(f"--data_dir={tmp_path}/gone\n")
    with pytest.raises(UserError, match="dataset is not at .*gone") as caught:
        run_export(run_dir, "keras")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "--data_dir" in caught.value.remedy


def test_export_check_imports_nothing_of_the_project():
    tree = ast.parse(Path(export_check.__file__).read_text())
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} == {
        *("sys", "collections", "numpy"),
        *("keras", "tensorflow", "onnxruntime", "ai_edge_litert"),
    }


#: One plain and one residual network.
ALL_FORMATS = ("vgg16", "resnet50")
ARCHITECTURES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name != "googlenet"))
    for name in models.ARCHITECTURES
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_export_of_every_architecture(make_run, architecture):
    run_dir = make_run(architecture)
    for name in FORMATS if architecture in ALL_FORMATS else ("onnx",):
        path = run_export(run_dir, name)
        record = json.loads((run_dir / f"{path.name}.json").read_text())
        assert record["largest_difference"] < 1e-4
        assert record["model"] == architecture
