"""`trainer.evaluate` on a run of the tiny dataset, against the run's own results."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf

from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest
from support.errors import ExitCode, UserError
from tests.trainer.conftest import (
    COUNTS,
    TINY,
    attributes,
    tiny_config,
    write_dataset,
)
from tests.trainer.running import run, without_charts
from trainer import evaluate, models, predict, report
from trainer.data import open_dataset
from trainer.data.input_pipeline import read_images


@pytest.fixture(autouse=True)
def no_charts():
    with without_charts():
        yield


@pytest.fixture(scope="module")
def finished(dataset_dir, tmp_path_factory):
    """A run of one short epoch, made once for all tests here."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.ARCHITECTURES, "tiny", TINY)
        config = tiny_config(dataset_dir, folder)
        assert run(dataclasses.replace(config, epochs=1, flip_average=True)) == 0
    return folder


@pytest.fixture
def run_dir(finished, tiny, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def _evaluate(run_dir, data_dir, *flags: str) -> dict:
    evaluate.main(
        ["evaluate", f"--run_dir={run_dir}", f"--data_dir={data_dir}", *flags]
    )
    output = [flag.split("=")[1] for flag in flags if flag.startswith("--output_dir")]
    folder = Path(output[0]) if output else run_dir / "evaluation-test"
    return json.loads((folder / "metrics.json").read_text())


def _with_temperature(run_dir, temperature: float) -> None:
    run = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(run | {"temperature": temperature}))


