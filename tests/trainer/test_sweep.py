"""Which runs a sweep makes, what it refuses, how it ends; real runs are marked slow."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from absl import flags

from schemas.manifest import Manifest
from support import command
from support.errors import ExitCode, UserError
from trainer import compare, sweep
from trainer.config import MODELS, TrainConfig
from trainer.runs import record
from trainer.runs.folder import read_options
from trainer.sweep import SweepConfig

ROOT = Path(__file__).parent.parent.parent


def test_plan_takes_every_model_before_the_next_seed():
    base = TrainConfig(epochs=3)
    runs = sweep.plan(SweepConfig(("vgg16", "resnet50"), (4, 1), (), "out"), base)
    assert [run.run_dir for run in runs] == [
        "out/vgg16-seed4",
        "out/resnet50-seed4",
        "out/vgg16-seed1",
        "out/resnet50-seed1",
    ]
    assert {run.epochs for run in runs} == {3}
    assert [(run.model, run.seed) for run in runs[:2]] == [
        ("vgg16", 4),
        ("resnet50", 4),
    ]
    assert len(sweep.plan(SweepConfig(), base)) == 3 * len(MODELS)


def test_regimes_start_from_weights_or_from_none():
    base = TrainConfig(regime="finetune", weights="imagenet")
    regimes = ("scratch", "finetune")
    runs = sweep.plan(SweepConfig(("vgg16",), (0,), regimes, "out"), base)
    assert [(run.regime, run.weights, run.run_dir) for run in runs] == [
        ("scratch", "none", "out/vgg16-scratch-seed0"),
        ("finetune", "imagenet", "out/vgg16-finetune-seed0"),
    ]


def test_a_run_is_the_real_program_with_every_option():
    config = TrainConfig(model="vgg19", run_dir="out/a b", ema=0.5)
    words = sweep.train_command(config)
    assert words[:3] == [sys.executable, "-m", "trainer.main"]
    values = flags.FlagValues()
    command.define_flags(TrainConfig, values)
    assert not command.parse(words[2:], values)
    assert command.from_flags(TrainConfig, values) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=vgg16"], "a sweep has --models"),
        (["-seed", "1"], "a sweep has --seeds"),
        (["--run_dir=x"], "a sweep has --sweep_dir"),
        (["--models=vgg61"], "no 'vgg61'. Did you mean vgg"),
        (["--models=vgg16,vgg16"], "vgg16 twice"),
        (["--seeds="], "--seeds is empty"),
        (["--seeds=1,x"], "not a list of ints"),
        (["--regimes=transfer"], "needs weights"),
        (["--sweep_dir=gs://b/x"], "sweep_dir"),
        (["--epochs=0"], "--epochs=0 is below 1"),
        (["--aux_heads", "--input_size=128"], "vgg16 has no auxiliary heads"),
        (["runs"], "not a flag"),
    ],
)
def test_usage_errors_start_nothing(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        sweep.main(["sweep", *words])
    assert caught.value.exit_code == ExitCode.USAGE
    assert not list(tmp_path.iterdir())


def test_without_data_no_run_is_started(tmp_path):
    words = [f"--sweep_dir={tmp_path / 's'}", f"--data_dir={tmp_path / 'none'}"]
    with pytest.raises(UserError, match="no finished dataset") as caught:
        sweep.main(["sweep", *words])
    assert caught.value.exit_code == ExitCode.INPUT_DATA


@pytest.fixture
def no_training(monkeypatch):
    """What would be trained is listed instead, and nothing is compared."""
    trained = []

    def run_all(runs, _go_on):
        unfinished = [run for run in runs if not record.is_finished(run.run_dir)]
        trained.extend(run.run_dir for run in unfinished)
        return {}

    monkeypatch.setattr(sweep, "run_all", run_all)
    monkeypatch.setattr(compare, "compare_runs", lambda *_: None)
    return trained


def _finish(folder, **record):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished"} | record))


def test_other_data_than_that_of_finished_runs_is_refused_at_once(
    dataset_dir, tmp_path, no_training
):
    folder = tmp_path / "s"
    words = [f"--sweep_dir={folder}", "--models=vgg16,vgg19", "--seeds=0,1"]
    now = [*words, f"--data_dir={dataset_dir}"]
    digest = json.loads((dataset_dir / "manifest.json").read_text())["digest"]
    _finish(folder / "vgg16-seed0", manifest_digest=digest)
    sweep.main(["sweep", *now])
    left = [str(folder / name) for name in ("vgg19-seed0", "vgg16-seed1")]
    assert no_training == [*left, str(folder / "vgg19-seed1")]
    written = (folder / sweep.FLAGS).read_text()
    no_training.clear()

    other = tmp_path / "other"
    other.mkdir()
    made = Manifest.from_json((dataset_dir / "manifest.json").read_text())
    made = dataclasses.replace(made, config={"split": "identity", "seed": 1})
    (other / "manifest.json").write_text(made.to_json())
    elsewhere = [*words, f"--data_dir={other}"]
    with pytest.raises(UserError, match="vgg16-seed0 was trained on other") as caught:
        sweep.main(["sweep", *elsewhere])
    assert caught.value.exit_code == ExitCode.USAGE
    assert f"{digest[:12]}, {made.digest[:12]}" in caught.value.cause
    assert "another --sweep_dir, or give --data_dir" in caught.value.remedy
    # The flagfile still goes on with the right dataset.
    assert (folder / sweep.FLAGS).read_text() == written

    # One is enough, and a run that is not of the plan does not count.
    _finish(folder / "vgg19-seed1", manifest_digest=made.digest)
    with pytest.raises(UserError, match="vgg19-seed1 was trained on other"):
        sweep.main(["sweep", *now])
    sweep.main(["sweep", *now, "--seeds=0"])
    assert no_training == left[:1]

    _finish(folder / "vgg16-seed1")
    with pytest.raises(UserError, match="vgg16-seed1.*no 'manifest_digest'") as caught:
        sweep.main(["sweep", *now])
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_a_damaged_manifest_is_found_before_the_first_run(tmp_path, no_training):
    words = [f"--sweep_dir={tmp_path / 's'}", f"--data_dir={tmp_path}"]
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is not complete JSON") as caught:
        sweep.main(["sweep", *words])
    assert caught.value.exit_code == ExitCode.INTEGRITY
    assert not no_training


def test_a_flagfiles_model_gives_way_and_other_options_are_refused(tmp_path, capsys):
    recipe = tmp_path / "recipe.flags"
    recipe.write_text("--model=vgg16\n--epochs=5\n--seed=9\n")
    words = [f"--sweep_dir={tmp_path / 's'}", f"--data_dir={tmp_path / 'none'}"]
    words.append(f"--flagfile={recipe}")
    with pytest.raises(UserError, match="no finished dataset"):
        sweep.main(["sweep", *words])
    assert "--model of the flagfile gives way to --models" in capsys.readouterr().out
    written = read_options((tmp_path / "s" / sweep.FLAGS).read_text())
    assert written["epochs"] == "5" and written["models"] == "all"
    assert not {"model", "seed", "run_dir"} & written.keys()
    # More seeds are welcome, another recipe is not; the flagfile written goes on.
    with pytest.raises(UserError, match="no finished dataset"):
        sweep.main(["sweep", *words, "--seeds=0,1,2,3"])
    with pytest.raises(UserError, match="no finished dataset"):
        sweep.main(["sweep", f"--flagfile={tmp_path / 's' / sweep.FLAGS}"])
    with pytest.raises(UserError, match="--epochs was 5, is 6") as caught:
        sweep.main(["sweep", *words, "--epochs=6"])
    assert caught.value.exit_code == ExitCode.USAGE


def test_runner_returns_the_exit_code_and_shows_errors(capfd):
    program = "import sys; print('why', file=sys.stderr); sys.exit(7)"
    with sweep.Runner() as runner:
        assert runner.run([sys.executable, "-c", program]) == 7
    assert capfd.readouterr().err == "why\n"
    assert runner.signal is None


def test_a_runner_passes_a_signal_on_once():
    # Sleeps are cut short by the signal; a process that does not get it fails the test.
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
        "sys.exit(1)\n"
    )
    with sweep.Runner() as runner:
        code = runner.run([sys.executable, "-c", program])
    assert (code, runner.signal) == (75, signal.SIGTERM)


def test_exit_codes_of_runs():
    assert sweep._exit_code(6) == ExitCode.DIVERGED
    assert sweep._exit_code(-signal.SIGKILL) == ExitCode.OUT_OF_MEMORY
    assert sweep._exit_code(-signal.SIGSEGV) == sweep._exit_code(99) == ExitCode.BUG


@contextlib.contextmanager
def started(*words):
    """The program; if the test fails, it and the run that it started end too."""
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.sweep", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


@pytest.mark.slow
def test_a_sweep_stops_goes_on_survives_a_failure_and_compares(dataset_dir, tmp_path):
    folder = tmp_path / "sweep"
    words = [f"--sweep_dir={folder}", f"--data_dir={dataset_dir}", "--epochs=1"]
    words += ["--models=googlenet,resnet50", "--seeds=0,1", "--input_size=32"]
    words += ["--batch_size=8", "--precision=float32", "--report_images=false"]
    # A folder that is no run's makes one of the four fail.
    (folder / "resnet50-seed0").mkdir(parents=True)
    (folder / "resnet50-seed0" / "mine.txt").write_text("mine")

    with started(*words) as process:
        for line in process.stdout:
            if line.startswith("examples:"):  # the first run has begun
                process.send_signal(signal.SIGTERM)
                break
        rest = process.communicate()
    go_on = f"python -m trainer.sweep --flagfile={folder / sweep.FLAGS}"
    assert process.returncode == ExitCode.STOPPED, rest
    assert f"Resume with: {go_on}" in rest[1]
    assert "run 2 of 4" not in rest[0]

    with started(*go_on.split()[3:]) as process:
        out, err = process.communicate()
    assert process.returncode == ExitCode.OUTPUT, err
    assert "4 runs in" in out and "0 of them finished" in out
    assert f"{folder / 'resnet50-seed0'} failed with exit code 4." in out
    assert "is not empty and holds no run" in err
    assert "1 of 4 runs failed" in err and go_on in err
    table = pd.read_csv(folder / "leaderboard.csv", dtype={"seeds": str})
    assert dict(zip(table["model"], table["seeds"], strict=True)) == {
        "googlenet": "0 1",
        "resnet50": "1",
    }
    assert (table["inference_ms_per_image"] > 0).all()
    record = json.loads((folder / "googlenet-seed0" / "run.json").read_text())
    assert record["inference_images_per_second"] > 0

    (folder / "resnet50-seed0" / "mine.txt").unlink()
    with started(*go_on.split()[3:]) as process:
        out, err = process.communicate()
    assert process.returncode == ExitCode.OK, err
    assert "3 of them finished" in out
    assert out.count("\nrun ") == 1 and "run 2 of 4" in out
    assert (folder / "comparison.html").is_file()
