"""Whole runs through the real path: results, resume, replicas, precision, refusals."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import threading

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest
from support import command
from support.errors import ExitCode, UserError
from trainer import (
    checkpoint,
    input_pipeline,
    learner,
    main,
    models,
    runtime,
    steps,
    train,
    warp,
)
from trainer.config import TrainConfig

from .conftest import COUNTS, write_dataset


@pytest.fixture(autouse=True)
def plain_precision():
    yield
    keras.mixed_precision.set_global_policy("float32")


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


def run(config: TrainConfig) -> int:
    """Runs the program as the command line does; returns its exit code."""
    return command.guard(main.main, ["main", *command.flags_text(config).split()])


def job(config: TrainConfig) -> train.Job:
    dataset = input_pipeline.open_dataset(config.data_dir)
    return train.build_job(config, runtime.prepare(config), dataset)


def test_a_run_leaves_what_it_promises(config, tmp_path, capsys):
    assert run(config) == ExitCode.OK
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
        "report.html",
    }
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["precision"] == "float32"
    assert record["replicas"] == 1
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


def final_state(folder):
    """The weights and the history of a run, its timings left out."""
    history = pd.read_csv(folder / "history.csv")
    timings = ["images_per_second", "input_wait", "seconds", "validation_seconds"]
    weights = models.build("tiny", 32)
    models.read_weights(weights, folder / "best.keras")
    return history.drop(columns=timings), weights.get_weights()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_after", [2, 6, 9])
def test_a_stopped_run_goes_on_bit_by_bit(
    changed, tmp_path, monkeypatch, capsys, precision, stop_after
):
    whole = changed(run_dir=str(tmp_path / "whole"), precision=precision, dropout=0.3)
    assert run(whole) == ExitCode.OK

    stopped = changed(run_dir=str(tmp_path / "part"), precision=precision, dropout=0.3)
    calls = []
    step = train.TrainStep.__call__

    def interrupt(self, batch):
        step(self, batch)
        calls.append(1)
        if len(calls) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(train.TrainStep, "__call__", interrupt)
        assert run(stopped) == ExitCode.STOPPED
    assert "Go on with: python -m trainer.main" in capsys.readouterr().err
    assert run(stopped) == ExitCode.OK
    assert "going on in epoch" in capsys.readouterr().out

    history, weights = final_state(tmp_path / "whole")
    history_2, weights_2 = final_state(tmp_path / "part")
    pd.testing.assert_frame_equal(history_2, history, check_exact=True)
    for got, want in zip(weights_2, weights, strict=True):
        np.testing.assert_array_equal(got, want)


def test_checkpoints_in_mid_epoch_and_a_damaged_one(changed, tmp_path, capsys):
    config = changed(checkpoint_every=2)
    part = job(config)
    folder = tmp_path / "run"
    folder.mkdir()
    progress = checkpoint.Progress(step=2, best_loss=0.5)
    checkpoint.save(folder, 2, part.variables, progress)
    part.optimizer.step.assign(4)
    checkpoint.save(folder, 4, part.variables, checkpoint.Progress(step=4))
    newest = folder / "checkpoints" / "step-000000004.npz"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))

    restored, notes = checkpoint.restore(folder, part.variables)
    assert restored == progress
    assert part.optimizer.step == 0
    assert len(notes) == 1
    assert "step-000000004.npz is damaged and passed over" in notes[0]

    (folder / "checkpoints" / "step-000000002.npz").write_bytes(b"")
    with pytest.raises(UserError, match="None of the 2 checkpoints") as raised:
        checkpoint.restore(folder, part.variables)
    assert raised.value.exit_code == ExitCode.INTEGRITY


def test_two_replicas_train_evaluate_and_save(changed, tmp_path):
    config = changed(replicas=2, batch_size=7, **LEARNS)
    assert run(config) == ExitCode.OK
    folder = tmp_path / "run"
    record = json.loads((folder / "run.json").read_text())
    assert record["replicas"] == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == COUNTS["test"]
    assert metrics["accuracy"]["value"] > 0.9
    assert models.load(folder).count_params() == record["parameters"]


def train_batches(built: train.Job):
    augmentation = input_pipeline.Augmentation(20, (0.1, 0.1), True)
    size = built.config.batch_size
    return input_pipeline.train_batches(built.dataset, size, 0, 0, augmentation)


def test_the_other_attributes_train_the_backbone_and_are_not_saved(changed, tmp_path):
    options = {"aux_attributes": True, "aux_weight": 3.0, "label_smoothing": 0.0}
    built = job(changed(**options))
    others = [name for name in celeba.ATTRIBUTES if name != "Male"]
    assert [celeba.ATTRIBUTES[i] for i in built.objective.others] == others
    attributes = np.zeros((1, 40), "float32")
    attributes[0, celeba.ATTRIBUTES.index(others[-1])] = 1
    logits = np.zeros((1, 39), "float32")
    logits[0, -1] = 2
    wrong = np.log1p(np.exp(2)) - 2  # of a label 1 at logit 2; the others are at 0
    want = 3 * (38 * np.log(2) + wrong) / 39
    got = built.objective.other_losses(attributes, logits).numpy()
    np.testing.assert_allclose(got, [want], rtol=1e-6)

    alone = job(changed(label_smoothing=0.0))
    weights = [variable.numpy() for variable in learner.shared_weights(built.learner)]
    alone.learner.set_weights(weights)
    batch = next(iter(train_batches(built)))
    kernels = []
    for one in (built, alone):
        one.train_step(batch)
        kernels.append(one.learner.get_layer("conv").kernel.numpy())
    assert np.abs(kernels[0] - kernels[1]).max() > 0

    assert run(changed(epochs=1, **options)) == ExitCode.OK
    saved = models.load(tmp_path / "run")
    assert [layer.name for layer in saved.layers][-1] == "logit"


def test_mixup_mixes_images_and_losses(changed):
    built = job(changed(mixup=0.4, dropout=0.0, label_smoothing=0.0))
    batch = next(iter(train_batches(built)))
    share = steps.mixup_shares(8, 0.4, [built.config.seed, 0])[:, None].numpy()
    assert ((share >= 0.5) & (share <= 1)).all() and len(np.unique(share)) == 8
    other = steps.mixup_shares(8, 0.4, [built.config.seed, 1])[:, None].numpy()
    assert (share != other).all()

    images = warp.warp(batch["images"], batch["parameters"], 32).numpy()
    part = share[:, :, None, None]
    images = part * images + (1 - part) * np.roll(images, 1, axis=0)
    labels = batch["labels"].numpy()[:, None]
    targets = share * labels + (1 - share) * np.roll(labels, 1, axis=0)
    weights = built.learner.get_weights()
    logits = built.learner(images, training=True)[learner.LOGIT]
    built.learner.set_weights(weights)  # the moving statistics, too
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(targets), logits)
    built.train_step(batch)
    got = built.train_step.sums.numpy()[0]
    np.testing.assert_allclose(got, losses.numpy().sum(), rtol=1e-5)


def test_statistics_are_averaged_over_the_replicas(changed):
    built = job(changed(replicas=2, epochs=1))
    strategy = built.runtime.strategy
    mean = built.learner.get_layer("norm").moving_mean
    values = [tf.fill([8], 1.0), tf.fill([8], 4.0)]
    for part, value in zip(
        strategy.experimental_local_results(mean.value), values, strict=True
    ):
        part.assign(value)
    built.publish()
    for part in strategy.experimental_local_results(mean.value):
        np.testing.assert_array_equal(part, np.full(8, 2.5))
    published = built.model.get_layer("norm").moving_mean.numpy()
    np.testing.assert_array_equal(published, np.full(8, 2.5))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_precisions_train(changed, tmp_path, precision):
    assert run(changed(precision=precision, epochs=1)) == ExitCode.OK
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["precision"] == precision
    logit = models.load(tmp_path / "run").get_layer("logit")
    assert logit.compute_dtype == "float32"


def test_evaluation_does_not_depend_on_the_batch_size(config):
    built = job(config)
    logits = [
        train.predict_split(
            built.evaluation_step, built.dataset, "test", size, built.runtime.strategy
        )["logit"]
        for size in (1, 8, 64)
    ]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)
    np.testing.assert_allclose(logits[2], logits[0], atol=1e-5)


def test_transfer_changes_only_the_last_layer(changed, tmp_path):
    assert run(changed(epochs=1, run_dir=str(tmp_path / "first"))) == ExitCode.OK
    first = models.load(tmp_path / "first").get_weights()
    start = str(tmp_path / "first" / "best.keras")
    assert run(changed(regime="transfer", weights=start)) == ExitCode.OK
    second = models.load(tmp_path / "run").get_weights()
    for got, want in zip(second[:-2], first[:-2], strict=True):
        np.testing.assert_array_equal(got, want)
    assert not np.array_equal(second[-2], first[-2])


def test_short_runs_follow_their_statistics_faster():
    momentums = [train.norm_momentum(steps) for steps in (1, 40, 100, 400, 2000)]
    assert momentums == [0.8, 0.8, 0.9, 0.97, 0.99]


def test_class_weights_of_the_manifest_enter_the_loss(config):
    objective = train.Objective(8, 0.0, (0.5, 2.0))
    losses = objective.losses(tf.constant([0.0, 1.0]), tf.constant([0.0, 0.0]))
    np.testing.assert_allclose(losses, np.log(2) * np.array([0.5, 2.0]), rtol=1e-6)


def test_the_class_weights_that_train_are_those_of_the_manifest(
    changed, dataset_dir, tmp_path
):
    folder = shutil.copytree(dataset_dir, tmp_path / "weighted")
    text = (folder / FILE_NAME).read_text()
    weighted = dataclasses.replace(Manifest.from_json(text), class_weights=(3.0, 3.0))
    (folder / FILE_NAME).write_text(weighted.to_json())
    losses = []
    for data_dir in (dataset_dir, folder):
        built = job(changed(data_dir=str(data_dir)))
        batches = input_pipeline.train_batches(
            built.dataset, 8, 0, 0, input_pipeline.Augmentation(0, (0, 0), False)
        )
        built.train_step(next(iter(batches)))
        losses.append(float(built.train_step.sums[0]))
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-4)


def test_a_run_goes_on_as_it_was_computed(changed, tmp_path, capsys):
    assert run(changed(epochs=1, precision="auto")) == ExitCode.OK
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    # As if it had been started on a GPU and were to go on here.
    path.write_text(json.dumps(record | {"status": "running", "precision": "float16"}))
    capsys.readouterr()
    assert run(changed(epochs=1, precision="auto")) == ExitCode.USAGE
    assert "--precision=float16" in capsys.readouterr().err


def test_running_out_of_memory_names_a_batch_size(config, monkeypatch, capsys):
    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(train.TrainStep, "__call__", fail)
    assert run(config) == ExitCode.OUT_OF_MEMORY
    assert "--batch_size=4" in capsys.readouterr().err


def test_a_shard_damaged_while_training_is_named(
    changed, dataset_dir, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(dataset_dir, tmp_path / "data")
    opened = main.open_dataset

    def damage(*arguments):
        dataset = opened(*arguments)
        path = folder / "celeba-train.tfrecord-00001-of-00002"
        path.write_bytes(path.read_bytes()[:-10] + bytes(10))
        return dataset

    monkeypatch.setattr(main, "open_dataset", damage)
    assert run(changed(data_dir=str(folder))) == ExitCode.INTEGRITY
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "train.tfrecord-00001-of-00002 was damaged" in lines[0]
    assert "record 23" in lines[0]


def test_the_command_that_is_printed_goes_on(changed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    step = train.TrainStep.__call__

    def interrupt(self, batch):
        step(self, batch)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(train.TrainStep, "__call__", interrupt)
        assert run(changed(run_dir="")) == ExitCode.INTERRUPTED
    printed = capsys.readouterr().err.partition("python -m trainer.main")[2].split()
    assert command.guard(main.main, ["main", *printed]) == ExitCode.OK
    assert "going on in epoch 1 after step 1" in capsys.readouterr().out
    folders = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert len(folders) == 1


def test_divergence_is_named_and_keeps_the_last_checkpoint(changed, tmp_path, capsys):
    config = changed(learning_rate=1e30, clip_norm=0.0, warmup_epochs=0.0)
    assert run(config) == ExitCode.DIVERGED
    error = capsys.readouterr().err
    assert "not finite" in error
    assert "--learning_rate=" in error


def test_a_folder_holds_one_run(changed, tmp_path, capsys):
    assert run(changed(epochs=1)) == ExitCode.OK
    assert run(changed(epochs=3)) == ExitCode.USAGE
    assert "--epochs was 1, is 3" in capsys.readouterr().err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["status"] = "running"  # as if it had been killed
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))

    write_dataset(tmp_path / "other", COUNTS | {"train": 40})
    config = changed(epochs=1, data_dir=str(tmp_path / "other"))
    assert run(config) == ExitCode.USAGE
    assert "other data" in capsys.readouterr().err

    (tmp_path / "file").write_text("mine")
    assert run(changed(run_dir=str(tmp_path / "file"))) == ExitCode.OUTPUT
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert run(changed(run_dir=str(tmp_path / "full"))) == ExitCode.OUTPUT
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=resnet5"], "Did you mean resnet50"),
        (["--modle=resnet50"], "Did you mean --model"),
        (["--batch_size=0"], "--batch_size=0 is below 1"),
        (["--cache_mb=-2"], "--cache_mb=-2 is below -1"),
        (["--batch_size=999"], "more than the 48 training examples"),
        (["--precision=half"], "--precision=half is none of"),
        (["--epochs=many"], "--epochs"),
        (["--regime=transfer"], "needs weights to start from"),
        (["--weights=x.h5"], "starts from random weights"),
        (["--learning_rate=0"], "not above 0"),
        (["--learning_rate=nan"], "is no number"),
        (["--seed=4294967296"], "--seed=4294967296 is not between"),
        (["--data_dir=s3://bucket/x"], "s3"),
        (["--replicas=3"], "there are 2 CPUs|had started"),
        (["resnet50"], "not a flag"),
    ],
)
def test_wrong_options_get_one_line(dataset_dir, tmp_path, capsys, words, message):
    base = [f"--data_dir={dataset_dir}", f"--run_dir={tmp_path / 'run'}"]
    base += ["--input_size=32"]
    assert command.guard(main.main, ["main", *base, *words]) == ExitCode.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.search(message, "\n".join(lines)), lines
    assert not list(tmp_path.glob("run/*"))


def test_signals_are_left_as_they_were(config):
    before = signal.getsignal(signal.SIGTERM)
    assert run(config) == ExitCode.OK
    assert signal.getsignal(signal.SIGTERM) is before
    assert threading.active_count() < 100
