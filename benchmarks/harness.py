"""The one way to measure: interleaved samples, medians, hardware, one JSON schema.

Machines are noisy and drift, so the cases of a benchmark take turns, round by round:
what slows the machine slows them alike, and their ratios hold. The first case may be
measured twice under two names to see how large a difference noise makes.
"""

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.files import atomic_write
from support.hardware import cpu_info

SCHEMA = "celeba-benchmark"
VERSION = 1
RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "apache-beam",
    "keras",
    "numpy",
    "simplejpeg",
    "tensorflow",
    "jax",
    "torch",
    "torchvision",
)
#: Of the processor's flags those that decide how fast decoding and products are.
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
)
_ASK_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version")
_ASK_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Timed:
    """Units of work, and the seconds that they took by the case's own clock."""

    units: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
      name: unique within a benchmark.
      run: does the work once and returns how many units it did, or `Timed` if not all
        of its time counts.
    """

    name: str
    run: Callable[[], int | Timed]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Rates of one case, units per second, one for each round.

    Attributes:
      name: of the case.
      samples: the rates.
      facts: other numbers that were measured of it, such as memory; name to value.
    """

    name: str
    samples: tuple[float, ...]
    facts: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def measure(
    cases: Sequence[Case], rounds: int = 5, warmup: int = 1
) -> list[Measurement]:
    """Runs every case once per round, in turns, and drops the first `warmup` rounds.

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


def document(
    benchmark: str,
    unit: str,
    measurements: Sequence[Measurement],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The result as one JSON-serializable dict of the schema `SCHEMA`, `VERSION`.

    Args:
      benchmark: its name.
      unit: what the rates count, per second.
      measurements: what `measure` returned.
      settings: what was measured: sizes, batch, number of images.
    """
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "unit": f"{unit}/s",
        "hardware": hardware(),
        "versions": versions(),
        "settings": settings,
        "cases": {
            measurement.name: {
                "median": measurement.median,
                "spread": measurement.spread,
                "samples": list(measurement.samples),
                "facts": measurement.facts,
            }
            for measurement in measurements
        },
    }


def check(result: Any) -> None:
    """Raises ValueError, naming the field, if `result` is not of the schema."""
    fields = {
        "schema": str,
        "version": int,
        "benchmark": str,
        "date": str,
        "unit": str,
        "hardware": dict,
        "versions": dict,
        "settings": dict,
        "cases": dict,
    }
    for name, kind in fields.items():
        if not isinstance(result.get(name), kind):
            raise ValueError(f"{name}: expected {kind.__name__}")
    if (result["schema"], result["version"]) != (SCHEMA, VERSION):
        raise ValueError(f"schema {result['schema']} {result['version']}")
    datetime.datetime.fromisoformat(result["date"])
    for name, case in result["cases"].items():
        measurement = Measurement(name, tuple(case["samples"]))
        for field in ("median", "spread"):
            if abs(case[field] - getattr(measurement, field)) > 1e-9 * case["median"]:
                raise ValueError(f"{name}: {field} is not that of its samples")
        for fact, value in case.get("facts", {}).items():
            if not isinstance(value, int | float):
                raise ValueError(f"{name}: {fact} is not a number")


def write(result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes a result as `<benchmark>-<date>.json`."""
    check(result)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['benchmark']}-{result['date'][:10]}.json"
    atomic_write(path, json.dumps(result, indent=1) + "\n")
    return path


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    cases = result["cases"]
    facts = list(dict.fromkeys(key for case in cases.values() for key in _facts(case)))
    columns = ["case", result["unit"], "spread", *facts]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    for name, case in cases.items():
        cells = [name, rate(case["median"]), f"±{case['spread']:.0%}"]
        cells += [
            f"{_facts(case)[key]:,.4g}" if key in _facts(case) else "" for key in facts
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rate(value: float) -> str:
    """4.268 -> "4.3", 95,356.2 -> "95,356"."""
    return f"{value:,.1f}" if value < 20 else f"{value:,.0f}"


def _facts(case: dict[str, Any]) -> dict[str, float]:
    return case.get("facts", {})  # older results have none


def hardware() -> dict[str, Any]:
    """What the machine is; `gpu`, the first that is used, is empty without one."""
    name = _gpu()
    memory, driver = _gpu_memory_and_driver(name)
    flags = cpu_info("flags").split()
    return {
        "gpu": name,
        "gpu_memory_gib": memory,
        "gpu_driver": driver,
        "cpu": cpu_info("model name") or platform.processor(),
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _gpu() -> str:
    """The first GPU that the frameworks in use see, empty without one."""
    if tensorflow := sys.modules.get("tensorflow"):
        if gpus := tensorflow.config.list_physical_devices("GPU"):
            details = tensorflow.config.experimental.get_device_details(gpus[0])
            return details.get("device_name", "GPU")
    elif jax := sys.modules.get("jax"):
        if (device := jax.devices()[0]).platform == "gpu":
            return device.device_kind
    elif torch := sys.modules.get("torch"):
        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    return ""


def _gpu_memory_and_driver(name: str) -> tuple[float, str]:
    """GiB and the driver's version, as NVIDIA's tool tells; 0 and "" without it."""
    if not name:
        return 0.0, ""
    words = [*_ASK_NVIDIA, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
        _, mebibytes, driver = done.stdout.splitlines()[0].split(", ")
        return round(float(mebibytes) / 1024, 1), driver
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0.0, ""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, those installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
