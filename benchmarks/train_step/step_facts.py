"""What stands beside the rate of a train step: sizes, costs, shares, ratios."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import batch_search, harness, turns
from benchmarks.train_step.step_cases import OURS, WARP


def parameters(said: Mapping[str, Mapping[str, float]]) -> str:
    """The parameters of every case, one word for cases that have the same."""
    cases: dict[str, list[str]] = {}
    for name, facts in said.items():
        text = f"{facts['parameters']:,.0f} ({facts['trainable']:,.0f} trainable)"
        cases.setdefault(text, []).append(name)
    return "; ".join(f"{text} in {', '.join(cases[text])}" for text in cases)


def add(
    label: str,
    batch_size: int,
    measured: Sequence[harness.Measurement],
    said: Mapping[str, Mapping[str, float]],
    rounds: Mapping[str, Sequence[turns.Round]],
) -> list[harness.Measurement]:
    """The measurements with the task in their names and their facts beside them.

    Args:
      label: of the task.
      batch_size: examples per step.
      measured: the rates of the cases, "ours" among them.
      said: name of a case -> what its program said of itself.
      rounds: name of a case -> what its program measured.
    """
    by_name = {one.name: one for one in measured}
    peak = _peak(list(rounds.values()))
    results = []
    for name, one in by_name.items():
        facts = {"batch": float(batch_size), **said[name]}
        facts["peak, GFLOP/s"] = peak / 1e9
        facts["MFU"] = one.median * said[name]["GFLOP/image"] * 1e9 / peak
        facts |= _costs(rounds[name])
        facts["of ours"] = ratio(one, by_name[OURS])
        if name == WARP:
            facts["warp's share"] = 1 - facts["of ours"]
        results.append(harness.Measurement(f"{label}, {name}", one.samples, facts))
    return results


def _peak(rounds: Sequence[Sequence[turns.Round]]) -> float:
    """FLOP/s of the machine's matrix products: the best program's, a median of rounds.

    Taken in the same rounds as the rates: a machine that is slow for a while is so for
    both.
    """
    return statistics.median(
        max(one.matmul for one in together) for together in zip(*rounds, strict=True)
    )


def ratio(one: harness.Measurement, other: harness.Measurement) -> float:
    """Of two rates: the median of the rounds' ratios."""
    ratios = (a / b for a, b in zip(one.samples, other.samples, strict=True))
    return statistics.median(ratios)


def _costs(rounds: Sequence[turns.Round]) -> dict[str, float]:
    """What the step took beside time on the device."""
    facts = {batch_search.MEMORY: rounds[-1].memory}
    if rounds[-1].device_memory:
        facts["GPU memory, MiB"] = rounds[-1].device_memory
    return facts
