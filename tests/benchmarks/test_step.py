"""The train step's benchmark: its flags, its counts, its programs, its document."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from beam_pipelines import build, synthesize
from benchmarks import (
    batch_search,
    flops,
    gpu,
    harness,
    step,
    step_cases,
    step_jax,
    step_tensorflow,
    turns,
)
from benchmarks.step import StepConfig
from support import memory
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
        ({"batch_sizes": ("8", "0")}, "--batch_sizes=0 is neither auto nor"),
        ({"batch_sizes": ()}, "--batch_sizes= is neither auto nor"),
        ({"data_dir": "data"}, "only JAX has"),
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
    own = ["ours", "again", "warp", "keras"]
    assert list(StepConfig().kinds) == [*own, "pytorch", "torchvision"]
    assert "input" in StepConfig(data_dir="data").kinds
    with pytest.raises(UserError, match="--cases=input reads a dataset"):
        StepConfig(cases=("input",))
    with pytest.raises(UserError, match="float16 needs loss scaling"):
        StepConfig(precision=("float16",))
    with pytest.raises(UserError, match="--cases=stock"):
        StepConfig(cases=("stock",))


def test_the_same_is_measured_twice_unless_only_one_case_is_wanted():
    kinds = StepConfig().kinds
    assert kinds["again"] == kinds["ours"]
    assert list(StepConfig(cases=("ours",)).kinds) == ["ours"]


@pytest.mark.parametrize("name", step_cases.KINDS)
def test_a_backend_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setitem(sys.modules, name, None)  # importing it is now an error
    with pytest.raises(UserError, match=f"pip install {name}") as raised:
        StepConfig()
    assert raised.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("written", "code", "words"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY", ExitCode.OUT_OF_MEMORY, "End what else takes"),
        ("libcuda: no such file", ExitCode.USAGE, "benchmarks.step_tensorflow` shows"),
    ],
)
def test_a_step_that_does_not_start_is_no_bug(monkeypatch, written, code, words):
    def fail(*_arguments):
        raise turns.ProgramFailed(f"Traceback\n{written}\n", 1)

    monkeypatch.setattr(turns, "describe", fail)
    with pytest.raises(UserError, match=f"{written} .*{words}") as raised:
        step.measure(StepConfig())
    assert raised.value.exit_code == code


def test_a_dataset_that_input_cannot_read_is_refused_first(
    drawn, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError, match="holds no finished dataset") as raised:
        step.measure(StepConfig(data_dir=str(tmp_path / "none")))
    assert raised.value.exit_code == ExitCode.INPUT_DATA
    config = StepConfig(data_dir=str(drawn), batch_sizes=("8", "auto", "27"))
    with pytest.raises(UserError, match="26 training examples, fewer than") as raised:
        step.measure(config)
    assert raised.value.exit_code == ExitCode.USAGE


def test_peers_that_are_not_there_are_left_out(tmp_path, capsys):
    kinds = StepConfig(cases=("ours", "pytorch")).kinds
    installed = step_cases.has(sys.executable, "torch")
    found, _ = step_cases.available(kinds, sys.executable)
    assert list(found) == ["ours", "pytorch"][: 1 + installed]
    assert installed or "skipped: pytorch" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot be run: No such file"):
        step_cases.has(str(tmp_path / "python"), "torch")


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
            assert 0 <= done.memory < 100
            assert done.waited == 0


def test_a_program_that_ends_says_why():
    with pytest.raises(turns.ProgramFailed, match=r"no such network \(exit status 1\)"):
        turns.Program([sys.executable, "-c", "raise SystemExit('no such network')"], {})


@pytest.mark.parametrize(
    "end",
    [
        "import os; os.kill(os.getpid(), 9)",
        "raise MemoryError",
        "import sys; sys.exit('XlaRuntimeError: RESOURCE_EXHAUSTED: Too much.\\n--')",
    ],
)
def test_running_out_of_memory_is_named(end):
    with pytest.raises(turns.ProgramFailed, match="out of memory: [kMX]") as raised:
        turns.Program([sys.executable, "-c", end], {})
    assert raised.value.out_of_memory


def test_a_peer_that_ends_on_the_way_is_left_out(capsys):
    dies = PROGRAM.replace("{and later}", "x").replace(
        "work = lambda: time.sleep(0.02)",
        "calls = []\n    work = lambda: calls.append(1) or 1 / (len(calls) < 6)",
    )
    task = {"model": "a", "size": 32, "precision": "float32", "batch_size": 5}
    told = json.dumps(task | {"images": 5, "round_seconds": 0.001})
    programs = {
        name: turns.Program([sys.executable, "-c", program, told], {})
        for name, program in (("ours", PROGRAM), ("pytorch", dies))
    }
    with programs["ours"]:
        measured, rounds = step._take_turns(StepConfig(rounds=2), task, programs)
    assert [one.name for one in measured] == list(rounds) == list(programs) == ["ours"]
    assert "skipped: pytorch, a 32 float32 batch 5: ZeroDiv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), True),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), True),
        (tf.errors.ResourceExhaustedError(None, None, "No space left"), False),
        (ValueError("zoom when there is none"), False),
    ],
)
def test_memory_s_end_has_an_exit_code_of_its_own(error, ran_out):
    with pytest.raises(UserError if ran_out else type(error)) as raised:
        with memory.named("Use less."):
            raise error
    if ran_out:
        assert raised.value.exit_code == ExitCode.OUT_OF_MEMORY
        assert raised.value.remedy == "Use less."


def rates(by_batch, memory=0.0):
    """Measures nothing: looks rates up; those that are missing end in an error."""

    def measure(batch_size):
        if batch_size not in by_batch:
            raise turns.ProgramFailed("MemoryError", 1)
        facts = {batch_search.MEMORY: memory * batch_size}
        samples = (by_batch[batch_size],) * 2
        return harness.Measurement(str(batch_size), samples, facts)

    return measure


@pytest.mark.parametrize(
    ("measure", "limit", "best", "tried", "ended"),
    [
        (rates({8: 10, 16: 15, 32: 15.2, 64: 99}), 99, 16, 3, "32 is no faster"),
        (rates({8: 10, 16: 15}), 99, 16, 2, "batch 32: out of memory: MemoryError"),
        (rates({8: 10, 16: 15}), 0, 8, 1, "the time limit, 0 s"),
        (rates({8: 10, 16: 15}, 1e9), 99, 8, 1, "batch 16 might not fit"),
        (rates({2: 10, 1: 9}), 99, 2, 1, "batch 4: out of memory: MemoryError"),
        (rates({1: 10}), 99, 1, 1, "batch 2: out of memory: MemoryError"),
    ],
)
def test_the_batch_size_is_doubled_until_it_helps_no_more(
    measure, limit, best, tried, ended
):
    found = batch_search.search(measure, 8, limit)
    assert (found.best, len(found.tried)) == (best, tried)
    assert ended in found.ended


def test_side_by_side_the_batch_has_to_fit():
    found = batch_search.search(rates({8: 10, 16: 15, 32: 20}, 1.0), 8, 99)
    assert batch_search.fits(found, 2) == found.best == 32
    assert batch_search.fits(found, 10**9) == 8


def test_a_search_ends_where_nothing_can_be_measured():
    tried = []

    def measure(batch_size, why="MemoryError"):
        tried.append(batch_size)
        raise turns.ProgramFailed(why, 1)

    with pytest.raises(turns.ProgramFailed):
        batch_search.search(measure, 8, 99)
    assert tried == [8, 4, 2, 1]
    with pytest.raises(turns.ProgramFailed, match="no such layer"):
        batch_search.search(lambda size: measure(size, "no such layer"), 8, 99)
    assert tried[4:] == [8]


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


JAX_CASES = [
    ("ours", "float32"),
    ("warp", "bfloat16"),
    ("keras", "bfloat16"),
    ("input", "float32"),
]
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
task = {"model": "tiny", "size": 32, "batch_size": 4, "data_dir": sys.argv[2]}
for case, precision in json.loads(sys.argv[1]):
    work = step_jax.prepare({**task, "case": case, "precision": precision})
    for _ in range(12):  # "input" has 6 batches in an epoch
        work.step()
    work.wait()
    work.multiply()
    print(case, precision, int(work.facts["parameters"]), work.waited() > 0)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A dataset of 40 drawn faces, 26 of them for training."""
    made = tmp_path_factory.mktemp("drawn")
    sample, folder = made / "sample", made / "tfrecords"
    words = [f"--output_dir={sample}", "--num_examples=40", "--num_workers=1"]
    synthesize.main(["synthesize", *words])
    words = [f"--celeba_dir={sample}", f"--output_dir={folder}", "--balance=none"]
    build.main(["build", "--split=random", *words])
    return folder


