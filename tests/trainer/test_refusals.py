"""What goes wrong in a run, and what it says then."""

import json
import math
import re
import shutil

import pytest
import tensorflow as tf

from support import command
from support.errors import ExitCode
from trainer import main
from trainer.loop import steps, train

from .conftest import COUNTS, write_dataset
from .running import run


def test_running_out_of_memory_names_a_batch_size(config, monkeypatch, capsys):
    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(steps.TrainStep, "__call__", fail)
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
    assert "train.tfrecord-00001-of-00002 is damaged" in lines[0]


def test_damage_in_a_later_epoch_keeps_the_checkpoint(
    changed, dataset_dir, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(dataset_dir, tmp_path / "data")
    path = folder / "celeba-train.tfrecord-00000-of-00002"
    whole, end = path.read_bytes(), train.Loop._end_epoch

    def damage(loop, row):
        end(loop, row)
        path.write_bytes(whole[: len(whole) // 2])

    config = changed(
        data_dir=str(folder), epochs=4, cache_mb=0, shuffle_buffer=2, patience=0
    )
    with monkeypatch.context() as patch:
        patch.setattr(train.Loop, "_end_epoch", damage)
        assert run(config) == ExitCode.INTEGRITY
    assert f"{path} has " in capsys.readouterr().err
    steps_done = [
        file.stem for file in (tmp_path / "run" / "checkpoints").glob("*.npz")
    ]
    assert steps_done
    assert run(config) == ExitCode.INTEGRITY
    path.write_bytes(whole)
    assert run(config) == ExitCode.OK
    assert "resuming in epoch" in capsys.readouterr().out


def test_divergence_is_named(changed, capsys):
    config = changed(learning_rate=1e30, clip_norm=0.0, warmup_epochs=0.0)
    assert run(config) == ExitCode.DIVERGED
    error = capsys.readouterr().err
    assert "not finite" in error
    assert "--learning_rate=" in error


def test_divergence_keeps_the_last_good_checkpoint(
    changed, tmp_path, monkeypatch, capsys
):
    config = changed(checkpoint_every=2, epochs=1)
    real = steps.TrainStep.__dict__["__call__"]

    def poisoned(self, batch):
        if self._optimizer.step == 4:
            self._trainable[0].assign(tf.fill(self._trainable[0].shape, math.nan))
        return real.__get__(self, type(self))(batch)

    with monkeypatch.context() as patch:
        patch.setattr(steps.TrainStep, "__call__", poisoned)
        assert run(config) == ExitCode.DIVERGED
    error = capsys.readouterr().err
    assert "The gradients are not finite in epoch 1 (step 5, learning rate" in error
    assert "float32); the checkpoint before it is in" in error
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-000000002.npz", "step-000000004.npz"]
    assert run(config) == ExitCode.OK
    assert "resuming in epoch 1 after step 4" in capsys.readouterr().out


def test_a_folder_holds_one_run(changed, tmp_path, capsys):
    assert run(changed(epochs=1)) == ExitCode.OK
    assert run(changed(epochs=3)) == ExitCode.USAGE
    assert "--epochs was 1, is 3" in capsys.readouterr().err
    for name, before, value in (
        ("augment", "warp", "none"),
        ("rotation", "20.0", 5.0),
        ("shuffle_buffer", "16384", 99),
        ("cache_mb", "-1", 0),
    ):
        assert run(changed(epochs=1, **{name: value})) == ExitCode.USAGE
        assert f"--{name} was {before}, is {value}" in capsys.readouterr().err
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
    ("word", "message"),
    [
        ("--model=resnet5", "Did you mean resnet50"),
        ("--modle=resnet50", "Did you mean --model"),
        ("--batch_size=0", "--batch_size=0 is below 1"),
        ("--cache_mb=-2", "--cache_mb=-2 is below -1"),
        ("--augment=wrap", "--augment=wrap is none of warp, .*\n.*Did you mean warp"),
        ("--shuffle_buffer=0", "--shuffle_buffer=0 is below 1"),
        ("--batch_size=999", "more than the 48 training examples"),
        ("--precision=half", "--precision=half is none of"),
        ("--epochs=many", "--epochs"),
        ("--regime=transfer", "needs weights to start from"),
        ("--weights=x.h5", "starts from random weights"),
        ("--learning_rate=0", "not above 0"),
        ("--learning_rate=nan", "is not a number"),
        ("--seed=4294967296", "--seed=4294967296 is not between"),
        ("--data_dir=s3://bucket/x", "s3"),
        ("--replicas=3", "there are 2 CPUs|had started"),
        ("resnet50", "not a flag"),
        ("--device=tpu", "--device=tpu is none of auto, cpu, gpu"),
        ("--device=gpu", "--device=gpu, but TensorFlow finds no GPU"),
        ("--profile_steps=5,2", "--profile_steps=5,2 is no first and last step"),
        ("--profile_steps=5", "--profile_steps=5 is no first and last step"),
        ("--profile_steps=1,x", "--profile_steps=1,x is not a list of ints"),
        ("--profile_steps=5,999", "the run has 12 steps"),
    ],
)
def test_wrong_options_get_one_line(config, tmp_path, capsys, word, message):
    if word == "--device=gpu" and tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    words = command.flags_text(config).split()
    assert command.guard(main.main, ["main", *words, word]) == ExitCode.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.search(message, "\n".join(lines)), lines
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_as_it_was_computed(changed, tmp_path, capsys):
    assert run(changed(epochs=1, precision="auto")) == ExitCode.OK
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    # As if it had been started on a GPU and were to go on here.
    path.write_text(json.dumps(record | {"status": "running", "precision": "float16"}))
    capsys.readouterr()
    assert run(changed(epochs=1, precision="auto")) == ExitCode.USAGE
    assert "--precision=float16" in capsys.readouterr().err
    assert run(changed(epochs=1, precision="float16")) == ExitCode.OK
    assert json.loads(path.read_text())["status"] == "finished"
