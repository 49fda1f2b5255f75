"""The train step on Keras' JAX backend, tiny and on the CPU."""

import re
import subprocess
import sys

import pytest

from benchmarks import gpu, harness

WORDS = "--models=vgg16 --size=32 --batch_sizes=1 --rounds=1 --round_seconds=0.01"


@pytest.mark.slow
def test_it_runs_without_tensorflow():
    program = (
        "import sys; sys.modules['tensorflow'] = None; "  # importing it is an error
        "from support import command; from benchmarks import gpu; "
        f"command.run(gpu.main, ['gpu', *{WORDS.split()}])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cases = re.findall(r"^\| vgg16 32 bfloat16 batch 1, (.+?) +\|", done.stdout, re.M)
    assert cases[:3] == ["ours", "ours, again", "with warp"], done.stdout
    assert cases[3:] == ["torchvision"] or "skipped: torchvision" in done.stdout
    assert "images/s with warp; on an H200 at least 3,000" in done.stdout


def test_targets_are_compared_with_the_fastest_batch_size():
    def case(name, median, of_ours=1.0):
        return harness.Measurement(name, (median,), {"of ours": of_ours})

    cases = [
        case("resnet50 224 bfloat16 batch 128, with warp", 2800, 0.9),
        case("resnet50 224 bfloat16 batch 128, torchvision", 3000),
        case("resnet50 224 bfloat16 batch 256, with warp", 3150, 0.98),
        case("vgg16 224 bfloat16 batch 256, with warp", 4000),
    ]
    assert list(gpu.targets("resnet50", cases)) == [
        "resnet50: 3,150 images/s with warp; on an H200 at least 3,000",
        "resnet50: 1.05 times torchvision's rate; at least 1",
        "resnet50: the warp takes 2.0% of the step; below 3%",
    ]
