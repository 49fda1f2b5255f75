"""The train step's benchmark: its flags, its counts, its programs, its document."""

import json
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from keras import layers

from benchmarks import flops, harness, programs, step
from benchmarks.step import StepConfig
from benchmarks.train_step import cases, tensorflow_step
from support import memory
from support.errors import ExitCode, UserError
from trainer import models


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ("resnet5",)}, "--models=resnet5 .*Did you mean resnet50"),
        ({"models": ()}, "--models= is none of"),
        ({"sizes": (128, 16)}, "--sizes=128,16 is out of range. Choose from 32"),
        ({"precision": ("bfloat",)}, "Did you mean bfloat16"),
        ({"cases": ("torch",)}, "Did you mean pytorch"),
        ({"rounds": 0}, "--rounds=0"),
        ({"batch_sizes": (8, 0)}, "--batch_sizes=8,0 is out of range"),
        ({"batch_sizes": ()}, "--batch_sizes= is out of range"),
        ({"round_seconds": 0.0}, "--round_seconds=0.0"),
    ],
)
def test_wrong_flags_are_refused(options, words):
    with pytest.raises(UserError, match=words) as raised:
        StepConfig(**options)
    assert raised.value.exit_code == ExitCode.USAGE


def test_the_same_is_measured_twice_unless_only_one_case_is_wanted():
    kinds = StepConfig().kinds
    assert kinds["again"] == kinds["ours"]
    assert list(StepConfig(cases=("ours",)).kinds) == ["ours"]


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it is an error
    with pytest.raises(UserError, match="pip install tensorflow") as raised:
        cases.backend("tensorflow")
    assert raised.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("written", "code", "words"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY", ExitCode.OUT_OF_MEMORY, "end what else takes"),
        ("libcuda: no such file", ExitCode.USAGE, "tensorflow_step` shows"),
    ],
)
def test_a_step_that_does_not_start_is_not_a_bug(monkeypatch, written, code, words):
    def fail(command, _environment):
        raise programs.ProgramFailed(" ".join(command[:3]), f"Trace\n{written}\n", 1)

    monkeypatch.setattr(programs, "Program", fail)
    with pytest.raises(UserError, match=f"{written} .*{words}") as raised:
        step.measure(StepConfig(models=("vgg16",)))
    assert raised.value.exit_code == code


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    # He et al. 2016, table 1; Szegedy et al. 2015 say 1.5; VGG's convolutions alone;
    # Tan and Le 2021, their code's table.
    [
        ("resnet50", 3.86e9),
        ("googlenet", 1.5e9),
        ("vgg16", 15.35e9),
        ("efficientnetv2b0", 0.72e9),
    ],
)
def test_operations_are_those_of_the_literature(name, multiply_adds):
    model = models.build(name, 224)
    assert flops.forward(model) == pytest.approx(2 * multiply_adds, rel=0.01)
    assert flops.training(model) == 3 * flops.forward(model)


def test_operations_of_depthwise_convolutions_are_counted():
    images = layers.Input((8, 8, 4))
    deep = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(images)
    assert flops.forward(keras.Model(images, deep)) == 2 * 8 * 8 * 4 * 9


PROGRAM = """
import time
from benchmarks import harness, programs
print("libraries print when they are imported")
def prepare(task):
    print("{and later}")
    work = harness.steps(lambda: time.sleep(0.02), task["images"], lambda last: None)
    product = harness.steps(lambda: time.sleep(0.02), 1000, lambda last: None)
    about = {"gpu": "none"}
    return programs.Step(work, {"a": 2.0}, lambda: 3 * 2**20, product, about)
programs.serve(prepare)
"""


def test_a_program_waits_for_its_turns():
    task = json.dumps({"images": 5, "round_seconds": 0.1})
    with programs.Program([sys.executable, "-c", PROGRAM, task], {}) as program:
        assert program.about == {"gpu": "none"}
        assert program.facts["a"] == 2
        assert program.facts["compile, s"] >= 0
        assert 0 <= program.facts["memory, MiB"] < 100
        assert program.facts["GPU memory, MiB"] == 3
        for _ in range(2):
            done = program.run()
            assert done.units % 5 == 0
            assert done.seconds >= done.units // 5 * 0.02
        done = program.run("matmul")
        assert done.units % 1000 == 0 and done.seconds >= 0.02


def test_peers_need_no_package_of_ours():
    program = "import sys; sys.path.append('.'); import benchmarks.train_step.cases"
    words = [sys.executable, "-S", "-c", program]
    subprocess.run(words, cwd=harness.ROOT, check=True)


def test_a_python_that_cannot_be_run_is_named():
    with pytest.raises(UserError, match="/none/python cannot be run: No such file"):
        programs.Program(["/none/python", "-c", ""], {})


def test_a_program_that_ends_says_why():
    with pytest.raises(
        programs.ProgramFailed, match=r"no such network \(exit status 1\)"
    ):
        programs.Program(
            [sys.executable, "-c", "raise SystemExit('no such network')"], {}
        )


@pytest.mark.parametrize(
    "end",
    [
        "import os; os.kill(os.getpid(), 9)",
        "raise MemoryError",
        "import sys; sys.exit('XlaRuntimeError: RESOURCE_EXHAUSTED: Too much.\\n--')",
    ],
)
def test_running_out_of_memory_is_named(end):
    with pytest.raises(programs.ProgramFailed, match="out of memory: [nMX]") as raised:
        programs.Program([sys.executable, "-c", end], {})
    assert raised.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_a_program_that_ends_on_the_way_is_noticed():
    dies = PROGRAM.replace(
        "lambda: time.sleep(0.02), task",
        "lambda calls=[]: calls.append(1) or 1 / (len(calls) < 6), task",
    )
    task = json.dumps({"images": 5, "round_seconds": 0.001})
    with programs.Program([sys.executable, "-c", dies, task], {}) as program:
        with pytest.raises(programs.ProgramFailed, match="ended: ZeroDiv"):
            for _ in range(9):
                program.run()


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


def tiny_backbone(x):
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(x)
    return layers.BatchNormalization(name="norm")(x)


@pytest.fixture
def tiny(monkeypatch):
    entry = models.Architecture("Tiny", tiny_backbone)
    monkeypatch.setitem(models.ARCHITECTURES, "tiny", entry)
    return {"model": "tiny", "size": 32, "precision": "float32", "batch_size": 4}


def test_all_cases_on_tensorflow_train_the_same_network(tiny):
    works = {
        case: tensorflow_step.prepare({**tiny, "case": case})
        for case in ("ours", "warp", "keras")
    }
    for work in works.values():
        assert work.work(2).units == 8
        assert work.matmul(1).units == 2 * 2048**3
        assert work.facts == works["ours"].facts
    assert works["ours"].facts["GFLOP/image"] == pytest.approx(
        3 * 2 * (16 * 16 * 8 * 27 + 8) / 1e9
    )


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
    assert "vgg16 32 float32 batch 2, ours: " in capsys.readouterr().out
