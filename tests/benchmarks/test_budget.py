"""How work is made to fit into a given time."""

import pytest

from benchmarks import budget
from benchmarks.harness import Timed
from benchmarks.ladder import pace
from support.errors import ExitCode, UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("1h", 3600), ("90", 90), ("1.5m", 90), (" 2M ", 120)],
)
def test_durations(text, seconds):
    assert budget.parse_duration(text, "budget") == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "-5m", "5 m 3", "5d", "nan", "inf"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UserError, match="--budget=.* is no duration") as raised:
        budget.parse_duration(text, "budget")
    assert raised.value.exit_code == ExitCode.USAGE


def test_turns_share_the_time():
    assert budget.plan([0.1] * 4, 40.0) == budget.Plan(5, 2.0, True)
    # One case cannot do less than 4 s: the others share what it leaves.
    assert budget.plan([4.0, 0.1, 0.1], 30.0) == budget.Plan(5, 1.0, True)


def test_rounds_go_before_turns_become_too_short():
    assert budget.plan([0.1] * 10, 10.0) == budget.Plan(3, pytest.approx(1 / 3), True)


def test_a_budget_that_is_too_short_still_measures_once():
    assert budget.plan([5.0, 5.0], 3.0) == budget.Plan(1, 0.3, False)
    assert budget.plan([0.1], 0.0) == budget.Plan(1, 0.3, False)


class Clock:
    """Time that passes only when work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        def do(units):
            self.now += seconds * units
            return Timed(units, seconds * units)

        return do


def test_every_work_is_measured_within_the_time():
    clock = Clock()
    works = {"quick": clock.work(0.01), "slow": clock.work(0.5)}
    measured, plan = pace.measure(works, 30.0, clock=clock)
    assert plan.rounds == 5
    assert {name: found.median for name, found in measured.items()} == {
        "quick": pytest.approx(100),
        "slow": pytest.approx(2),
    }
    assert clock.now == pytest.approx(30, rel=0.1)
