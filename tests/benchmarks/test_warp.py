"""The benchmark of the warp, tiny."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import warp as benchmark
from support.errors import ExitCode
from trainer import augmentation
from trainer.config import Augmentation

ROOT = Path(__file__).parent.parent.parent
TINY = "--height=12 --width=10 --size=14 --batch_size=2 --batches=1 --rounds=1".split()


def cases(output):
    return re.findall(r"^\| ([^|]+?) +\| +[\d,]+ \|", output, re.MULTILINE)


def test_all_cases_run_and_their_ratios_are_shown(capsys):
    benchmark.main(["warp", *TINY])
    output = capsys.readouterr().out
    names = cases(output)
    assert names[0] == "warp"
    assert names[-2:] == ["Keras layers", "ImageProjectiveTransformV3"], output
    assert "| warp / this |" in output


def test_the_projective_transform_computes_the_same_pixels():
    config = benchmark.WarpBenchmarkConfig(height=12, width=10, size=14, batch_size=2)
    images = benchmark._images(config, np.random.default_rng(0))
    drawn = augmentation.sample_parameters(
        np.full((2, 7), 0.3, "float32"), Augmentation(20, 0.2, 0.2)
    )
    want = augmentation.compiled(14)(images, drawn)
    got = benchmark._projective(config, drawn)(images)
    np.testing.assert_allclose(got, want, atol=0.0255)


def on_jax(missing):
    """A program on JAX; importing what is missing is an error."""
    program = (
        f"import sys; sys.modules['{missing}'] = None; from support import command; "
        f"from benchmarks import warp; command.run(warp.main, ['warp', *{TINY}])"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
    )


def test_missing_backend_is_named():
    done = on_jax("jax")
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert done.stderr.startswith("error: Keras' backend jax is not installed.\n")


def test_on_jax_it_needs_no_tensorflow():
    done = on_jax("tensorflow")
    assert done.returncode == 0, done.stderr
    assert len(cases(done.stdout)) == 2 and "Skipped" in done.stdout, done.stdout
