"""A sample of what `make faults` tries whole."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_before_a_change_of_the_disk_nothing_is_lost():
    """In a program of its own: children are forked from it, before it has threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "kills", "--every=7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| killed: build with --overwrite | 1" in done.stdout
