"""Files of strangers: nothing in them runs; what is damaged is named in one line."""

import ast
import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from schemas import manifest as manifest_schema
from support.documents import MOST_JSON_BYTES
from support.errors import ExitCode, UserError
from tests.trainer.reporting import test_model_card
from trainer import models
from trainer.data import open_dataset
from trainer.evaluation import calibration
from trainer.loop import checkpoint
from trainer.models import weights
from trainer.reporting import report
from trainer.runs.record import read_run, write_run

ROOT = Path(__file__).parents[3]
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """A pickle; fails the test if anything unpickled it."""
    path = tmp_path / "exploded"
    yield pickle.dumps(Bomb(path))
    assert not path.exists()


def garbage(content: bytes, bomb: bytes) -> dict[str, bytes]:
    """What may lie where a file with `content` should."""
    return {
        "nothing": b"",
        "a half": content[: len(content) // 2],
        "a pickle": bomb,
        "noise": bytes(range(256)) * 9,
    }


def refusal(code, call, *arguments) -> str:
    """Calls and returns the cause, which is one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert caught.value.exit_code == code, caught.value
    assert "\n" not in caught.value.cause + caught.value.remedy
    return caught.value.cause


@pytest.mark.parametrize(
    "name",
    ["run.json", "metrics.json", "subgroups.json", "history.csv", "predictions.csv"],
)
def test_damaged_files_of_a_run(tmp_path, bomb, name):
    run_dir = test_model_card.write_run(tmp_path / "run")
    path = run_dir / name
    content = path.read_bytes()
    report.load_run(run_dir)
    found = garbage(content, bomb) | {"digits": b'{"model": ' + b"1" * 5000 + b"}"}
    if name.endswith(".json"):
        found |= {"deep": DEEP, "a list": b"[]", "a number": b"3", "null": b"null"}
    else:
        del found["a half"]  # may be a shorter table; the next lines are not
        found["a cut line"] = content[: content.rindex(b"\n", 0, -1) + 2]
        found["zeros"] = b"\0" * 100
    for kind, damaged in found.items():
        path.write_bytes(damaged)
        assert name in refusal(ExitCode.INPUT_DATA, report.load_run, run_dir), kind
    path.unlink()
    path.mkdir()
    if name != "subgroups.json":  # which a run may lack
        refusal(ExitCode.INPUT_DATA, report.load_run, run_dir)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("run.json", "parameters", "many"),
        ("run.json", "epochs", True),
        ("run.json", "best_epoch", 7),
        ("run.json", "temperature", 0),
        ("run.json", "input_size", 10**9),
        ("run.json", "files", {"best.keras": "../../x"}),
        ("run.json", "data", {"class_counts": {}}),
        ("run.json", "versions", ["keras"]),
        ("run.json", "train_seconds", float("inf")),
        ("metrics.json", "n", 0),
        ("metrics.json", "split", "../x"),
        ("metrics.json", "accuracy", 0.9),
        ("metrics.json", "accuracy", {"value": "a", "interval": None}),
        ("metrics.json", "auc", {"value": 0.9, "interval": [1, 2, 3]}),
        ("metrics.json", "confusion_matrix", [[1, 2], [3]]),
        ("metrics.json", "bootstrap", []),
        ("metrics.json", "calibration", {"temperature": 1.0}),
        ("metrics.json", "evaluation", {"notes": "x"}),
    ],
)
def test_json_of_wrong_types(tmp_path, name, key, value):
    path = test_model_card.write_run(tmp_path / "run") / name
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {key: value}))
    cause = refusal(ExitCode.INPUT_DATA, report.load_run, path.parent)
    assert name in cause or key == "best_epoch"


def test_tables_hold_what_they_should(tmp_path):
    run_dir = test_model_card.write_run(tmp_path / "run")
    path = run_dir / "predictions.csv"
    lines = path.read_text().splitlines()
    for values in (
        "x.jpg,1,2,0.5",
        "x.jpg,1,0,1.5",
        "x.jpg,1.5,0,0.5",
        "x.jpg,1,0,nan",
    ):
        rest = lines[1].split(",")[4:]
        changed = ",".join([values, *rest])
        path.write_text("\n".join([lines[0], *lines[1:5], changed]))
        assert "predictions.csv" in refusal(3, report.load_run, run_dir)


def test_huge_documents_are_not_read(tmp_path):
    path = tmp_path / "run.json"
    with open(path, "wb") as file:
        file.truncate(MOST_JSON_BYTES + 1)
    assert "is larger than" in refusal(3, read_run, tmp_path)


def forge(folder, changes, shard=None) -> None:
    """Rewrites a manifest with the digest that belongs to the changes."""
    path = folder / manifest_schema.FILE_NAME
    document = json.loads(path.read_text()) | changes
    document["shards"][0] |= shard or {}
    del document["digest"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(document))


@pytest.fixture
def copied(dataset_dir, tmp_path):
    """A dataset whose manifest may be changed."""
    for file in dataset_dir.iterdir():
        (tmp_path / "data").mkdir(exist_ok=True)
        os.link(file, tmp_path / "data" / file.name)
    path = tmp_path / "data" / manifest_schema.FILE_NAME
    text = path.read_text()
    path.unlink()
    path.write_text(text)
    return tmp_path / "data"


def test_damaged_manifests(copied, bomb):
    path = copied / manifest_schema.FILE_NAME
    content = path.read_bytes()
    found = garbage(content, bomb) | {"deep": DEEP, "list": b"[]", "number": b"3"}
    found["digits"] = b'{"version": ' + b"1" * 5000 + b"}"
    for kind, damaged in found.items():
        path.write_bytes(damaged)
        cause = refusal(ExitCode.INTEGRITY, open_dataset, copied)
        assert str(path) in cause, kind


@pytest.mark.parametrize(
    ("changes", "shard"),
    [
        ({}, {"name": "../outside"}),
        ({}, {"name": "/etc/passwd"}),
        ({}, {"name": ".."}),
        ({}, {"name": ""}),
        ({}, {"name": "a\0b"}),
        ({}, {"name": 7}),
        ({}, {"records": -1}),
        ({}, {"bytes": True}),
        ({}, {"sha256": 7}),
        ({}, {"class_counts": [1, 2, 3]}),
        ({}, {"class_counts": ["a", "b"]}),
        ({}, {"class_counts": 1}),
        ({}, {"split": ["train"]}),
        ({}, {"strange": 1}),
        ({"attribute": "../x"}, {}),
        ({"attribute": ["Male"]}, {}),
        ({"image_shape": [10**9, 10**9, 3]}, {}),
        ({"image_shape": [40, 32]}, {}),
        ({"image_shape": "abc"}, {}),
        ({"class_weights": ["a", "b"]}, {}),
        ({"class_weights": [1.0]}, {}),
        ({"config": []}, {}),
        ({"sources": {"images": 3}}, {}),
        ({"strange": 1}, {}),
    ],
)
def test_forged_manifests(copied, changes, shard):
    forge(copied, {}, {})
    open_dataset(copied)
    forge(copied, changes, shard)
    cause = refusal(ExitCode.INTEGRITY, open_dataset, copied)
    assert manifest_schema.FILE_NAME in cause


@pytest.fixture
def run_dir(tiny, tmp_path):
    """A folder with a model in it."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = models.build(tiny, 32)
    models.save(model, folder / models.BEST)
    write_record(folder)
    return folder


def write_record(folder, **changes) -> None:
    """run.json as a stranger would write it: the sha256 is that of his file."""
    digest = hashlib.sha256((folder / models.BEST).read_bytes()).hexdigest()
    record = {"model": "tiny", "input_size": 32, "preprocessing": "scaled"}
    record |= {"attribute": "Male", "files": {models.BEST: digest}}
    write_run(folder, record | changes)


def bombs(path) -> dict[str, bytes]:
    """.keras files that would take more memory than the model, or other files."""
    huge = io.BytesIO()
    with h5py.File(huge, "w") as file:
        file.create_dataset("layers/conv/vars/0", (1 << 40,), "f4", chunks=(1024,))
    link = io.BytesIO()
    with h5py.File(link, "w") as file:
        file["layers"] = h5py.ExternalLink(str(path), "layers")
    found = {"zeros": bytes(1 << 26), "shape": huge.getvalue(), "link": link.getvalue()}
    return {name: zipped({"model.weights.h5": data}) for name, data in found.items()}


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_models_of_strangers(run_dir, bomb, tmp_path):
    path = run_dir / models.BEST
    content = path.read_bytes()
    models.load(run_dir)
    for kind, damaged in (garbage(content, bomb) | bombs(path)).items():
        path.write_bytes(damaged)
        cause = refusal(ExitCode.INTEGRITY, models.load, run_dir)
        assert "its sha256 differs" in cause, kind
        write_record(run_dir)
        cause = refusal(ExitCode.INTEGRITY, models.load, run_dir)
        assert "contains no weights" in cause, kind
        path.write_bytes(content)
        write_record(run_dir)


def test_the_architecture_in_the_file_is_not_read(run_dir):
    path = run_dir / models.BEST
    before = models.load(run_dir).get_weights()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    layer = {"class_name": "Lambda", "config": {"function": "os.system"}}
    members["config.json"] = json.dumps(layer).encode()
    members["../../outside"] = b"x"
    path.write_bytes(zipped(members))
    write_record(run_dir)
    after = models.load(run_dir).get_weights()
    assert all(map(np.array_equal, before, after))
    assert not (run_dir.parent.parent / "outside").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "os"},
        {"model": None},
        {"preprocessing": "x"},
        {"input_size": 1 << 20},
        {"input_size": True},
        {"attribute": None},
        {"temperature": -1},
        {"files": {}},
        {"files": {models.BEST: "../x"}},
        {"files": [models.BEST]},
    ],
)
def test_run_records_of_strangers(run_dir, changes):
    write_record(run_dir, **changes)
    cause = refusal(ExitCode.INPUT_DATA, models.load, run_dir)
    assert "run.json" in cause or "no best.keras" in cause


