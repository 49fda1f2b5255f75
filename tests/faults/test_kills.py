"""A sample of what `make faults` tries whole."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "every", "row"),
    [
        ("kills", 7, "| killed: build with --overwrite | 1"),
        ("parquet", 15, "| Parquet file: a byte changed | 20 | 0 |"),
    ],
)
def test_nothing_is_lost(part, every, row):
    """In a program of its own: children are forked from it, before it has threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", part, f"--every={every}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert row in done.stdout
