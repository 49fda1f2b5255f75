"""The batch size that a machine trains fastest with, found by doubling."""

import dataclasses
import time
from collections.abc import Callable

from benchmarks.harness import Measurement
from benchmarks.programs import ProgramFailed
from support.hardware import available_memory

#: Name of the fact that says what a measurement's process took, MiB.
MEMORY = "memory, MiB"
#: Rates that differ by less are called the same, however little their samples scatter.
LEAST_NOISE = 0.02


@dataclasses.dataclass(frozen=True)
class Search:
    """The best batch size, the measurement of each one tried, why the search ended."""

    best: int
    tried: dict[int, Measurement]
    ended: str


def search(
    measure: Callable[[int], Measurement], first: int, limit_seconds: float
) -> Search:
    """Doubles the batch size as long as that trains faster.

    A first one that does not fit into memory is halved until it does.

    Args:
      measure: measures one batch size; raises ProgramFailed where it cannot.
      first: the batch size to begin with.
      limit_seconds: begins with none larger that would probably end later.

    Raises:
      ProgramFailed: nothing could be measured: a batch of one does not fit either, or
        another reason than memory.
    """
    began, size, best, tried = time.monotonic(), first, first, {}
    failed: dict[int, ProgramFailed] = {}
    while size not in failed:
        started = time.monotonic()
        try:
            tried[size] = measure(size)
        except ProgramFailed as error:
            failed[size] = error
            if not tried:
                if not error.out_of_memory or size == 1:
                    raise
                size //= 2
            continue
        if len(tried) > 1 and not _faster(tried[size], tried[best]):
            return Search(best, tried, f"batch {size} is no faster")
        best, ended = size, time.monotonic()
        if ended - began + 2 * (ended - started) > limit_seconds:
            return Search(best, tried, f"the time limit, {limit_seconds:g} s")
        # The kernel might end another program than the one that takes too much.
        if 2 * tried[size].facts.get(MEMORY, 0) * 2**20 > available_memory():
            return Search(best, tried, f"batch {2 * size} might not fit into memory")
        size *= 2
    return Search(best, tried, f"batch {size}: {failed[size]}")


def _faster(one: Measurement, other: Measurement) -> bool:
    """Whether one rate is higher than another by more than noise."""
    noise = max(LEAST_NOISE, one.spread, other.spread)
    return one.median > other.median * (1 + noise)
