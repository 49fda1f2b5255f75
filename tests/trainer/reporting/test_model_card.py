"""The model card of a run folder made by hand, its header and its chain of hashes."""

import hashlib
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from schemas import celeba
from support.errors import ExitCode, UserError
from tests.trainer.evaluation import run_folder
from tests.trainer.evaluation.run_folder import edit, refused
from trainer import model_card
from trainer.evaluation import results
from trainer.runs import provenance

MODEL = b"weights"
SHA256 = hashlib.sha256(MODEL).hexdigest()
DIGEST = "ab" * 32
SOURCES = {
    "attributes": {
        "file": "list_attr_celeba.txt",
        "official": False,
        "rows": 120,
        "sha256": "12" * 32,
    },
    "images": {"bytes": 9, "count": 120, "sha256": "34" * 32},
}


def _predictions(count=120):
    table = run_folder.predictions(count)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (count, len(celeba.ATTRIBUTES)))
    table[list(celeba.ATTRIBUTES)] = values
    table = table.assign(Male=table["label"])
    table[celeba.ATTRIBUTES[0]] = 0  # a group without an image
    return results.calibrated(table, 1.5)


def write_run(run_dir, sources=SOURCES):
    run_folder.write(
        run_dir,
        flags="--model=resnet50\n--data_dir=/home/me/data\n--weights=/home/me/w.h5\n",
        input_size=96,
        temperature=1.5,
        versions={"keras": "3.15.1"},
        files={"best.keras": SHA256},
        data=run_folder.data(sources=sources),
    )
    predictions = _predictions()
    result = results.assess(predictions, 1.5, "test")
    results.write(run_dir, predictions, result, "Male")
    (run_dir / "best.keras").write_bytes(MODEL)
    return run_dir


@pytest.fixture
def run_dir(tmp_path):
    return write_run(tmp_path / "run")


def _card(run_dir, *options):
    model_card.main(["model_card", f"--run_dir={run_dir}", *options])
    return _read_card(run_dir)


def _read_card(run_dir):
    text = (run_dir / "MODEL_CARD.md").read_text()
    found = re.fullmatch(r"---\n(.*?\n)---\n\n(.*)", text, re.DOTALL)
    return yaml.safe_load(found[1]), found[2]


def _write_export(path, model=SHA256, **changes):
    path.write_bytes(b"exported")
    record = {
        "format": "onnx",
        "file": path.name,
        "sha256": hashlib.sha256(b"exported").hexdigest(),
        "model_sha256": model,
        "manifest_digest": DIGEST,
        "attribute": "Male",
        "largest_difference": 2.5e-7,
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(record | changes))


def test_card_header_follows_hugging_face(run_dir, capsys):
    header, _ = _card(run_dir)
    assert capsys.readouterr().out == f"{run_dir}/MODEL_CARD.md\n"
    assert header["library_name"] == "keras"
    assert header["pipeline_tag"] == "image-classification"
    assert header["license"] == "other" and header["license_name"]
    assert header["license_link"] == celeba.HOME_PAGE
    index = header["model-index"][0]
    assert index["name"] == "run"
    result = index["results"][0]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["split"] == "test"
    assert result["dataset"]["revision"] == DIGEST
    metrics = json.loads((run_dir / "metrics.json").read_text())
    found = {row["type"]: row["value"] for row in result["metrics"]}
    assert found["accuracy"] == metrics["accuracy"]["value"]
    assert found["roc_auc"] == metrics["auc"]["value"]
    assert found["expected_calibration_error"] == metrics["ece"]["value"]
    assert len(found) == 10


def test_card_numbers_equal_the_files(run_dir):
    _, body = _card(run_dir)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    value = f"{100 * metrics['accuracy']['value']:.1f} %"
    low, high = (f"{100 * bound:.1f}" for bound in metrics["accuracy"]["interval"])
    assert f"| Accuracy | {value} | {low}–{high} % |" in body
    (tn, fp), (fn, tp) = metrics["confusion_matrix"]
    assert f"| not Male | {tn} | {fp} |" in body and f"| Male | {fn} | {tp} |" in body
    errors = len(pd.read_csv(run_dir / results.LABEL_ERRORS))
    assert f"{errors} of 120 test images are likely label errors" in body
    assert "40 people in test." in body
    assert "temperature of 1.50" in body and "sigmoid(logit / 1.5)" in body
    assert "| Training time | 1 min 1 s |" in body
    assert "a \\<processor\\>" in body
    # Folders of the machine of the training are nobody's business.
    assert "/home/me" not in body and "--weights=w.h5" in body
    assert "<img" not in body and "![" not in body
    for text in ("gender identity", "Identifying", "non-commercial research"):
        assert text in body
    for sha256 in (SHA256, DIGEST, "12" * 32, "34" * 32):
        assert f"`{sha256}`" in body