def test_weights_of_strangers(tiny, tmp_path, bomb):
    model = models.build(tiny, 32)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv"]
        file.create_group("conv").attrs["weight_names"] = ["kernel"]
        file["conv"].create_dataset("kernel", (1 << 40,), "f4", chunks=(1024,))
    shape = path.read_bytes()
    with h5py.File(path, "w") as file:
        file["conv"] = h5py.ExternalLink("/etc/passwd", "x")
    link = path.read_bytes()
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (4,), "f4", external=[("/etc/passwd", 0, 16)])
    for damaged in (shape, link, path.read_bytes(), *garbage(shape, bomb).values()):
        path.write_bytes(damaged)
        refusal(ExitCode.USAGE, weights.read_weights, model, path)


def test_arrays_of_strangers(tmp_path, bomb, monkeypatch):
    objects, large = io.BytesIO(), io.BytesIO()
    np.savez(objects, a=np.array([Bomb(tmp_path / "exploded")], object))
    np.savez_compressed(large, a=np.zeros(1 << 21))
    monkeypatch.setattr(weights, "MOST_BYTES", 1 << 23)
    path = tmp_path / "x.npz"
    kinds = garbage(large.getvalue(), bomb).values()
    for damaged in (objects.getvalue(), large.getvalue(), *kinds):
        path.write_bytes(damaged)
        refusal(ExitCode.USAGE, weights.read_arrays, path)
    path = tmp_path / "x.safetensors"
    for header in (DEEP, b"[]", b'{"a": 1}', b'{"a": {"dtype": [], "shape": 1}}'):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        refusal(ExitCode.USAGE, weights.read_arrays, path)
    with open(path, "wb") as file:
        file.truncate(1 << 30)
    refusal(ExitCode.USAGE, weights.read_arrays, path)


