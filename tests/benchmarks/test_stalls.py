"""The bottleneck of training, from made-up rates."""

import dataclasses
import re

import pytest

from benchmarks.stages import stalls
from benchmarks.stages.stalls import CACHED, COLD, STEP, WARM, Setting

SETTING = Setting(
    gpu=False,
    xla=False,
    precision="float32",
    auto_precision="float32",
    batch_size=32,
    matmul_fraction=0.5,
    cache_mb=700,
    usual=CACHED,
    cache_fits=True,
)
NOISE = 0.01


def rates(*values):
    return dict(zip((STEP, CACHED, WARM, COLD), values, strict=True))


NO_STALL = rates(100, 99.5, 99.4, 99.3)
#: Per image 10 ms of step; 0, 10 and 20 ms more.
SLOW_DISK = rates(100, 100, 50, 25)
SLOW_DECODE = rates(100, 100, 50, 50)


def judge(measured, noise=NOISE, **changes):
    return stalls.verdict(measured, dataclasses.replace(SETTING, **changes), noise)


def test_parts_are_fractions_of_the_time_per_image():
    assert stalls.waiting(SLOW_DISK, WARM) == 0.5
    assert stalls.waiting(SLOW_DISK, COLD) == 0.75
    expected = {CACHED: 0, WARM: 0.25, COLD: 0.5}
    assert stalls.parts(SLOW_DISK, COLD) == pytest.approx(expected)
    assert stalls.parts(SLOW_DISK, WARM) == pytest.approx({CACHED: 0, WARM: 0.5})
    assert stalls.waiting(rates(100, 101, 101, 101), COLD) == 0


def test_nothing_is_suggested_when_the_step_is_the_bottleneck():
    found = judge(NO_STALL)
    assert found[1] == "nothing"
    assert found[0] == (
        "The train step is the bottleneck: from decoded images in memory, training "
        "reaches 100% of its rate on a batch that stays on the device."
    )
    assert "50% of the matrix products" in found[2]


@pytest.mark.parametrize(
    ("changes", "suggestion"),
    [
        ({"gpu": True, "auto_precision": "bfloat16"}, "--precision=auto"),
        ({"gpu": True}, "--xla=on"),
        ({"gpu": True, "xla": True, "matmul_fraction": 0.1}, "--batch_size=64"),
        ({"gpu": True, "xla": True}, "nothing"),
        ({"matmul_fraction": 0.1}, "nothing"),
    ],
)
def test_suggestions_for_the_step(changes, suggestion):
    assert judge(NO_STALL, **changes)[1] == suggestion


@pytest.mark.parametrize(
    ("measured", "changes", "words", "suggestion"),
    [
        (SLOW_DECODE, {"usual": WARM}, "reading and decoding", "--cache_mb=700"),
        (
            SLOW_DECODE,
            {"usual": WARM, "cache_fits": False},
            "more cores, .* --image_size",
            "nothing",
        ),
        (SLOW_DISK, {"usual": COLD}, "the disk", "--cache_mb=700"),
        (SLOW_DISK, {"usual": COLD, "cache_fits": False}, "a faster disk", "nothing"),
        (rates(100, 80, 80, 80), {}, "bringing them to the device", "--batch_size=64"),
        (rates(100, 80, 80, 80), {"usual": WARM}, "waits 20%", "--batch_size=64"),
    ],
)
def test_suggestions_for_the_input(measured, changes, words, suggestion):
    found = judge(measured, **changes)
    assert found[1] == suggestion
    assert re.search(words, f"{found[0]} {found[2]}")


def test_a_difference_below_the_noise_is_none():
    measured = rates(100, 92, 92, 92)
    # A dataset that fits into memory is decoded only once.
    assert judge(SLOW_DISK)[0].startswith("The train step")
    assert judge(measured, noise=0.05)[0].startswith("The input")
    assert judge(measured, noise=0.1)[0].startswith("The train step")
    assert stalls.describe(measured, 0.1).count("noise") == 6


def test_the_line_names_the_parts():
    assert stalls.describe(SLOW_DISK, NOISE) == (
        "Waiting for input: from decoded images in memory noise; from shards in the "
        "page cache 50.0%; from shards on the disk 75.0% (transfer noise, decode "
        "25.0%, disk 50.0%)."
    )


def test_noise_is_the_mean_distance_within_a_round():
    assert stalls.noise_of((90.0, 100.0), (110.0, 100.0)) == pytest.approx(0.1)
    # The machine's drift from round to round is none.
    assert stalls.noise_of((10.0, 100.0), (10.0, 100.0)) == 0
