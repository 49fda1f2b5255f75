"""The one way to measure: interleaved rounds, medians, the machine, one JSON schema.

Machines are noisy and drift, so the cases of a benchmark are interleaved, round by
round: what slows the machine slows them alike, and their ratios hold. A case may be
measured twice under two names to see how large a difference noise makes. A case of
another process is one of `benchmarks.programs`.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.files import atomic_write, output_errors
from support.hardware import cpu_info

SCHEMA = "celeba-benchmark"
VERSION = 1
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
#: Options that are paths of this machine, or change no number.
_NOT_RECORDED = ("data_dir", "work_dir", "peers_python", "write")
_PACKAGES = (
    "apache-beam keras numpy simplejpeg tensorflow jax torch torchvision".split()
)
#: More rounds than these tell little; a shorter turn is mostly its start and end.
_MOST_ROUNDS, _SHORTEST_TURN = 5, 0.3


@dataclasses.dataclass(frozen=True)
class Timed:
    """Units of work, and the seconds that they took by the case's own clock."""

    units: int
    seconds: float


#: Does some units of work, at least one.
Work = Callable[[int], Timed]


@dataclasses.dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
      name: unique within a benchmark.
      run: does the work once; returns its units, or `Timed` if not all time counts.
    """

    name: str
    run: Callable[[], int | Timed]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Rates of one case, units per second, one for each round.

    Attributes:
      name: of the case.
      samples: the rates.
      facts: what else is known of it, such as memory; name to value.
    """

    name: str
    samples: tuple[float, ...]
    facts: dict[str, float | str] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a fraction of the median."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def measure(
    cases: Sequence[Case], rounds: int = 5, warmup: int = 1
) -> list[Measurement]:
    """Runs every case once per round and drops the first `warmup` rounds.

    Raises:
      ValueError: no round is left, two cases share a name, or a case did nothing.
    """
    names = [case.name for case in cases]
    if rounds < 1 or warmup < 0 or len(set(names)) != len(names):
        raise ValueError(f"rounds={rounds}, warmup={warmup}, cases {names}")
    samples = {name: [] for name in names}
    for number in range(warmup + rounds):
        for case in cases:
            started = time.perf_counter()
            done = case.run()
            if not isinstance(done, Timed):
                done = Timed(done, time.perf_counter() - started)
            if done.units < 1:
                raise ValueError(f"{case.name} did {done.units} units of work")
            if number >= warmup:
                samples[case.name].append(done.units / done.seconds)
    return [Measurement(name, tuple(rates)) for name, rates in samples.items()]


def measure_within(
    works: Mapping[str, Work],
    seconds: float,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Measurement], int]:
    """Warms up each work, then measures all, in as many rounds as the time allows.

    Args:
      works: what to measure, by name.
      seconds: for all of it; it takes longer where one unit is longer than a turn.
      note: called with what is being done.

    Returns:
      the rates by name, units of `Timed` per second, and the number of rounds.
    """
    ends = time.perf_counter() + seconds
    paces = {}
    for name, work in works.items():
        note(f"warming up: {name}")
        work(1)  # compiles
        paces[name] = work(1).seconds
    left = max(0.0, ends - time.perf_counter()) / len(works)  # for each work
    rounds = min(max(1, int(left / _SHORTEST_TURN)), _MOST_ROUNDS)
    turn = max(left / rounds, _SHORTEST_TURN)
    note(f"{rounds} rounds, turns of {turn:.1f} s")
    cases = [paced(name, works[name], turn, paces[name]) for name in works]
    measured = measure(cases, rounds, warmup=0)
    return {one.name: one for one in measured}, rounds


def paced(name: str, work: Work, seconds: float, pace: float) -> Case:
    """A case of as many units as fit into some seconds.

    At first a unit takes `pace` seconds, afterwards what it took in the turn before.
    """

    def run() -> Timed:
        nonlocal pace
        units = max(1, round(seconds / max(pace, 1e-9)))
        done = work(units)
        pace = done.seconds / units
        return done

    return Case(name, run)


def repeated(do: Callable[[], int], before: Callable = lambda: None) -> Work:
    """Work that calls `do` once per unit, and before each of them, untimed, `before`.

    The units that count are the sum of what `do` returns.
    """

    def work(units: int) -> Timed:
        done, seconds = 0, 0.0
        for _ in range(units):
            before()
            started = time.perf_counter()
            done += do()
            seconds += time.perf_counter() - started
        return Timed(done, seconds)

    return work


