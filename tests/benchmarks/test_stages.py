"""The stage breakdown on a tiny dataset."""

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import harness
from benchmarks import input as input_benchmark
from benchmarks.stages.config import STAGES, StagesConfig
from support.errors import ExitCode, UserError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": ("stepp",)}, "--stages=stepp .*Did you mean step"),
        ({"stages": ()}, "--stages= is none of"),
        ({"model": "resnet5"}, "Did you mean resnet50"),
        ({"precision": "bfloat"}, "Did you mean bfloat16"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"budget": "0s"}, "--budget=0s is not a duration"),
        ({"budget": "5 m 3"}, "--budget=5 m 3 is not a duration"),
    ],
)
def test_wrong_flags_are_refused(options, words):
    with pytest.raises(UserError, match=words) as raised:
        StagesConfig(**options)
    assert raised.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("1h", 3600), ("90", 90), ("1.5m", 90), (" 2M ", 120)],
)
def test_durations(text, seconds):
    assert StagesConfig(budget=text).seconds == seconds


def test_training_is_compared_with_the_step():
    assert StagesConfig(stages=("train",)).chosen == ("step", "train")
    assert StagesConfig().chosen == STAGES


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError, match="backend tensorflow, not jax"):
        program.main(["benchmarks"])


@pytest.mark.slow  # it compiles a train step
def test_all_stages_are_measured(tmp_path, monkeypatch, capsys):
    folder = input_benchmark.make_data(60, tmp_path / "work")
    write = harness.write
    monkeypatch.setattr(harness, "write", lambda result: write(result, tmp_path))
    words = [f"--data_dir={folder}", "--input_size=32", "--batch_size=4"]
    if not harness.hardware()["gpu"]:
        with pytest.raises(UserError, match="--stages=transfer leaves nothing"):
            program.main(["benchmarks", *words, "--stages=transfer"])
    program.main(["benchmarks", *words, "--budget=1s", "--write"])
    result = json.loads(next(tmp_path.glob("stages-googlenet-32-*.json")).read_text())
    harness.check(result)
    cases = result["cases"]
    assert list(cases)[-2:] == ["evaluation", "train step, again"]
    for name in ("read shards", "decode", "warp", "train, shards on disk"):
        assert cases[name]["facts"]["upper bound"] > 0
    assert result["settings"]["suggestion"]
    said = capsys.readouterr().out
    for line in ("its name", "Noise: the train step", "Waiting for input", "Verdict: "):
        assert line in said
