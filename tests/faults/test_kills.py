"""A sample of what `make faults` tries whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.table import Row

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_kills_and_full_disks_lose_nothing():
    """In a program of its own: children are forked from it, before it has threads."""
    parts = ["kills", "disk", "parquet"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *parts, "--every=30"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    tried = {name: int(number) for name, number, *_ in rows}
    names = ("build with --overwrite", "build from Parquet files", "model card")
    assert {f"| killed: {name}" for name in names} <= tried.keys()
    assert all(number for name, number in tried.items() if "killed" in name)


def test_loss_makes_the_table_fail(capsys, monkeypatch):
    from tests.faults import __main__ as program

    lost = Row("a fault", 3, ["kill 2: nothing is there"], "nothing")
    monkeypatch.setattr(sys, "argv", ["faults", "made_up"])
    made_up = type(sys)("made_up")
    made_up.rows = lambda every: [lost]
    monkeypatch.setitem(sys.modules, "tests.faults.made_up", made_up)
    assert program.main() == 1
    printed = capsys.readouterr()
    assert "| a fault | 3 | 1 | nothing |" in printed.out
    assert "a fault: kill 2: nothing is there" in printed.err