def test_checkpoints_of_strangers(tmp_path, bomb):
    state = {"w": tf.Variable([1.0, 2.0])}
    checkpoint.save(tmp_path, 3, state, checkpoint.Progress())
    path = tmp_path / "checkpoints" / "step-000000003.npz"
    content = path.read_bytes()
    with np.load(path) as archive:
        header = json.loads(str(archive["header"]))
    found = garbage(content, bomb)
    objects = np.array([Bomb(tmp_path / "exploded")], object)
    for kind, (changes, array) in {
        "objects": ({}, objects),
        "shape": ({}, np.ones(3, np.float32)),
        "large": ({}, np.zeros(1 << 24)),
        "path": ({"best_epoch": "../../x"}, state["w"].numpy()),
        "type": ({"step": [1]}, state["w"].numpy()),
        "key": ({"strange": 1}, state["w"].numpy()),
        "history": ({"history": [3]}, state["w"].numpy()),
    }.items():
        file = io.BytesIO()
        text = np.array(json.dumps(header | changes))
        np.savez_compressed(file, header=text, w=array)
        found[kind] = file.getvalue()
    deep = io.BytesIO()
    np.savez_compressed(deep, header=np.array(DEEP.decode()), w=state["w"].numpy())
    for kind, damaged in (found | {"deep": deep.getvalue()}).items():
        path.write_bytes(damaged)
        cause = refusal(ExitCode.INTEGRITY, checkpoint.restore, tmp_path, state)
        assert "None of the 1 checkpoints" in cause, kind
        assert state["w"].numpy().tolist() == [1.0, 2.0]
    path.write_bytes(content)
    assert checkpoint.restore(tmp_path, state)[1] == []


def test_no_loader_that_runs_code_is_used():
    unsafe = {"eval", "exec", "load_module", "unsafe_load", "full_load"}
    for package in ("schemas", "support", "trainer", "beam_pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"(import|from) (pickle|dill|joblib)\b", text), path
            for node in ast.walk(ast.parse(text)):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                last = name.rpartition(".")[2]
                options = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert name not in unsafe, path
                assert name != "yaml.load" and last not in unsafe - {"eval"}, path
                assert options.get("allow_pickle", "False") == "False", path
                if last == "load_model":
                    assert options.get("safe_mode") == "True", path


def test_probabilities_stay_finite_at_any_recorded_temperature():
    logits = np.array([-1e4, 0.0, 1e4])
    for temperature in (1e-3, 1e3):
        found = calibration.probabilities(logits, temperature)
        assert np.isfinite(found).all() and found[1] == 0.5
