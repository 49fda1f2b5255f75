"""The stages of a training run, each with its upper bound."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks import flops, harness
from benchmarks.harness import Measurement, Work
from benchmarks.stages import bounds, stalls
from benchmarks.stages.config import StagesConfig
from benchmarks.stages.device import Parts, long_run, training
from benchmarks.stages.host import Records, batching, part_of, shard_paths
from benchmarks.stages.stalls import STEP
from support.errors import usage_error
from support.hardware import available_memory
from support.pool import cores
from trainer.data import open_dataset
from trainer.data.dataset import splits_that_fit
from trainer.loop import runtime

AGAIN = ", again"
_READ, _COLD_READ = "sequential read", "sequential read, cold"
BOUND, FRACTION = "upper bound", "fraction of it"
_FLOAT_BYTES = 4
#: Cold reads that reach more of the cached ones are probably not cold.
_COLD = 0.8
#: The fraction of the free memory that decoded images may take.
_CACHE_FRACTION = 0.6


class Bound(NamedTuple):
    """An upper bound: a name, and what makes its work; None if a stage is the bound."""

    name: str
    make: Callable[[], Work] | None = None


class Stage(NamedTuple):
    """Work of which images are the units; one takes `per_image` of the bound's."""

    name: str
    work: Work
    bound: Bound
    per_image: float = 1.0


