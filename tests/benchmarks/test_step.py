"""The train step's benchmark: its flags, its counts, its programs, its document."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from benchmarks import flops, harness, step, step_jax, step_tensorflow, turns
from benchmarks.step import StepConfig
from support.errors import ExitCode, UserError
from trainer import config as trainer_config
from trainer import models
from trainer.optimizer import Optimizer, Schedule


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ("resnet5",)}, "--models=resnet5 .*Did you mean resnet50"),
        ({"models": ()}, "--models is empty"),
        ({"sizes": (128, 16)}, "--sizes=16 is not between 32 and 1024"),
        ({"precision": ("bfloat",)}, "Did you mean bfloat16"),
        ({"cases": ("torch",)}, "Did you mean pytorch"),
        ({"rounds": 0}, "--rounds=0"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"round_seconds": 0.0}, "--round_seconds=0.0"),
    ],
)
def test_wrong_flags_are_refused(options, words):
    with pytest.raises(UserError, match=words) as raised:
        StepConfig(**options)
    assert raised.value.exit_code == ExitCode.USAGE


def test_what_a_backend_cannot_do_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(UserError, match="KERAS_BACKEND=torch"):
        StepConfig()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert list(StepConfig().kinds) == ["ours", "warp", "keras", *step._PEERS]
    with pytest.raises(UserError, match="float16 needs loss scaling"):
        StepConfig(precision=("float16",))
    with pytest.raises(UserError, match="--cases=stock"):
        StepConfig(cases=("stock",))


def test_peers_that_are_not_there_are_left_out(tmp_path, capsys):
    config = StepConfig(cases=("ours", "pytorch"), peers_python=sys.executable)
    installed = step._has(sys.executable, "torch")
    assert list(step._available(config)[0]) == ["ours", "pytorch"][: 1 + installed]
    assert installed or "skipped: pytorch" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot be run: No such file"):
        step._has(str(tmp_path / "python"), "torch")


def test_precisions_are_the_trainer_s():
    assert step.PRECISIONS == trainer_config.PRECISIONS


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    # He et al. 2016, table 1; Szegedy et al. 2015 say 1.5; VGG's convolutions alone.
    [("resnet50", 3.86e9), ("googlenet", 1.5e9), ("vgg16", 15.35e9)],
)
def test_operations_are_those_of_the_literature(name, multiply_adds):
    model = models.build(name, 224)
    assert flops.forward(model) == pytest.approx(2 * multiply_adds, rel=0.01)
    assert flops.training(model) == 3 * flops.forward(model)


PROGRAM = """
import time
from benchmarks import turns
print("libraries print when they are imported")
def prepare(task):
    print("{and later}")
    work = lambda: time.sleep(0.02)
    return turns.Work(task["images"], work, lambda: None, work, 1e9, {"a": 2.0},
                      lambda: 3 * 2**20)
