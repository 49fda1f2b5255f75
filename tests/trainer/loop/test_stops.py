"""Runs that are asked to stop, at every stage; and what must not stop a run."""

import json
import shutil
import signal

import pytest

from support import command
from support.errors import ExitCode
from support.files import FolderLock
from tests.trainer.running import check_same_outcome, signal_in, without_charts
from trainer import main
from trainer.loop import checkpoint, job, train
from trainer.loop.steps import EvaluationStep

CODES = {signal.SIGTERM: ExitCode.STOPPED, signal.SIGINT: ExitCode.INTERRUPTED}


@pytest.fixture(autouse=True)
def plain_state():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(config):
    """As the command line does it, signals included; returns the exit code."""
    with pytest.raises(SystemExit) as ended, without_charts():
        command.run(main.main, ["main", *command.flags_text(config).split()])
    return ended.value.code


#: Two batches of validation an epoch, three of the test split.
@pytest.mark.parametrize(
    ("owner", "name", "call", "number", "resumes"),
    [
        (checkpoint, "restore", 1, signal.SIGINT, ""),
        (job, "train_dataset", 1, signal.SIGTERM, "epoch 1 after step 0"),
        (EvaluationStep, "__call__", 1, signal.SIGTERM, "epoch 1 after step 6"),
        (EvaluationStep, "__call__", 6, signal.SIGTERM, "all epochs are done"),
        (EvaluationStep, "__call__", 6, signal.SIGINT, "all epochs are done"),
    ],
    ids=["start", "before the first step", "validation", "test", "test, Ctrl-C"],
)
def test_stopped_run_resumes_with_the_printed_command(
    config,
    finished_run,
    tmp_path,
    monkeypatch,
    capfd,
    owner,
    name,
    call,
    number,
    resumes,
):
    with monkeypatch.context() as patch:
        signal_in(patch, owner, name, number, call)
        assert run(config) == CODES[number]
    error = capfd.readouterr().err
    assert f"Resume with: python -m trainer.main --flagfile={tmp_path}" in error
    assert run(config) == ExitCode.OK
    assert resumes in capfd.readouterr().out
    if "step 6" in resumes:
        check_same_outcome(tmp_path / "run", finished_run)


def test_a_stop_before_there_is_a_run_promises_nothing(config, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        signal_in(patch, main, "Job", signal.SIGTERM)
        assert run(config) == ExitCode.STOPPED
    assert "Run the same command again" in capfd.readouterr().err


def test_resumed_run_does_not_need_its_initial_weights(
    changed, finished_run, tmp_path, monkeypatch
):
    first = shutil.copytree(finished_run, tmp_path / "first")
    config = changed(regime="finetune", weights=str(first / "best.keras"))
    with monkeypatch.context() as patch:
        signal_in(patch, EvaluationStep, "__call__", signal.SIGTERM)
        assert run(config) == ExitCode.STOPPED
    shutil.rmtree(first)
    assert run(config) == ExitCode.OK


def test_two_runs_do_not_share_a_folder(config, tmp_path, capfd):
    with FolderLock(tmp_path / "run"):
        assert run(config) == ExitCode.OUTPUT
    assert "is in use by process" in capfd.readouterr().err


def test_a_best_model_that_was_changed_is_not_evaluated(
    config, tmp_path, monkeypatch, capfd
):
    end = train.Loop._end_epoch

    def spoil(loop, row):
        end(loop, row)
        (loop.run_dir / "best.keras").unlink()
        (loop.run_dir / "best.keras").write_text("another")

    monkeypatch.setattr(train.Loop, "_end_epoch", spoil)
    assert run(config) == ExitCode.INTEGRITY
    assert "best.keras is not the file that the run wrote" in capfd.readouterr().err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "running"