def steps(do: Callable[[], Any], units: int, wait: Callable[[Any], Any]) -> Work:
    """Work that calls `do` in a row and waits for the last result only.

    Args:
      do: starts a step.
      units: that a step counts.
      wait: called with the last result; returns when the device has ended all steps.
    """

    def work(count: int) -> Timed:
        started = time.perf_counter()
        for _ in range(count):
            result = do()
        wait(result)
        return Timed(count * units, time.perf_counter() - started)

    return work


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios of two cases' samples.

    What slows the machine slows one round's cases alike.
    """
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def report(
    benchmark: str,
    unit: str,
    measurements: Sequence[Measurement],
    settings: Mapping[str, Any],
    keep: bool,
) -> None:
    """Prints a table of `document`; with `keep` writes it and prints the path."""
    result = document(benchmark, unit, measurements, settings)
    print(table(result))
    if keep:
        with output_errors(RESULTS):
            print(write(result))


def document(
    benchmark: str,
    unit: str,
    measurements: Sequence[Measurement],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The result as one JSON-serializable dict of the schema `SCHEMA`, `VERSION`.

    Args:
      benchmark: its name.
      unit: what the rates count, per second.
      measurements: what was measured.
      settings: options and facts; options that are paths are dropped.
    """
    now = datetime.datetime.now(datetime.UTC)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "code": _code_version(),
        "unit": f"{unit}/s",
        "hardware": hardware(),
        "versions": _versions(),
        "settings": {k: v for k, v in settings.items() if k not in _NOT_RECORDED},
        "cases": {
            one.name: {
                "median": one.median,
                "spread": one.spread,
                "samples": list(one.samples),
                "facts": one.facts,
            }
            for one in measurements
        },
    }


def check(result: Any) -> None:
    """Raises ValueError or KeyError if `result` is not of the schema."""
    if (result.get("schema"), result.get("version")) != (SCHEMA, VERSION):
        raise ValueError(f"schema {result.get('schema')} {result.get('version')}")
    datetime.datetime.fromisoformat(result["date"])
    for name, case in result["cases"].items():
        if case["median"] != statistics.median(case["samples"]):
            raise ValueError(f"{name}: median is not that of its samples")


def write(result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes a result as `<benchmark>-<date>.json`."""
    check(result)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['benchmark']}-{result['date'][:10]}.json"
    atomic_write(path, json.dumps(result, indent=1) + "\n")
    return path


def table(result: dict[str, Any]) -> str:
    """The cases of a result as a Markdown table."""
    cases = result["cases"].items()
    facts = dict.fromkeys(fact for _, case in cases for fact in case.get("facts", {}))
    rows = []
    for name, case in cases:
        values = [case.get("facts", {}).get(fact, "") for fact in facts]
        texts = [v if isinstance(v, str) else f"{v:,.4g}" for v in values]
        rows.append([name, rate(case["median"]), f"±{case['spread']:.0%}", *texts])
    return markdown(["case", result["unit"], "spread", *facts], rows)


def markdown(
    header: Sequence[str], rows: Iterable[Sequence[str]], pad: bool = True
) -> str:
    """A table in Markdown, all columns but the first to the right.

    Args:
      header: names of the columns.
      rows: cells.
      pad: align the text itself, for a terminal.
    """
    rows = [header, *rows]
    widths = [max(map(len, cells)) if pad else 3 for cells in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *others in [header, rule, *rows[1:]]:
        cells = map(str.rjust, others, widths[1:])
        lines.append(f"| {' | '.join([first.ljust(widths[0]), *cells])} |")
    return "\n".join(lines)


def rate(value: float) -> str:
    """4.268 -> "4.3", 95,356.2 -> "95,356"."""
    return f"{value:,.1f}" if value < 20 else f"{value:,.0f}"


def _code_version() -> str:
    """The commit, with "-dirty" if files differ from it; empty without Git."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError):
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()
    return ""


def hardware() -> dict[str, Any]:
    """The machine; `gpu`, the first that is used, is empty without one."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "gpu": _gpu(),
        "cpu": cpu_info("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(size / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _gpu() -> str:
    """The first GPU that the framework in use sees, empty without one."""
    if tensorflow := sys.modules.get("tensorflow"):
        if gpus := tensorflow.config.list_physical_devices("GPU"):
            details = tensorflow.config.experimental.get_device_details(gpus[0])
            return details.get("device_name", "GPU")
    elif jax := sys.modules.get("jax"):
        if (device := jax.devices()[0]).platform == "gpu":
            return device.device_kind
    return ""


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, those installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