turns.serve(prepare, lambda: {"gpu": "none"})
"""


def test_a_program_waits_for_its_turns():
    words = [sys.executable, "-c", PROGRAM]
    assert turns.describe(words, {}) == {"gpu": "none"}
    task = json.dumps({"images": 5, "round_seconds": 0.1})
    with turns.Program([*words, task], {}) as program:
        assert program.facts["a"] == 2
        assert program.facts["compile, s"] >= 0
        for _ in range(2):
            done = program.round()
            assert done.images % 5 == 0
            assert done.seconds >= done.images // 5 * 0.02
            assert 0 < done.matmul <= 1e9 / 0.02
            assert done.device_memory == 3


def test_a_program_that_ends_says_why():
    with pytest.raises(turns.ProgramFailed, match=r"no such network \(exit status 1\)"):
        turns.Program([sys.executable, "-c", "raise SystemExit('no such network')"], {})
    killed = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(turns.ProgramFailed) as raised:
        turns.Program([sys.executable, "-c", killed], {})
    assert raised.value.killed


def tiny_backbone(x):
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(x)
    return layers.BatchNormalization(name="norm")(x)


@pytest.fixture
def tiny(monkeypatch):
    table = dict(models.ARCHITECTURES)
    table["tiny"] = models.Architecture(tiny_backbone, models.SCALED, "", 0)
    monkeypatch.setattr(models, "ARCHITECTURES", table)
    return {"model": "tiny", "size": 32, "precision": "float32", "batch_size": 4}


def test_all_cases_on_tensorflow_train_the_same_network(tiny):
    works = {
        case: step_tensorflow.prepare({**tiny, "case": case})
        for case in ("ours", "warp", "stock", "keras")
    }
    for work in works.values():
        work.step()
        work.wait()
        work.multiply()
        assert work.facts == works["ours"].facts
    assert works["ours"].facts["GFLOP/image"] == pytest.approx(
        3 * 2 * (16 * 16 * 8 * 27 + 8) / 1e9
    )


def test_the_step_on_jax_updates_as_the_trainer_does():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype("float32") for shape in ((3, 4), (4,))]
    variables = [tf.Variable(value) for value in values]
    rate = 0.01
    optimizer = Optimizer(
        variables, Schedule(rate, 0, 10, cosine=False), 0.05, 1.0, 0.99, False
    )
    state = step_jax.initial_state(values, [])
    for size in (0.1, 10.0, 1.0):  # the second and the third are clipped
        gradients = [
            rng.normal(0, size, value.shape).astype("float32") for value in values
        ]
        optimizer.apply(*optimizer.finish([tf.constant(g) for g in gradients]))
        state = step_jax.update(state, gradients, rate)
    for got, want in (
        (state.trainable, variables),
        (state.average, optimizer.averages),
    ):
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


JAX_CASES = [("ours", "float32"), ("warp", "bfloat16"), ("keras", "bfloat16")]
JAX_PROGRAM = """
import json, sys
sys.modules["tensorflow"] = None  # importing it is now an error
from keras import layers
from benchmarks import step_jax
from trainer import models
def backbone(x):
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(x)
    return layers.BatchNormalization(name="norm")(x)
models.ARCHITECTURES["tiny"] = models.Architecture(backbone, models.SCALED, "", 0)
for case, precision in json.loads(sys.argv[1]):
    task = {"model": "tiny", "size": 32, "precision": precision, "batch_size": 4}
    work = step_jax.prepare({**task, "case": case})
    for _ in range(2):
        work.step()
    work.wait()
    print(case, precision, int(work.facts["parameters"]))
"""


def test_the_step_on_jax_runs_without_tensorflow():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", JAX_PROGRAM, json.dumps(JAX_CASES)],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        cwd=turns.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    parameters = 27 * 8 + 8 + 4 * 8 + 8 + 1
    assert done.stdout.splitlines() == [
        f"{case} {precision} {parameters}" for case, precision in JAX_CASES
    ]


@pytest.mark.slow  # it starts three programs that import TensorFlow
def test_a_run_writes_a_document(tmp_path, monkeypatch, capsys):
    write = harness.write
    monkeypatch.setattr(harness, "write", lambda result: write(result, tmp_path))
    words = ["--models=vgg16", "--sizes=32", "--precision=auto,float32", "--write"]
    words += ["--batch_size=2", "--cases=ours", "--rounds=1", "--round_seconds=0.1"]
    step.main(["step", *words])
    result = json.loads(next(tmp_path.glob("step-vgg16-32-*.json")).read_text())
    harness.check(result)
    assert "vgg16 32 float32, ours" in result["cases"]
    facts = result["cases"]["vgg16 32 float32, ours"]["facts"]
    assert facts["parameters"] == 14_714_688 + 513
    assert facts["of ours"] == 1
    assert facts["share of matmul"] > 0
    said = capsys.readouterr().out
    assert "14,715,201 (14,715,201 trainable) in ours" in said
