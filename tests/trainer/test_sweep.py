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
from support.errors import ExitCode
from tests.trainer.evaluation.run_folder import refused
from trainer import compare, sweep
from trainer.config import MODELS, TrainConfig
from trainer.runs import record
from trainer.runs.folder import read_options
from trainer.sweep import SweepConfig

ROOT = Path(__file__).parent.parent.parent


def test_plan_order_is_models_within_seeds():
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


def test_train_command_has_every_option():
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
    with refused(message, ExitCode.USAGE):
        sweep.main(["sweep", *words])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_training(monkeypatch):
    """What would be trained is listed instead, and nothing is compared."""
    trained = []

    def run_all(runs, _resume):
        unfinished = [run for run in runs if not record.is_finished(run.run_dir)]
        trained.extend(run.run_dir for run in unfinished)
        return {}

    monkeypatch.setattr(sweep, "run_all", run_all)
    monkeypatch.setattr(compare, "compare_runs", lambda *_: None)
    return trained


def _finish(folder, **record):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished"} | record))


def run_sweep(folder, data_dir, *words):
    sweep.main(["sweep", f"--sweep_dir={folder}", f"--data_dir={data_dir}", *words])


def test_sweep_refuses_a_changed_dataset(dataset_dir, tmp_path, no_training):
    folder, other = tmp_path / "s", tmp_path / "other"
    words = ["--models=vgg16,vgg19", "--seeds=0,1"]
    manifest = Manifest.from_json((dataset_dir / "manifest.json").read_text())
    _finish(folder / "vgg16-seed0", manifest_digest=manifest.digest)
    run_sweep(folder, dataset_dir, *words)
    left = [str(folder / name) for name in ("vgg19-seed0", "vgg16-seed1")]
    assert no_training == [*left, str(folder / "vgg19-seed1")]
    written = (folder / sweep.FLAGS).read_text()
    no_training.clear()

    other.mkdir()
    made = dataclasses.replace(manifest, config={"split": "identity", "seed": 1})
    (other / "manifest.json").write_text(made.to_json())
    with refused("vgg16-seed0 was trained on other", ExitCode.USAGE) as caught:
        run_sweep(folder, other, *words)
    assert f"{manifest.digest[:12]}, {made.digest[:12]}" in caught.value.cause
    assert "another --sweep_dir, or the dataset" in caught.value.remedy
    # The flagfile still resumes with the right dataset.
    assert (folder / sweep.FLAGS).read_text() == written

    # One is enough, and a run that is not of the plan does not count.
    _finish(folder / "vgg19-seed1", manifest_digest=made.digest)
    with refused("vgg19-seed1 was trained on other", ExitCode.USAGE):
        run_sweep(folder, dataset_dir, *words)
    run_sweep(folder, dataset_dir, *words, "--seeds=0")
    assert no_training == left[:1]

    _finish(folder / "vgg16-seed1")
    with refused("vgg16-seed1.*no 'manifest_digest'"):
        run_sweep(folder, dataset_dir, *words)


@pytest.mark.parametrize(
    ("manifest", "message", "code"),
    [
        (None, "no finished dataset", ExitCode.INPUT_DATA),
        ("{", "manifest.json is not complete JSON", ExitCode.INTEGRITY),
    ],
)
def test_missing_or_damaged_dataset_starts_no_run(
    tmp_path, no_training, manifest, message, code
):
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    with refused(message, code):
        run_sweep(tmp_path / "s", tmp_path)
    assert not no_training


def test_model_of_a_flagfile_is_ignored_and_changed_options_refused(tmp_path, capsys):
    recipe, folder = tmp_path / "recipe.flags", tmp_path / "s"
    recipe.write_text("--model=vgg16\n--epochs=5\n--seed=9\n")
    words = [folder, tmp_path / "none", f"--flagfile={recipe}"]
    with refused("no finished dataset"):
        run_sweep(*words)
    assert "--model of the flagfile gives way to --models" in capsys.readouterr().out
    written = read_options((folder / sweep.FLAGS).read_text())
    assert written["epochs"] == "5" and written["models"] == "all"
    assert not {"model", "seed", "run_dir"} & written.keys()
    # More seeds are welcome, another recipe is not; the flagfile written resumes.
    with refused("no finished dataset"):
        run_sweep(*words, "--seeds=0,1,2,3")
    with refused("no finished dataset"):
        sweep.main(["sweep", f"--flagfile={folder / sweep.FLAGS}"])
    with refused("--epochs was 5, is 6", ExitCode.USAGE):
        run_sweep(*words, "--epochs=6")


def test_run_process_returns_the_exit_code_and_shows_errors(capfd):
    program = "import sys; print('why', file=sys.stderr); sys.exit(7)"
    assert sweep.run_process([sys.executable, "-c", program]) == (7, None)
    assert capfd.readouterr().err == "why\n"


def test_run_process_forwards_a_signal():
    # Sleeps are cut short by the signal; a process that does not get it fails the test.
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
        "sys.exit(1)\n"
    )
    result = sweep.run_process([sys.executable, "-c", program])
    assert result == (75, signal.SIGTERM)


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
def test_sweep_resumes_survives_a_failed_run_and_compares(dataset_dir, tmp_path):
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
    resume = f"python -m trainer.sweep --flagfile={folder / sweep.FLAGS}"
    assert process.returncode == ExitCode.STOPPED, rest
    assert f"Resume with: {resume}" in rest[1]
    assert "run 2 of 4" not in rest[0]

    with started(*resume.split()[3:]) as process:
        out, err = process.communicate()
    assert process.returncode == ExitCode.OUTPUT, err
    assert "4 runs in" in out and "0 of them finished" in out
    assert f"{folder / 'resnet50-seed0'} failed with exit code 4." in out
    assert "is not empty and holds no run" in err
    assert "1 of 4 runs failed" in err and resume in err
    table = pd.read_csv(folder / "leaderboard.csv", dtype={"seeds": str})
    assert dict(zip(table["model"], table["seeds"], strict=True)) == {
        "googlenet": "0 1",
        "resnet50": "1",
    }
    assert (table["inference_ms_per_image"] > 0).all()
    record = json.loads((folder / "googlenet-seed0" / "run.json").read_text())
    assert record["inference_images_per_second"] > 0

    (folder / "resnet50-seed0" / "mine.txt").unlink()
    with started(*resume.split()[3:]) as process:
        out, err = process.communicate()
    assert process.returncode == ExitCode.OK, err
    assert "3 of them finished" in out
    assert out.count("\nrun ") == 1 and "run 2 of 4" in out
    assert (folder / "comparison.html").is_file()