@pytest.mark.parametrize(
    ("sources", "identifier", "said"),
    [
        (SOURCES, "celeba-layout", "cannot say what the images are"),
        (
            {"attributes": SOURCES["attributes"] | {"official": True}},
            "celeba",
            "on images of CelebA",
        ),
        (
            SOURCES | {"sample": {"format": "celeba-drawn-faces", "sha256": "56" * 32}},
            "celeba-drawn-faces",
            "This is not CelebA",
        ),
    ],
)
def test_card_names_celeba_only_with_official_files(
    tmp_path, sources, identifier, said
):
    header, body = _card(write_run(tmp_path / "run", sources))
    assert header["datasets"] == [identifier]
    assert header["model-index"][0]["results"][0]["dataset"]["type"] == identifier
    assert said in " ".join(body.split())
    drawn = identifier == "celeba-drawn-faces"
    assert (header["license"] == "apache-2.0") == drawn
    assert ("labeling company" in body) != drawn


def test_card_escapes_hostile_names(tmp_path):
    name = "a`|<b>\n---\nlicense: mit\n---\n[x](javascript:1)\u202e'\""
    run_dir = write_run(tmp_path / name.replace("/", ""))
    folder = run_dir / "evaluation-<i>|*x*"
    edit(run_dir / "run.json", device_name="![x](http://a/b.png)\n\n# <script>")
    _write_evaluation(run_dir, folder, notes=["see <b>\n# that"])
    _write_export(run_dir / "x`|<u>.onnx")
    model_card.write_card(run_dir)  # a flag refuses a path with line breaks
    header, body = _read_card(run_dir)
    assert header["license"] == "other"
    assert header["model-index"][0]["name"].count("\n") == 0
    assert "javascript" in header["model-index"][0]["name"]
    # Code blocks show what is in them.
    body = re.sub(r"^(```+)\w*\n.*?^\1$", "", body, flags=re.M | re.S)
    assert not re.search(r"(?<!\\)<(script|b>|/b)", body)
    assert "\\!\\[x\\](http://a/b.png)" in body
    assert not re.search(r"^# (?!ResNet50)", body, re.MULTILINE)
    rows = [line for line in body.splitlines() if ".onnx" in line and "|" in line]
    assert rows and all("<u>" in row and "``" in row for row in rows)
    # No name ends a cell: every row has the columns of its head.
    assert all(row.count("|") == 4 for row in rows)
    assert "\u202e" not in body


def _write_evaluation(run_dir, folder, split="test", **changes):
    evaluation = {
        "attribute": "Male",
        "manifest_digest": "cd" * 32,
        "run_manifest_digest": DIGEST,
        "model_sha256": SHA256,
        "data": run_folder.data(sources={"sample": {"format": "celeba-drawn-faces"}}),
        "notes": ["Not the dataset of the training."],
    }
    folder.mkdir()
    shutil.copy(run_dir / "metrics.json", folder)
    edit(folder / "metrics.json", split=split, evaluation=evaluation | changes)


def test_card_lists_evaluations_on_other_data(run_dir, tmp_path):
    _write_evaluation(run_dir, run_dir / "evaluation-test")
    for folder in (run_dir / "evaluation-other", tmp_path / "there"):
        _write_evaluation(run_dir, folder, "validation", model_sha256="0" * 64)
    header, body = _card(run_dir)
    found = header["model-index"][0]["results"]
    assert [one["dataset"]["revision"] for one in found] == [DIGEST, "cd" * 32]
    assert found[1]["dataset"]["type"] == "celeba-drawn-faces"
    assert (
        "`evaluation-test` | Synthetic faces in CelebA's layout | test | 120 | 40 |"
        in body
    )
    assert "Not the dataset of the training." in body
    assert "evaluation-other" not in body
    with refused("is no evaluation of the model", ExitCode.INTEGRITY):
        _card(run_dir, f"--evaluation={tmp_path / 'there'}")


