"""Time and memory of the planner as the number of rows grows, on made-up annotations.

python -m benchmarks.planner --rows=202599,2000000,20000000 --write
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import statistics
from pathlib import Path

import numpy as np
from absl import flags

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import selection
from benchmarks import harness
from schemas import celeba
from support import command
from support.errors import usage_error

_IMAGES_PER_PERSON = 20  # as in CelebA: 202,599 images of 10,177 people
_SLICE = 1 << 20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclasses.dataclass(frozen=True)
class PlannerConfig:
    """What to measure."""

    rows: tuple[int, ...] = command.option(
        (202_599, 2_000_000), "Numbers of annotated images, one case each."
    )
    split: str = command.option("identity", "What splits go by, as in the build.")
    max_per_identity: int = command.option(0, "Images of one person at most.")
    rounds: int = command.option(3, "Measured rounds; one more warms up.")
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if self.rounds < 1 or not self.rows or min(self.rows) < 1000:
            raise usage_error(
                f"--rounds={self.rounds} or --rows={','.join(map(str, self.rows))} is "
                "too few.",
                "Use 1 round and 1000 rows or more.",
            )
        self.build()

    def build(self) -> BuildConfig:
        """The options of the plan."""
        return BuildConfig(split=self.split, max_per_identity=self.max_per_identity)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(PlannerConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(PlannerConfig, values)
    cases = [
        harness.Case(f"{rows:,} rows", _planner(make_rows(rows), config.build()))
        for rows in config.rows
    ]
    measured = harness.measure(cases, config.rounds)
    measured = [
        dataclasses.replace(measurement, facts=_facts(rows, measurement, config))
        for rows, measurement in zip(config.rows, measured, strict=True)
    ]
    settings = dataclasses.asdict(config)
    del settings["write"]
    result = harness.document("planner", "rows", measured, settings)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def make_rows(rows: int) -> selection.Rows:
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
    return selection.Rows(
        names=names.view("S12")[:, 0],
        sizes=np.full(rows, 7000),
        identities=identities,
        attributes=attributes,
        official=official,
        missing=np.array([], "S"),
    )


def _planner(rows: selection.Rows, build: BuildConfig):
    def do() -> int:
        selection.plan(rows, build)
        return len(rows)

    return do


def _facts(
    rows: int, measurement: harness.Measurement, config: PlannerConfig
) -> dict[str, float]:
    """Seconds a plan, and how many bytes a row it takes beside the annotations."""
    seconds = [rows / rate for rate in measurement.samples]
    facts = {"seconds": round(statistics.median(seconds), 3)}
    if not _RESET.exists():  # only Linux says what the peak was
        return facts
    # A process of its own: memory that an earlier case gave back is not counted twice.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        peak = pool.submit(functools.partial(_peak_bytes, rows, config)).result()
    return facts | {"bytes/row": round(peak / rows, 1)}


def _peak_bytes(rows: int, config: PlannerConfig) -> int:
    """How far the process's memory grows while it plans."""
    table = make_rows(rows)
    _RESET.write_text("5")  # from here on the peak counts anew
    before = _status("VmRSS")
    selection.plan(table, config.build())
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


if __name__ == "__main__":
    command.run(main)