def test_the_runs_own_results_at_any_batch_size(run_dir, dataset_dir, tmp_path, capsys):
    own = pd.read_csv(run_dir / "predictions.csv")
    before = {path: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    for size in (3, 8):
        result = _evaluate(run_dir, dataset_dir, f"--batch_size={size}")
        table = pd.read_csv(run_dir / "evaluation-test" / "predictions.csv")
        pd.testing.assert_frame_equal(table, own, atol=1e-5, rtol=0)
        assert result["n"] == COUNTS["test"] == table["image_id"].nunique()
    printed = capsys.readouterr().out
    assert f"replacing the evaluation in {run_dir}/evaluation-test" in printed
    assert f"test accuracy {100 * result['accuracy']['value']:.1f} %" in printed
    assert "note:" not in printed
    assert result["evaluation"]["notes"] == []
    html = (run_dir / "evaluation-test" / "report.html").read_text()
    assert "Evaluation report, test split" in html and 'alt="test-' in html
    assert 'alt="heat map of test-' in html
    # What the run wrote stays as it is.
    assert before == {path: path.read_bytes() for path in before}


def test_flip_average_of_a_run_without(run_dir, dataset_dir, capsys):
    own = pd.read_csv(run_dir / "predictions.csv")
    run = json.loads((run_dir / "run.json").read_text())
    assert run["flip_average"] is True
    (run_dir / "run.json").write_text(json.dumps(run | {"flip_average": False}))
    tables = []
    for flags in ([], ["--flip_average"]):
        _evaluate(run_dir, dataset_dir, "--report_images=false", *flags)
        tables.append(pd.read_csv(run_dir / "evaluation-test" / "predictions.csv"))
    plain, averaged = tables
    assert (plain["probability"] - own["probability"]).abs().max() > 1e-4
    pd.testing.assert_frame_equal(averaged, own, atol=1e-5, rtol=0)
    assert "note: Each logit is the mean" in capsys.readouterr().out


def test_the_reports_are_rendered_again(run_dir, dataset_dir, tmp_path):
    result = _evaluate(run_dir, dataset_dir)
    for results_dir in ("", run_dir / "evaluation-test"):
        path = Path(results_dir or run_dir) / "report.html"
        before = path.read_bytes()
        words = ["report", f"--run_dir={run_dir}", f"--results_dir={results_dir}"]
        report.main(words)
        assert "<img" not in path.read_text()
        report.main([*words, f"--data_dir={dataset_dir}"])
        assert path.read_bytes() == before and b"heat map of test-" in before
    write_dataset(tmp_path / "other", COUNTS | {"test": 10})
    digest = result["evaluation"]["manifest_digest"][:12]
    with pytest.raises(UserError, match=f"not the dataset .* not {digest}") as caught:
        report.main([*words, f"--data_dir={tmp_path / 'other'}"])
    assert caught.value.exit_code == ExitCode.USAGE


def test_another_split_band_and_folder(run_dir, dataset_dir, tmp_path, capsys):
    validation = pd.read_csv(run_dir / "predictions-validation.csv")
    flags = ["--eval_split=validation", f"--output_dir={tmp_path}/out"]
    flags += ["--report_images=false"]
    result = _evaluate(run_dir, dataset_dir, *flags, "--abstain=0.02")
    assert result["split"] == "validation"
    assert result["abstention"]["abstain"] == 0.02
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    pd.testing.assert_frame_equal(table, validation, atol=1e-5, rtol=0)
    assert "note: The epoch and the temperature" in capsys.readouterr().out
    assert "<img" not in (tmp_path / "out" / "report.html").read_text()
    # Sure of nothing but the label: no mistake needs a band.
    table = validation.assign(probability=0.3 + 0.4 * validation["label"])
    table.to_csv(run_dir / "predictions-validation.csv", index=False)
    result = _evaluate(run_dir, dataset_dir, "--target_error=0.0")
    assert result["abstention"]["abstain"] == 0
    assert result["abstention"]["target_error"] == 0
    table["probability"] = 1 - table["probability"]
    table.to_csv(run_dir / "predictions-validation.csv", index=False)
    with pytest.raises(UserError, match="No band reaches --target_error=0.1") as caught:
        _evaluate(run_dir, dataset_dir, "--target_error=0.1")
    assert caught.value.exit_code == ExitCode.USAGE


def test_another_dataset_is_said(run_dir, tmp_path, capsys):
    write_dataset(tmp_path / "other", COUNTS | {"test": 10})
    result = _evaluate(run_dir, tmp_path / "other")
    assert result["n"] == 10
    facts = result["evaluation"]
    assert facts["manifest_digest"] != facts["run_manifest_digest"]
    assert facts["data"]["class_counts"]["test"] == [5, 5]
    assert "people of this split" in capsys.readouterr().out
    html = (run_dir / "evaluation-test" / "report.html").read_text()
    assert "cannot be known" in html and "model never saw" not in html
    assert facts["manifest_digest"] in html


def test_splits_that_share_people_are_said(run_dir, dataset_dir):
    manifest = Manifest.from_json((dataset_dir / FILE_NAME).read_text())
    run = json.loads((run_dir / "run.json").read_text())
    by_image = dataclasses.replace(manifest, config={"split": "random"})
    run["manifest_digest"] = by_image.digest
    (note,) = evaluate.describe(run, by_image, "test")["notes"]
    assert "same person can be in training and test" in note


def test_a_dataset_of_one_split_is_enough(run_dir, tmp_path):
    write_dataset(tmp_path / "other", {"train": 0, "validation": 0, "test": 10})
    assert _evaluate(run_dir, tmp_path / "other")["n"] == 10
    with pytest.raises(UserError, match="has no train examples") as caught:
        _evaluate(run_dir, tmp_path / "other", "--eval_split=train")
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_running_out_of_memory_names_a_batch_size(run_dir, dataset_dir, monkeypatch):
    def fail(*_):
        raise tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(evaluate, "predict_split", fail)
    with pytest.raises(UserError, match="Use --batch_size=8") as caught:
        _evaluate(run_dir, dataset_dir, "--batch_size=16")
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_another_attribute_is_refused(run_dir, dataset_dir, tmp_path):
    shutil.copytree(dataset_dir, tmp_path / "young")
    path = tmp_path / "young" / FILE_NAME
    manifest = Manifest.from_json(path.read_text())
    path.write_text(dataclasses.replace(manifest, attribute="Young").to_json())
    with pytest.raises(UserError, match="labeled by Young, but .* Male") as caught:
        _evaluate(run_dir, tmp_path / "young")
    assert caught.value.exit_code == ExitCode.USAGE
    assert not (run_dir / "evaluation-test").exists()


def test_a_temperature_reaches_every_probability(run_dir, dataset_dir, tmp_path):
    _with_temperature(run_dir, 1.0)
    plain = _evaluate(run_dir, dataset_dir)
    _with_temperature(run_dir, 2.5)
    warm = _evaluate(run_dir, dataset_dir)
    assert warm["calibration"]["temperature"] == 2.5
    assert warm["calibration"]["uncalibrated"]["log_loss"] == pytest.approx(
        plain["log_loss"]["value"], abs=1e-5
    )
    assert warm["log_loss"]["value"] != plain["log_loss"]["value"]
    assert warm["confusion_matrix"] == plain["confusion_matrix"]
    dataset = open_dataset(dataset_dir)
    jpeg = read_images(dataset, "test", ["test-000.jpg"])
    (tmp_path / "test-000.jpg").write_bytes(jpeg["test-000.jpg"])
    table = pd.read_csv(run_dir / "evaluation-test" / "predictions.csv")
    expected = table.set_index("image_id").loc["test-000.jpg", "probability"]
    found = predict.Predictor(run_dir).predict([tmp_path / "test-000.jpg"])
    assert found["probability"][0] == pytest.approx(expected, abs=1e-5)


def test_folders_and_flags_are_checked(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "run.json").write_text("{}")
    (run_dir / "predictions.csv").write_text("the run's own")
    for folder in (run_dir, tmp_path):
        with pytest.raises(UserError, match="holds other files") as caught:
            _evaluate(run_dir, "data", f"--output_dir={folder}")
        assert caught.value.exit_code == ExitCode.OUTPUT
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("image_id,probability\n")
    with pytest.raises(UserError, match="holds other files"):
        _evaluate(run_dir, "data", f"--output_dir={tmp_path / 'mine'}")
    for flag, message in {
        "--run_dir=": "--run_dir is missing",
        "--data_dir=": "--data_dir is missing",
        "--eval_split=tset": "no split 'tset'. Did you mean test",
        "--batch_size=0": "--batch_size=0 is below 1",
        "--abstain=0.6": "--abstain=0.6 is not between 0 and 0.5",
        "--target_error=2": "--target_error=2.0 is not between 0 and 1",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            _evaluate(run_dir, "data", flag)
        assert caught.value.exit_code == ExitCode.USAGE


def test_the_attributes_of_an_example_are_its_own(run_dir, dataset_dir):
    table = pd.read_csv(run_dir / "predictions.csv")
    assert list(table.columns[4:]) == list(celeba.ATTRIBUTES)
    for row in table.itertuples(index=False):
        index = int(row.image_id[5:8])
        assert (row.label, bytes(row[4:])) == (index % 2, attributes(index))
