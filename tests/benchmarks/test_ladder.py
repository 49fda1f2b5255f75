"""The ladder on a tiny dataset."""

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import harness
from benchmarks import input as input_benchmark
from benchmarks.ladder import ladder_config, page_cache
from benchmarks.ladder.ladder_config import LadderConfig
from support.errors import ExitCode, UserError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rungs": ("stepp",)}, "--rungs=stepp .*Did you mean step"),
        ({"rungs": ()}, "--rungs= is none of"),
        ({"model": "resnet5"}, "Did you mean resnet50"),
        ({"precision": "bfloat"}, "Did you mean bfloat16"),
        ({"budget": "soon"}, "--budget=soon is no duration"),
        ({"batch_size": 0}, "--batch_size=0"),
    ],
)
def test_wrong_flags_are_refused(options, words):
    with pytest.raises(UserError, match=words) as raised:
        LadderConfig(**options)
    assert raised.value.exit_code == ExitCode.USAGE


def test_training_brings_the_step_with_it():
    assert LadderConfig(rungs=("train",)).chosen == ("step", "train")
    assert LadderConfig().chosen == ladder_config.RUNGS


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError, match="backend tensorflow, not jax"):
        program.main(["benchmarks"])


def test_what_was_just_written_is_in_the_page_cache(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    assert page_cache.share_held([path]) in (1.0, None)
    page_cache.drop([path])
    held = page_cache.share_held([path])
    assert held is None or 0 <= held <= 1
    assert path.read_bytes() == bytes(100_000)


@pytest.mark.slow  # it compiles a train step
def test_all_rungs_are_climbed(tmp_path, monkeypatch, capsys):
    folder = input_benchmark.make_data(60, tmp_path / "work")
    write = harness.write
    monkeypatch.setattr(harness, "write", lambda result: write(result, tmp_path))
    words = [f"--data_dir={folder}", "--input_size=32", "--batch_size=4"]
    if not harness.hardware()["gpu"]:
        with pytest.raises(UserError, match="--rungs=transfer leaves nothing"):
            program.main(["benchmarks", *words, "--rungs=transfer"])
    program.main(["benchmarks", *words, "--budget=1s", "--write", "--try_suggestion"])
    result = json.loads(next(tmp_path.glob("ladder-googlenet-32-*.json")).read_text())
    harness.check(result)
    cases = result["cases"]
    assert list(cases)[-2:] == ["evaluation", "train step, again"]
    for name in ("read shards", "decode", "warp", "train, shards on disk"):
        assert cases[name]["facts"]["limit"] > 0
    assert 0 <= cases["train, decoded images"]["facts"]["waiting for input"] <= 1
    assert result["settings"]["suggestion"]
    said = capsys.readouterr().out
    for line in ("| rung ", "Noise: the train step", "Waiting for input", "Verdict: "):
        assert line in said
