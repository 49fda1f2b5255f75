"""Measuring many kinds of work in turns, within a given time."""

import time
from collections.abc import Callable, Mapping

from benchmarks import budget, harness
from benchmarks.harness import Measurement, Timed
from benchmarks.ladder.limits import Work


def measure(
    works: Mapping[str, Work],
    seconds: float,
    note: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, Measurement], budget.Plan]:
    """Warms up each work, then measures all, round by round.

    Args:
      works: what to measure, by name.
      seconds: for all of it; it takes longer if the least that can be done does.
      note: told what is being done.
      clock: seconds.

    Returns:
      the rates by name, units of `Timed` per second, and how the time was shared.
    """
    ends = clock() + seconds
    paces, costs = {}, {}
    for name, work in works.items():
        note(f"warming up: {name}")
        work(1)  # compiles
        started = clock()
        paces[name] = work(1).seconds
        costs[name] = clock() - started
    plan = budget.plan(list(costs.values()), max(0.0, ends - clock()))
    note(f"{plan.rounds} rounds, turns of {plan.turn_seconds:.1f} s")
    cases = [
        harness.Case(name, _turn(work, paces[name], plan.turn_seconds))
        for name, work in works.items()
    ]
    measured = harness.measure(cases, plan.rounds, warmup=0)
    return {measurement.name: measurement for measurement in measured}, plan


def _turn(work: Work, pace: float, seconds: float) -> Callable[[], Timed]:
    """One turn: as many units as fit by the pace of the turn before."""

    def take() -> Timed:
        nonlocal pace
        units = max(1, round(seconds / max(pace, 1e-9)))
        done = work(units)
        pace = done.seconds / units
        return done

    return take
