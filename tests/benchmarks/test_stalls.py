"""What limits training, from made-up rates."""

import dataclasses
import re

import pytest

from benchmarks.ladder import stalls
from benchmarks.ladder.stalls import CACHED, COLD, WARM, Rates, Setting

SETTING = Setting(
    gpu=False,
    xla=False,
    precision="float32",
    auto_precision="float32",
    batch_size=32,
    matmul_share=0.5,
    cache_mb=700,
    usual=CACHED,
    cache_fits=True,
)
NOISE = 0.01
NO_STALL = Rates(100, 99.5, 99.4, 99.3)
#: Per image 10 ms of step; 0, 10 and 20 ms more.
SLOW_DISK = Rates(100, 100, 50, 25)
SLOW_DECODE = Rates(100, 100, 50, 50)


def judge(rates, noise=NOISE, **changes):
    return stalls.verdict(rates, dataclasses.replace(SETTING, **changes), noise)


def test_shares_are_those_of_the_time_per_image():
    assert SLOW_DISK.waiting(WARM) == 0.5
    assert SLOW_DISK.waiting(COLD) == 0.75
    assert SLOW_DISK.shares(COLD) == {
        "transfer": pytest.approx(0),
        "decode": pytest.approx(0.25),
        "disk": pytest.approx(0.5),
    }
    assert SLOW_DISK.shares(WARM) == {"transfer": 0, "decode": pytest.approx(0.5)}
    assert Rates(100, 101, 101, 101).waiting(COLD) == 0


def test_nothing_is_suggested_when_the_step_is_the_limit():
    found = judge(NO_STALL)
    assert found.suggestion == "nothing"
    assert found.sentence == (
        "The train step is the limit: from decoded images in memory, training reaches "
        "100% of its rate on a batch that is there already."
    )
    assert "50% of this machine's matrix products" in found.reason


@pytest.mark.parametrize(
    ("changes", "suggestion"),
    [
        ({"gpu": True, "auto_precision": "bfloat16"}, "--precision=auto"),
        ({"gpu": True}, "--xla=on"),
        ({"gpu": True, "xla": True, "matmul_share": 0.1}, "--batch_size=64"),
        ({"gpu": True, "xla": True}, "nothing"),
        ({"matmul_share": 0.1}, "nothing"),
    ],
)
def test_what_makes_the_step_faster(changes, suggestion):
    assert judge(NO_STALL, **changes).suggestion == suggestion


@pytest.mark.parametrize(
    ("rates", "changes", "blamed", "suggestion"),
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
        (Rates(100, 60, 60, 60), {}, "to the device", "--batch_size=64"),
        (Rates(100, 60, 55, 55), {"usual": WARM}, "to the device", "--batch_size=64"),
    ],
)
def test_who_is_blamed_for_waiting(rates, changes, blamed, suggestion):
    found = judge(rates, **changes)
    assert found.suggestion == suggestion
    words = f"{found.sentence} {found.reason}"
    assert words.startswith("The input is the limit")
    assert re.search(blamed, words)


def test_decoding_is_no_limit_for_images_that_stay_decoded():
    assert judge(SLOW_DISK).sentence.startswith("The train step is the limit")


def test_a_difference_below_the_noise_is_none():
    rates = Rates(100, 92, 92, 92)
    assert judge(rates, noise=0.05).sentence.startswith("The input")
    assert judge(rates, noise=0.1).sentence.startswith("The train step")
    assert stalls.describe(rates, 0.1).count("noise") == 3


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