def test_the_step_on_jax_runs_without_tensorflow(drawn):
    program = [sys.executable, "-W", "error", "-c", JAX_PROGRAM]
    done = subprocess.run(
        [*program, json.dumps(JAX_CASES), drawn],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        cwd=turns.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    parameters = 27 * 8 + 8 + 4 * 8 + 8 + 1
    assert done.stdout.splitlines() == [
        f"{case} {precision} {parameters} {case == 'input'}"
        for case, precision in JAX_CASES
    ]


def case(median, spread=0.01, **facts):
    return {"median": median, "spread": spread, "facts": facts}


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("NVIDIA H200", ["reached", "not reached", "reached", "not reached"]),
        ("", ["not measurable", "not reached", "reached", "not reached"]),
    ],
)
def test_targets_are_compared_with_the_best_batch_size(name, verdicts):
    cases = {
        "resnet50 224 bfloat16 batch 128, ours": case(2900),
        "resnet50 224 bfloat16 batch 128, warp": case(2800, **{"warp's share": 0.04}),
        "resnet50 224 bfloat16 batch 128, torchvision": case(3300),
        "resnet50 224 bfloat16 batch 256, ours": case(3200),
        "resnet50 224 bfloat16 batch 256, warp": case(3150, **{"warp's share": 0.016}),
        "resnet50 224 bfloat16 batch 256, input": case(2900, **{"input stall": 0.08}),
    }
    found = gpu.targets({"hardware": {"gpu": name}, "cases": cases})
    assert [target.verdict for target in found] == verdicts
    assert found[1].value == pytest.approx(3150 / 3300)
    assert found[2].describe().endswith("below 0.03: reached, but within the noise")
    nothing = gpu.targets({"hardware": {"gpu": name}, "cases": {}})
    assert {target.verdict for target in nothing} == {"not measurable"}


@pytest.mark.slow  # it starts three programs that import TensorFlow
def test_a_run_writes_a_document(tmp_path, monkeypatch, capsys):
    write = harness.write
    monkeypatch.setattr(harness, "write", lambda result: write(result, tmp_path))
    words = ["--models=vgg16", "--sizes=32", "--precision=auto,float32", "--write"]
    words += ["--batch_sizes=2", "--cases=ours", "--rounds=1", "--round_seconds=0.1"]
    step.main(["step", *words])
    result = json.loads(next(tmp_path.glob("step-vgg16-32-*.json")).read_text())
    harness.check(result)
    assert "vgg16 32 float32 batch 2, ours" in result["cases"]
    facts = result["cases"]["vgg16 32 float32 batch 2, ours"]["facts"]
    assert facts["parameters"] == 14_714_688 + 513
    assert facts["of ours"] == 1
    assert facts["MFU"] > 0
    assert facts["batch"] == 2
    assert facts["memory, MiB"] > 4 * 14.7e6 / 2**20  # of the weights alone
    said = capsys.readouterr().out
    assert "14,715,201 (14,715,201 trainable) in ours" in said
