"""Images per second of the train step on a GPU: Keras on JAX next to torchvision.

    python -m benchmarks.gpu --write

needs no TensorFlow; `make bench-gpu-box` collects what else a machine without a network
lacks. In bfloat16 and with AdamW it trains on one batch that stays on the device:
"ours" on float32 images of the model's size; "ours, again", which shows the noise;
"with warp" on uint8 images of 178×218, the `Warp` layer in front; "torchvision" its own
network in PyTorch, channels_last and compiled. The cases are interleaved; ours calls
Keras' `fit`, which, unlike `train_on_batch`, does not wait for each step.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import sys
import timeit
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks import harness, programs
from benchmarks.options import POSITIVE, Options
from benchmarks.train_step.cases import (
    DROPOUT,
    LEARNING_RATE,
    OURS,
    SMOOTHING,
    TORCH,
    TORCHVISION,
    WEIGHT_DECAY,
    backend,
)
from support import command, memory
from support.errors import UserError, usage_error
from trainer.config import INPUT_SIZES
from trainer.loop import wakeup

AGAIN, WARP = "ours, again", "with warp"


@dataclasses.dataclass(frozen=True)
class GpuConfig(Options):
    """Models and sizes to measure."""

    models: tuple[str, ...] = command.option(("resnet50",), "Architectures.")
    size: int = command.option(224, "Side of the models' input, pixels.", INPUT_SIZES)
    batch_sizes: tuple[int, ...] = command.option(
        (128, 256, 512), "Images per step.", POSITIVE
    )
    round_seconds: float = command.option(2.0, "Length of a case's turn, seconds.")


def main(argv: list[str]) -> None:
    config = command.parse_config(GpuConfig, argv)
    os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
    backend("jax")
    measured = []
    for model, batch_size in itertools.product(config.models, config.batch_sizes):
        try:
            with wakeup.Watch(), memory.named("Try it alone, or a smaller one."):
                measured += _measure(config, model, batch_size)
        except UserError as error:  # the other batch sizes may fit
            print(f"skipped: {model} batch {batch_size}: {error}", flush=True)
    if not measured:
        raise usage_error("Nothing could be measured.", "See the lines above.")
    settings = dataclasses.asdict(config)
    harness.report("gpu", "images", measured, settings, config.write)
    for model in config.models:
        print(*targets(model, measured), sep="\n")


def targets(model: str, measured: Iterable[harness.Measurement]) -> Iterator[str]:
    """A model's fastest cases in words, with what ResNet50 should reach."""
    fastest: dict[str, harness.Measurement] = {}
    for one in sorted(measured, key=lambda one: one.median):
        task, _, case = one.name.partition(", ")
        if task.split()[0] == model:
            fastest[case] = one
    if WARP in fastest:
        rate = fastest[WARP].median
        fraction = 1 - fastest[WARP].facts["of ours"]
        yield f"{model}: {rate:,.0f} images/s with warp; on an H200 at least 3,000"
        if TORCHVISION in fastest:
            ratio = rate / fastest[TORCHVISION].median
            yield f"{model}: {ratio:.2f} times torchvision's rate; at least 1"
        yield f"{model}: the warp takes {fraction:.1%} of the step; below 3%"


def _measure(config: GpuConfig, model: str, batch: int) -> list[harness.Measurement]:
    label = f"{model} {config.size} bfloat16 batch {batch}"
    task = dataclasses.asdict(config) | {"model": model, "batch_size": batch}
    task |= {"case": TORCHVISION, "precision": "bfloat16"}
    words = [sys.executable, "-m", TORCH, json.dumps(task)]
    with contextlib.ExitStack() as stack:
        cases = _cases(config, model, batch)
        try:
            torch = stack.enter_context(programs.Program(words, {}))
            cases.append(harness.Case(TORCHVISION, torch.run))
        except programs.ProgramFailed as error:
            print(f"skipped: {TORCHVISION}, {label}: {error}", flush=True)
        measured = harness.measure(cases, config.rounds)
    for one in measured:
        one.facts["of ours"] = harness.ratio(one.samples, measured[0].samples)
    return [dataclasses.replace(one, name=f"{label}, {one.name}") for one in measured]


def _cases(config: GpuConfig, model: str, batch: int) -> list[harness.Case]:
    """Ours, compiled: one network, alone and behind the warp."""
    import keras

    from trainer import models
    from trainer.augmentation import Warp

    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    network = models.build(model, config.size, dropout=DROPOUT)
    rng = np.random.default_rng(0)
    labels = keras.ops.convert_to_tensor(rng.integers(0, 2, (batch, 1)), "float32")

    def case(name: str, network: Any, shape: tuple[int, ...], dtype: str):
        images = keras.ops.convert_to_tensor(rng.uniform(0, 255, shape), dtype)
        optimizer = keras.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY)
        network.compile(optimizer, keras.losses.BinaryCrossentropy(True, SMOOTHING))

        def fit(steps: int) -> int:
            batches = ((images, labels) for _ in itertools.count())
            network.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
            return steps * batch

        fit(1)  # compiles
        seconds = timeit.timeit(lambda: fit(2), number=1) / 2
        steps = max(1, math.ceil(config.round_seconds / seconds))
        return harness.Case(name, lambda: fit(steps))

    faces = keras.Input((218, 178, 3), dtype="uint8")
    ours = case(OURS, network, (batch, config.size, config.size, 3), "float32")
    again = dataclasses.replace(ours, name=AGAIN)
    with_warp = keras.Sequential([faces, Warp(config.size), network])
    return [ours, again, case(WARP, with_warp, (batch, 218, 178, 3), "uint8")]


if __name__ == "__main__":
    command.run(main)
