"""ResNet50's train step on a GPU, beside plain Keras and PyTorch, against targets.

    python -m benchmarks.gpu --data_dir=data/gpu-box/tfrecords --write

needs no TensorFlow: it runs on Keras' JAX backend. Everything takes turns in one run:
the step on images that are there ("ours", and the same "again" for the noise), with the
warp on the device ("warp"), and with images read from shards as in training ("input");
plain Keras' train_on_batch; and torchvision's network and the same network in PyTorch,
channels_last and compiled.

For a machine that has JAX, PyTorch and torchvision but no network, `make bench-gpu-box`
collects the packages beside them and a dataset of drawn faces in data/gpu-box. There:

    python3 -m pip install --no-index --no-deps --target=/tmp/site \\
        data/gpu-box/wheels/*.whl
    PYTHONPATH=/tmp/site python3 -m benchmarks.gpu --data_dir=data/gpu-box/tfrecords
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import harness, step
from benchmarks.step_cases import INPUT, OURS, PYTORCH, TORCHVISION, WARP
from support import command

REACHED, MISSED, UNKNOWN = "reached", "not reached", "not measurable"


@dataclasses.dataclass(frozen=True)
class GpuConfig(step.StepConfig):
    """What to measure; the targets are those of the defaults on one H200."""

    models: tuple[str, ...] = command.option(("resnet50",), "Architectures, or all.")
    sizes: tuple[int, ...] = command.option((224,), "Sides of the input, pixels.")
    precision: tuple[str, ...] = command.option(
        ("bfloat16",), "Some of auto, float32, bfloat16."
    )
    batch_sizes: tuple[str, ...] = command.option(
        ("128", "256", "512"), "Examples per step; auto looks for the fastest number."
    )
    round_seconds: float = command.option(1.0, "Length of a case's turn, seconds.")


@dataclasses.dataclass(frozen=True)
class Target:
    """What a machine should reach.

    Attributes:
      name: of the number.
      limit: that it should reach, or stay below.
      at_least: which of the two.
      value: the number; None where it could not be measured.
      noise: by how much the number scatters.
      why: it could not be measured.
    """

    name: str
    limit: float
    at_least: bool
    value: float | None
    noise: float = 0.0
    why: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return UNKNOWN
        reached = self.value >= self.limit if self.at_least else self.value < self.limit
        return REACHED if reached else MISSED

    def describe(self) -> str:
        """One line for the terminal."""
        wanted = f"wanted {'at least' if self.at_least else 'below'} {self.limit:,g}"
        if self.value is None:
            return f"{self.name}: {self.why}, {wanted}: {self.verdict}"
        close = abs(self.value - self.limit) < self.noise
        note = ", but within the noise" if close else ""
        found = f"{self.value:,.4g} ±{self.noise:,.2g}"
        return f"{self.name}: {found}, {wanted}: {self.verdict}{note}"


def main(argv: list[str]) -> None:
    # Keras reads it when it is first imported, by the check of the options.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    values = flags.FlagValues()
    command.define_flags(GpuConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(GpuConfig, values)
    result = step.measure(config)
    found = targets(result)
    result |= {
        "benchmark": f"gpu-{result['benchmark']}",
        "targets": [
            dataclasses.asdict(target) | {"verdict": target.verdict} for target in found
        ],
    }
    print(harness.table(result))
    for target in found:
        print(target.describe())
    if config.write:
        print(harness.write(result))


def targets(result: Mapping[str, Any]) -> list[Target]:
    """Compares a result of `step.measure` with what one H200 should reach.

    The step counts with the warp in it. Its rate and PyTorch's are each the best of the
    batch sizes; shares are those with the batch size that it trains fastest with.
    """
    tasks = _by_task(result["cases"])
    best = max(
        (cases for cases in tasks if WARP in cases),
        key=lambda cases: cases[WARP]["median"],
        default={},
    )
    rate = best.get(WARP) if result["hardware"]["gpu"] else None
    return [
        Target(
            "images/s",
            3000,
            True,
            rate and rate["median"],
            rate["median"] * rate["spread"] if rate else 0.0,
            "no GPU is used",
        ),
        _beside_torch(tasks, best),
        _share("warp", 0.03, best, OURS, WARP, "warp's share"),
        _share("input", 0.02, best, WARP, INPUT, "input stall"),
    ]


def _beside_torch(
    tasks: list[dict[str, dict[str, Any]]], best: Mapping[str, dict[str, Any]]
) -> Target:
    for name in (TORCHVISION, PYTORCH):
        found = [cases[name] for cases in tasks if name in cases]
        if found and best:
            other = max(found, key=lambda case: case["median"])
            ratio = best[WARP]["median"] / other["median"]
            noise = ratio * (best[WARP]["spread"] + other["spread"])
            return Target(f"times {name}'s rate", 1.0, True, ratio, noise)
    return Target("times PyTorch's rate", 1.0, True, None, why="no case of PyTorch")


def _share(
    of: str,
    limit: float,
    cases: Mapping[str, dict[str, Any]],
    without: str,
    beside: str,
    fact: str,
) -> Target:
    """What is slower with one thing more: of the case `beside`, not of `without`."""
    name = f"the {of}'s share of the step"
    if without not in cases or beside not in cases:
        remedy = ": skipped, or no --data_dir" if beside == INPUT else ""
        return Target(name, limit, False, None, why=f"no case {beside}{remedy}")
    noise = cases[without]["spread"] + cases[beside]["spread"]
    return Target(name, limit, False, cases[beside]["facts"][fact], noise)


def _by_task(cases: Mapping[str, dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """The cases that were measured side by side, by their short names."""
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    for name, case in cases.items():
        task, _, short = name.rpartition(", ")
        tasks.setdefault(task, {})[short] = case
    return list(tasks.values())


if __name__ == "__main__":
    command.run(main)
