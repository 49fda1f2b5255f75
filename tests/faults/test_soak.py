"""The watch over memory, on programs that leak and on a short training."""

import signal
import sys

import pytest

from tests.faults import soak

PROGRAM = """
import os, sys, threading, time
open(sys.argv[1], "w").close()
kept = []
while True:
    for _ in range(5):
        KEEP
    time.sleep(0.02)
"""
LEAKS = {
    "megabytes": "kept.append(b'1' * 300_000)",
    "descriptors": "kept.append(open(os.devnull))",
    "threads": "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
}


@pytest.mark.parametrize("name", [*LEAKS, ""])
def test_growth_is_noticed(name, tmp_path):
    script, begun = PROGRAM.replace("KEEP", LEAKS.get(name, "pass")), tmp_path / "begun"
    words = [sys.executable, "-c", script, str(begun)]
    samples, code, text = soak.watch(words, 0.8, str(begun))
    assert code == -signal.SIGTERM and not text
    grown = [line.split()[0] for line in soak.growth(samples)]
    assert name in grown if name else not grown


def test_program_that_fails_early_is_noticed():
    samples, code, text = soak.watch([sys.executable, "-c", "raise OSError"], 1)
    assert soak.growth(samples) and code == 1 and "OSError" in text


@pytest.mark.slow
def test_short_build_is_watched_until_it_is_stopped(tmp_path):
    row = soak.build_for(4, tmp_path)
    assert row.tried >= 20
    # Seconds are no time to warm up: memory may still grow.
    assert not [what for what in row.lost if "ended" in what]
