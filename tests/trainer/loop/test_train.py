"""Whole runs through the real path: results, resume, replicas, precision."""

import csv
import json
import signal
import threading

import numpy as np
import pandas as pd
import pytest

from schemas import celeba
from support import command, figures
from support.errors import ExitCode
from tests.trainer.conftest import COUNTS
from tests.trainer.running import check_same_outcome, run, signal_in
from trainer import main, models
from trainer.data import dataset as data_module
from trainer.loop import job as jobs
from trainer.loop import steps
from trainer.reporting import card

#: The tiny model learns with these from any seed, not from a lucky one alone.
LEARNS = {
    "epochs": 12,
    "ema": 0.0,
    "patience": 0,
    "dropout": 0.0,
    "rotation": 0.0,
    "width_shift": 0.0,
    "height_shift": 0.0,
}


def test_a_run_leaves_what_it_promises(config, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert run(config, charts=True) == ExitCode.OK
    assert signal.getsignal(signal.SIGTERM) is before
    assert threading.active_count() < 100
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} >= {
        "flags.txt",
        "run.json",
        "history.csv",
        "best.keras",
        "metrics.json",
        "predictions.csv",
        "predictions-validation.csv",
        "likely_label_errors.csv",
        "most_uncertain.csv",
        "curves.png",
        "confusion_matrix.png",
        "roc.png",
        "precision_recall.png",
        "report.html",
        "manifest.json",
        "MODEL_CARD.md",
    }
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["precision"] == "float32"
    assert record["replicas"] == 1
    assert record["strategy"] == "MirroredStrategy"
    assert record["global_batch"] == 8
    assert record["decoded_in_memory"] == ["train", "validation"]
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows[:1]] == [
        ["image_id", "identity", "label", "probability", *celeba.ATTRIBUTES]
    ]
    assert sorted(row["image_id"] for row in rows) == [
        f"test-{i:03d}.jpg" for i in range(COUNTS["test"])
    ]
    right = [
        (float(row["probability"]) >= 0.5) == (row["label"] == "1") for row in rows
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert record["temperature"] == metrics["calibration"]["temperature"]
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert metrics["n"] == COUNTS["test"]
    assert np.array(metrics["confusion_matrix"]).sum() == COUNTS["test"]
    assert len(pd.read_csv(folder / "history.csv")) == 2
    assert str(tmp_path) not in (folder / "report.html").read_text()
    assert not (folder / "checkpoints").exists()
    capsys.readouterr()
    assert run(config) == ExitCode.OK
    assert "nothing to do" in capsys.readouterr().out


def test_it_learns(changed, tmp_path):
    assert run(changed(**LEARNS)) == ExitCode.OK
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["accuracy"]["value"] >= 0.95


def test_early_stopping_ends_a_run_that_no_longer_improves(changed, tmp_path):
    # Without learning the validation loss is best in the first epoch.
    assert run(changed(epochs=9, patience=2, learning_rate=1e-12)) == ExitCode.OK
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["epochs"] - record["best_epoch"] == 2


@pytest.mark.parametrize(
    ("stops_after", "options"),
    [
        ((2, 9), {}),
        ((6,), {"precision": "bfloat16"}),
        ((9,), {"precision": "bfloat16", "mixup": 0.2}),
        ((8,), {"cache_mb": 0, "shuffle_buffer": 5}),
        ((9,), {"augment": "keras", "zoom": 0.1}),
        ((4,), {"augment": "erasing"}),
    ],
)
def test_stopped_run_resumes_bit_equal(
    changed, tmp_path, monkeypatch, capsys, stops_after, options
):
    whole = changed(run_dir=str(tmp_path / "whole"), dropout=0.3, **options)
    assert run(whole) == ExitCode.OK

    for calls in stops_after:
        folder = tmp_path / f"stopped-{calls}"
        stopped = changed(run_dir=str(folder), dropout=0.3, **options)
        with monkeypatch.context() as patch:
            signal_in(patch, steps.TrainStep, "__call__", signal.SIGTERM, calls)
            assert run(stopped) == ExitCode.STOPPED
        assert "Resume with: python -m trainer.main" in capsys.readouterr().err
        assert run(stopped) == ExitCode.OK
        assert "resuming in epoch" in capsys.readouterr().out
        check_same_outcome(folder, tmp_path / "whole")


def test_choice_to_cache_is_kept_on_resume(
    changed, finished_run, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        signal_in(patch, steps.TrainStep, "__call__", signal.SIGTERM)
        assert run(changed(run_dir=str(tmp_path / "part"))) == ExitCode.STOPPED
    monkeypatch.setattr(data_module, "available_memory", lambda: 0)
    assert run(changed(run_dir=str(tmp_path / "part"))) == ExitCode.OK
    record = json.loads((tmp_path / "part" / "run.json").read_text())
    assert record["decoded_in_memory"] == ["train", "validation"]
    check_same_outcome(tmp_path / "part", finished_run)
    record["decoded_in_memory"] = ["valid"]
    record["status"] = "running"
    (tmp_path / "part" / "run.json").write_text(json.dumps(record))
    assert run(changed(run_dir=str(tmp_path / "part"))) == ExitCode.INPUT_DATA


def test_datasets_are_made_once_a_run(changed, monkeypatch):
    made = []
    for name in ("train_dataset", "evaluation_dataset"):
        make = getattr(jobs, name)

        def count(*args, name=name, make=make, **kwargs):
            made.append(name)
            return make(*args, **kwargs)

        monkeypatch.setattr(jobs, name, count)
    assert run(changed(epochs=3)) == ExitCode.OK
    # The training, the validation and, at the end, the test split.
    assert made == ["train_dataset", "evaluation_dataset", "evaluation_dataset"]


def test_two_replicas_train_evaluate_and_save(changed, tmp_path, capsys):
    config = changed(replicas=2, batch_size=7, **LEARNS)
    assert run(config) == ExitCode.OK
    folder = tmp_path / "run"
    assert "global batch 7, 3 or 4 per replica" in capsys.readouterr().out
    assert 'alt="heat map of test-' in (folder / "report.html").read_text()
    record = json.loads((folder / "run.json").read_text())
    assert record["replicas"] == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == COUNTS["test"]
    assert metrics["accuracy"]["value"] > 0.9
    assert models.load(folder).count_params() == record["parameters"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_precisions_train(changed, tmp_path, precision):
    assert run(changed(precision=precision, epochs=1)) == ExitCode.OK
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["precision"] == precision
    logit = models.load(tmp_path / "run").get_layer("logit")
    assert logit.compute_dtype == "float32"


def test_transfer_changes_only_the_last_layer(changed, finished_run, tmp_path):
    first = models.load(finished_run).get_weights()
    start = str(finished_run / "best.keras")
    assert run(changed(regime="transfer", weights=start)) == ExitCode.OK
    second = models.load(tmp_path / "run").get_weights()
    for got, want in zip(second[:-2], first[:-2], strict=True):
        np.testing.assert_array_equal(got, want)
    assert not np.array_equal(second[-2], first[-2])


def test_printed_command_resumes(changed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        signal_in(patch, steps.TrainStep, "__call__", signal.SIGINT)
        assert run(changed(run_dir="")) == ExitCode.INTERRUPTED
    printed = capsys.readouterr().err.partition("python -m trainer.main")[2].split()
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert printed == [f"--flagfile={folder}/flags.txt"]
    # It was moved, and the command is given elsewhere: the run is where its flags are.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder.rename(tmp_path / "moved")
    assert command.guard(main.main, ["main", "--flagfile=../moved/flags.txt"]) == 0
    assert "resuming in epoch 1 after step 1" in capsys.readouterr().out
    assert (tmp_path / "moved" / "report.html").exists()
    assert not folder.exists()


def test_a_report_that_cannot_be_drawn_leaves_the_run_finished(
    changed, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise RuntimeError("no font\nof this name")

    monkeypatch.setattr(figures, "png", fail)
    monkeypatch.setattr(card, "write_card", fail)
    assert run(changed(epochs=1), charts=True) == ExitCode.OK
    folder = tmp_path / "run"
    notes = capsys.readouterr().err
    for name, program in (("report.html", "report"), ("MODEL_CARD.md", "model_card")):
        assert not (folder / name).exists()
        assert f"note: {folder}/{name} could not be made (RuntimeError: no" in notes
        assert f"python -m trainer.{program} --run_dir={folder}\n" in notes
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert (folder / "metrics.json").exists()