def test_card_includes_and_verifies_exports(run_dir, tmp_path, capsys):
    _write_export(run_dir / "model.onnx")
    _write_export(tmp_path / "there.onnx")
    _write_export(run_dir / "strange.onnx", model="0" * 64)
    _write_export(run_dir / "outside.onnx", file="../best.keras")
    _, body = _card(run_dir, f"--export={tmp_path / 'there.onnx'}")
    assert "| `model.onnx` | onnx | 2.5e-07 |" in body and "`there.onnx`" in body
    assert "strange" not in body and "outside" not in body
    for path, message, code in (
        (run_dir / "strange.onnx", "was not exported from", ExitCode.INTEGRITY),
        (run_dir / "outside.onnx", "is about '../best.keras'", ExitCode.INPUT_DATA),
        (run_dir / "none.onnx", "none.onnx.json cannot be read", ExitCode.INPUT_DATA),
    ):
        with refused(re.escape(message), code):
            _card(run_dir, f"--export={path}")
    capsys.readouterr()
    model_card.main(["model_card", f"--run_dir={run_dir}", "--verify"])
    out = capsys.readouterr().out
    assert f"holds: {run_dir}/best.keras: sha256 {SHA256}" in out
    assert f"holds: {run_dir}/model.onnx" in out and "not checked: the dataset" in out


@pytest.mark.parametrize("name", ["best.keras", "model.onnx"])
def test_verify_finds_a_changed_file(run_dir, name):
    _write_export(run_dir / "model.onnx")
    words = ["model_card", f"--run_dir={run_dir}", "--verify"]
    model_card.main(words)
    path = run_dir / name
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with refused(f"{name} was changed: its sha256", ExitCode.INTEGRITY):
        model_card.main(words)
    path.unlink()
    with refused(f"{name} cannot be read"):
        model_card.main(words)


def test_verify_checks_the_dataset(run_dir, dataset_dir, capsys):
    words = ["model_card", f"--run_dir={run_dir}", "--verify"]
    words.append(f"--data_dir={dataset_dir}")
    with refused("not the dataset that the run", ExitCode.INTEGRITY):
        model_card.main(words)
    manifest = json.loads((dataset_dir / "manifest.json").read_text())
    edit(run_dir / "run.json", manifest_digest=manifest["digest"])
    model_card.main(words)
    assert f"manifest {manifest['digest']}, 6 shards" in capsys.readouterr().out
    shutil.copy(dataset_dir / "manifest.json", run_dir)
    shard = manifest["shards"][0]
    copy = run_dir / "manifest.json"
    model_card.main(words)
    assert f"{copy}: manifest {manifest['digest']}" in capsys.readouterr().out
    copy.write_text(copy.read_text().replace(shard["sha256"], "0" * 64))
    with pytest.raises(UserError, match="json is not the manifest that the run"):
        model_card.main(words)


def test_sha256_of_a_directory_is_that_of_its_listing(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1").write_bytes(b"one")
    (tmp_path / "a").write_bytes(b"two")
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  ./{name}\n"
        for name, content in (("a", b"two"), ("b/1", b"one"))
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert provenance.sha256_of(tmp_path) == expected


def test_card_of_older_runs_and_wrong_flags(run_dir):
    (run_dir / "subgroups.json").unlink()
    newer = ("calibration", "abstention", "ece", "per_class", "split")
    edit(run_dir / "metrics.json", **dict.fromkeys(newer))
    _, body = _card(run_dir)
    assert "No temperature was fitted" in body and "None were computed." in body
    for flags, message in (
        ([], "--run_dir is missing"),
        (["--run_dir=x", "--data_dir=y"], "--data_dir is for --verify only"),
        (["--run_dir=x", "--evaluation=y", "--verify"], "--evaluation is for the card"),
    ):
        with pytest.raises(UserError, match=message):
            model_card.main(["model_card", *flags])
    edit(run_dir / "run.json", files={})
    with pytest.raises(UserError, match="is not a finished run"):
        _card(run_dir)