class Breakdown:
    """The stages for some options, ready to be measured.

    Raises:
      UserError: none of the chosen stages exists on this device (exit 2).

    Attributes:
      stages: in the order in which an image meets them.
      doubled: the stage that is measured twice, to see the noise.
    """

    def __init__(self, config: StagesConfig):
        self.config = config
        self._dataset = open_dataset(config.data_dir)
        self._part = part_of(self._dataset)
        train = config.train_config()
        auto = dataclasses.replace(train, precision="auto")
        self._auto_precision = runtime.prepare(auto).precision
        self._parts = Parts.build(train, self._part)
        self._records = Records(self._part)
        self._paths = shard_paths(self._part)
        self.stages = list(self._stages())
        if not self.stages:
            raise usage_error(
                f"--stages={','.join(config.stages)} leaves nothing to measure here.",
                "Add another stage, or all.",
            )
        names = [stage.name for stage in self.stages]
        self.doubled = STEP if STEP in names else names[0]

    @property
    def works(self) -> dict[str, Work]:
        """The stages, one of them again, and their upper bounds."""
        works = {stage.name: stage.work for stage in self.stages}
        works[self.doubled + AGAIN] = works[self.doubled]
        for bound in (stage.bound for stage in self.stages):
            if bound.make and bound.name not in works:
                works[bound.name] = bound.make()
        return works

    def measurements(self, measured: Mapping[str, Measurement]) -> list[Measurement]:
        """Rates of the stages, images/s, with their upper bounds as facts."""
        results = []
        for stage in self.stages:
            one = measured[stage.name]
            bound = measured[stage.bound.name].median / stage.per_image
            facts = {BOUND: bound, FRACTION: one.median / bound}
            results.append(dataclasses.replace(one, facts=facts))
        return [*results, measured[self.doubled + AGAIN]]

    def table(self, results: Mapping[str, Measurement]) -> str:
        """The stages as a table in Markdown."""
        rows = [
            [
                stage.name,
                harness.rate((one := results[stage.name]).median),
                f"±{one.spread:.0%}",
                f"{harness.rate(one.facts[BOUND])} ({stage.bound.name})",
                f"{one.facts[FRACTION]:.0%}",
            ]
            for stage in self.stages
        ]
        return harness.markdown(["stage", "images/s", "spread", BOUND, FRACTION], rows)

    def cached_anyway(self, measured: Mapping[str, Measurement]) -> bool:
        """Tells whether rates that are called cold seem not to be."""
        cold, cached = measured.get(_COLD_READ), measured.get(_READ)
        return bool(cold) and cold.median >= _COLD * cached.median

    def settings(self, measured: Mapping[str, Measurement]) -> dict[str, Any]:
        """The data, the machine's settings, and the bounds in their own units."""
        cases = {stage.bound.name for stage in self.stages if stage.bound.make}
        return {
            "image_shape": list(self._part.manifest.image_shape),
            "images": self._part.manifest.num_examples("train"),
            "record_bytes": round(self._records.record_bytes),
            "effective": self._parts.job.runtime.describe(),
            "bounds_per_second": {
                case: measured[case].median for case in sorted(cases)
            },
        }

    def setting(self, step: Measurement) -> stalls.Setting:
        """Conditions for a suggestion, from the train step's rate among others."""
        effective, manifest = self._parts.job.runtime, self._dataset.manifest
        images = sum(manifest.num_examples(split) for split in ("train", "validation"))
        cached = images * math.prod(manifest.image_shape)
        free = available_memory()
        usual = stalls.COLD
        if "train" in splits_that_fit(manifest, -1):
            usual = stalls.CACHED
        elif sum(shard.bytes for shard in manifest.split("train")) < free:
            usual = stalls.WARM
        return stalls.Setting(
            gpu=self._parts.gpu,
            xla=effective.xla,
            precision=effective.precision,
            auto_precision=self._auto_precision,
            batch_size=self.config.batch_size,
            matmul_fraction=step.facts[FRACTION],
            cache_mb=math.ceil(cached / 1e6),
            usual=usual,
            cache_fits=cached < _CACHE_FRACTION * free,
        )

    def _stages(self) -> Iterator[Stage]:
        """The chosen stages, from the shard to the evaluated image."""
        parts, records, job = self._parts, self._records, self._parts.job
        shape = self._part.manifest.image_shape
        pixels, size = math.prod(shape), records.record_bytes
        read, cold = (
            functools.partial(bounds.sequential_read, self._paths, forgotten)
            for forgotten in (False, True)
        )
        copy = Bound("memory copy", bounds.memory_copy)
        device_copy = Bound("device memory copy", bounds.device_copy)
        to_device = Bound("host to device, one piece", bounds.to_device)
        jpeg = Bound(
            f"libjpeg-turbo, {cores()} cores",
            functools.partial(bounds.libjpeg, records.jpegs, shape),
        )
        # A copy reads every byte and writes it.
        warped = (pixels + 3 * self.config.input_size**2 * _FLOAT_BYTES) / 2
        forward, product = flops.forward(job.training_model), self._matmul()
        batches = batching(long_run(job))
        step, trained = parts.step(), flops.training(job.training_model)
        # Whatever the training's precision is, evaluation is in float32.
        evaluation = (parts.evaluate(), self._matmul("float32"))
        stages = {
            "read": [
                ("read shards", records.reading(False), Bound(_READ, read), size),
                (
                    "read shards, cold",
                    records.reading(True),
                    Bound(_COLD_READ, cold),
                    size,
                ),
            ],
            "parse": [("parse", records.parsing, copy, size)],
            "decode": [("decode", records.decoding, jpeg)],
            "batch": [("read, parse, decode, batch", batches, jpeg)],
            "transfer": [],
            "warp": [
                ("warp", parts.warp(), device_copy if parts.gpu else copy, warped)
            ],
            "forward": [("model forward", parts.forward(), product, forward)],
            "step": [(STEP, step, product, trained)],
            "evaluation": [("evaluation", *evaluation, flops.forward(job.model))],
        }
        if parts.gpu:
            moved = ("host to device", parts.transfer(), to_device, pixels)
            stages["transfer"].append(moved)
        for name in self.config.chosen:
            if name == "train":
                yield from map(self._training, stalls.WAYS)
            else:
                yield from itertools.starmap(Stage, stages[name])

    def _training(self, way: str) -> Stage:
        def between() -> None:
            bounds.drop_from_cache(self._paths if way == stalls.COLD else [])

        work = training(self._parts.job, way == stalls.CACHED, between)
        return Stage(way, work, Bound(STEP))

    def _matmul(self, precision: str = "") -> Bound:
        precision = precision or self._parts.job.runtime.precision
        make = functools.partial(bounds.matmul, precision, self._parts.gpu)
        return Bound(f"matmul {precision}", make)
