"""Time and memory of the planner as the number of rows grows, on random annotations.

python -m benchmarks.planner --rows=202599,2000000,20000000 --write
"""

import dataclasses
import math
import tracemalloc
from collections.abc import Callable

import numpy as np

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import selection
from beam_pipelines.sources.rows import Rows
from benchmarks import harness
from benchmarks.options import POSITIVE, Options
from schemas import celeba
from support import command

_IMAGES_PER_PERSON = 20  # as in CelebA: 202,599 images of 10,177 people


@dataclasses.dataclass(frozen=True)
class PlannerConfig(Options):
    """Rows to plan."""

    rows: tuple[int, ...] = command.option(
        (202_599, 2_000_000),
        "Numbers of annotated images, one case each.",
        (1000, math.inf),
    )
    rounds: int = command.option(3, "Measured rounds; one more warms up.", POSITIVE)


def main(argv: list[str]) -> None:
    config = command.parse_config(PlannerConfig, argv)
    cases = [
        harness.Case(f"{rows:,} rows", _planner(make_rows(rows)))
        for rows in config.rows
    ]
    measured = harness.measure(cases, config.rounds)
    for rows, one in zip(config.rows, measured, strict=True):
        one.facts["seconds"] = round(rows / one.median, 3)
        one.facts["bytes/row"] = round(_peak_bytes(rows) / rows, 1)
    settings = dataclasses.asdict(config)
    harness.report("planner", "rows", measured, settings, config.write)


def make_rows(rows: int) -> Rows:
    """Annotations of as many images, 20 a person, every attribute in half of them."""
    rng = np.random.default_rng(0)
    people = -(-rows // _IMAGES_PER_PERSON)
    numbers = np.char.zfill(np.arange(rows).astype("S8"), 8)
    width = len(celeba.ATTRIBUTES) // 8
    return Rows(
        names=np.char.add(numbers, b".jpg"),
        sizes=np.full(rows, 7000),
        identities=rng.integers(0, people, rows, np.int32),
        attributes=rng.integers(0, 256, (rows, width), np.uint8),
        official=rng.choice(3, rows, p=(0.8, 0.1, 0.1)).astype(np.int8),
        missing=np.array([], "S"),
    )


def _planner(rows: Rows) -> Callable[[], int]:
    def run() -> int:
        selection.plan(rows, BuildConfig(split="identity"))
        return len(rows)

    return run


def _peak_bytes(rows: int) -> int:
    """The most that planning allocates, the annotations excluded."""
    plan = _planner(make_rows(rows))
    tracemalloc.start()
    plan()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    command.run(main)
