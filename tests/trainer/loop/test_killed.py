"""SIGKILL at any moment, then the same command again: the same run, bit by bit."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support import command
from tests.trainer.running import check_same_outcome

PROGRAM = Path(__file__).parents[1] / "tiny_run.py"
#: One start of the program each. Six steps an epoch, a checkpoint every four.
MOMENTS = (
    "rename:run.json",
    "write:1",
    "renamed:step-000000004",
    "renamed:best-00001",
    "renamed:step-000000006",
    "step:3",
    "rename:history.csv",
    "rename:predictions.csv",
)


def start(config, moment):
    words = [sys.executable, PROGRAM, moment, *command.flags_text(config).split()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(config, moment="never"):
    """Runs to the end or the kill; returns the exit code and what was printed."""
    process = start(config, moment)
    text = process.communicate()[0].decode()
    return process.returncode, text


def kill_by_the_clock(config, seconds):
    process = start(config, "never")
    while b"run folder" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(seconds)
    process.kill()
    process.communicate()


def scalars(folder, tag):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in events.Tensors(tag)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_run_goes_on_bit_by_bit(changed, tmp_path, precision):
    options = {"precision": precision, "dropout": 0.3, "checkpoint_every": 4}
    whole = changed(run_dir=str(tmp_path / "whole"), **options)
    code, text = finish(whole)
    assert code == 0, text

    killed = changed(run_dir=str(tmp_path / "killed"), **options)
    kill_by_the_clock(killed, random.Random(precision).uniform(0, 0.5))
    for moment in MOMENTS:
        code, text = finish(killed, moment)
        assert code == -9, (moment, text)
    code, text = finish(killed)
    assert code == 0, text

    folders = tmp_path / "whole", tmp_path / "killed"
    check_same_outcome(folders[1], folders[0])
    names = [{path.name for path in folder.iterdir()} for folder in folders]
    assert names[0] == names[1]
    assert scalars(folders[1], "val_loss") == scalars(folders[0], "val_loss")
    assert [step for step, _ in scalars(folders[1], "loss")] == [6, 12]
