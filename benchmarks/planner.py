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
from schemas import celeba
from support import command

_IMAGES_PER_PERSON = 20  # as in CelebA: 202,599 images of 10,177 people
_SLICE = 1 << 20


@dataclasses.dataclass(frozen=True)
class PlannerConfig(harness.Options):
    """Rows and options of the plan."""

    rows: tuple[int, ...] = command.option(
        (202_599, 2_000_000),
        "Numbers of annotated images, one case each.",
        (1000, math.inf),
    )
    split: str = command.option("identity", "The kind of split, as in the build.")
    max_per_identity: int = command.option(0, "Images of one person at most.")
    rounds: int = command.option(
        3, "Measured rounds; one more warms up.", harness.POSITIVE
    )

    def __post_init__(self):
        super().__post_init__()
        self.build()

    def build(self) -> BuildConfig:
        """The options of the plan."""
        return BuildConfig(split=self.split, max_per_identity=self.max_per_identity)


def main(argv: list[str]) -> None:
    config = command.parse_config(PlannerConfig, argv)
    measured = harness.measure(
        [
            harness.Case(f"{rows:,} rows", _planner(make_rows(rows), config.build()))
            for rows in config.rows
        ],
        config.rounds,
    )
    for rows, one in zip(config.rows, measured, strict=True):
        one.facts["seconds"] = round(rows / one.median, 3)
        one.facts["bytes/row"] = round(_peak_bytes(rows, config.build()) / rows, 1)
    settings = dataclasses.asdict(config)
    harness.report("planner", "rows", measured, settings, config.write)


def make_rows(rows: int) -> Rows:
    """Annotations of as many images, 20 a person, every attribute in half of them.

    They are made slice by slice, so that making them takes little more memory than
    they do.
    """
    names = np.empty((rows, 12), np.uint8)
    identities = np.empty(rows, np.int32)
    attributes = np.empty((rows, len(celeba.ATTRIBUTES) // 8), np.uint8)
    official = np.empty(rows, np.int8)
    rng = np.random.default_rng(0)
    people = -(-rows // _IMAGES_PER_PERSON)
    names[:, 8:] = np.frombuffer(b".jpg", np.uint8)
    for start in range(0, rows, _SLICE):
        part = slice(start, min(start + _SLICE, rows))
        numbers = np.arange(part.start, part.stop)
        for digit in range(8):
            names[part, 7 - digit] = ord("0") + numbers // 10**digit % 10
        identities[part] = rng.integers(0, people, len(numbers))
        attributes[part] = rng.integers(0, 256, attributes[part].shape, np.uint8)
        official[part] = rng.choice(3, len(numbers), p=(0.8, 0.1, 0.1))
    return Rows(
        names=names.view("S12")[:, 0],
        sizes=np.full(rows, 7000),
        identities=identities,
        attributes=attributes,
        official=official,
        missing=np.array([], "S"),
    )


def _planner(rows: Rows, build: BuildConfig) -> Callable[[], int]:
    def run() -> int:
        selection.plan(rows, build)
        return len(rows)

    return run


def _peak_bytes(rows: int, build: BuildConfig) -> int:
    """The most that planning allocates, the annotations excluded."""
    table = make_rows(rows)
    tracemalloc.start()
    selection.plan(table, build)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    command.run(main)
