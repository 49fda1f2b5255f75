"""The stages of a training run, each with its upper bound."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks import flops
from benchmarks.harness import Measurement, Work
from benchmarks.stages import bounds, device, stalls
from benchmarks.stages.config import StagesConfig
from benchmarks.stages.host import Records, batching, part_of
from benchmarks.stages.stalls import STEP
from benchmarks.train_step import tensorflow_step
from support.errors import usage_error
from support.hardware import available_memory
from support.pool import cores
from trainer.data import open_dataset
from trainer.data.dataset import splits_that_fit
from trainer.loop import runtime
from trainer.loop.job import Job

AGAIN = ", again"
BOUND, NAME, FRACTION = "upper bound", "its name", "fraction of it"
_FLOAT_BYTES = 4
#: The fraction of the free memory that decoded images may take.
_CACHE_FRACTION = 0.6


class Stage(NamedTuple):
    """Work of which images are the units, and its upper bound.

    Attributes:
      group: its name for --stages.
      name: in the table.
      work: the stage.
      bound: name of the bound's work, or of the stage that is the bound.
      make_bound: makes the bound's work; None if a stage is the bound.
      per_image: units of the bound's work that an image takes.
    """

    group: str
    name: str
    work: Work
    bound: str
    make_bound: Callable[[], Work] | None = None
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
        part, train = part_of(self._dataset), config.train_config()
        auto = dataclasses.replace(train, precision="auto")
        self._auto_precision = runtime.prepare(auto).precision
        self._job = Job(train, runtime.prepare(train), part)
        self._records = Records(part)
        self._gpu = self._job.runtime.devices[0].startswith("GPU")
        stages = [*self._host_stages(), *self._device_stages()]
        self.stages = [stage for stage in stages if stage.group in config.chosen]
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
        for stage in self.stages:
            if stage.make_bound and stage.bound not in works:
                works[stage.bound] = stage.make_bound()
        return works

    def measurements(self, measured: Mapping[str, Measurement]) -> list[Measurement]:
        """Rates of the stages, images/s, with their upper bounds as facts."""
        results = []
        for stage in self.stages:
            one = measured[stage.name]
            bound = measured[stage.bound].median / stage.per_image
            facts = {BOUND: bound, NAME: stage.bound, FRACTION: one.median / bound}
            results.append(dataclasses.replace(one, facts=facts))
        return [*results, measured[self.doubled + AGAIN]]

    def settings(self, measured: Mapping[str, Measurement]) -> dict[str, Any]:
        """The data, the machine's settings, and the bounds in their own units."""
        manifest = self._job.dataset.manifest
        names = sorted({stage.bound for stage in self.stages if stage.make_bound})
        return {
            "image_shape": list(manifest.image_shape),
            "images": manifest.num_examples("train"),
            "record_bytes": round(self._records.record_bytes),
            "effective": self._job.runtime.describe(),
            "bounds_per_second": {name: measured[name].median for name in names},
        }

    def setting(self, step: Measurement) -> stalls.Setting:
        """Conditions for a suggestion, from the train step's rate among others."""
        effective, manifest = self._job.runtime, self._dataset.manifest
        images = sum(manifest.num_examples(split) for split in ("train", "validation"))
        cached = images * math.prod(manifest.image_shape)
        free = available_memory()
        usual = stalls.COLD
        if "train" in splits_that_fit(manifest, -1):
            usual = stalls.CACHED
        elif sum(shard.bytes for shard in manifest.split("train")) < free:
            usual = stalls.WARM
        return stalls.Setting(
            gpu=self._gpu,
            xla=effective.xla,
            precision=effective.precision,
            auto_precision=self._auto_precision,
            batch_size=self.config.batch_size,
            matmul_fraction=step.facts[FRACTION],
            cache_mb=math.ceil(cached / 1e6),
            usual=usual,
            cache_fits=cached < _CACHE_FRACTION * free,
        )

    def _host_stages(self) -> Iterator[Stage]:
        """From the shard to the batch."""
        records, job = self._records, self._job
        size, shape = records.record_bytes, job.dataset.manifest.image_shape
        for suffix, cold in (("", False), (", cold", True)):
            bound = functools.partial(bounds.sequential_read, records.paths, cold)
            name, read = f"read shards{suffix}", f"sequential read{suffix}"
            yield Stage("read", name, records.reading(cold), read, bound, size)
        copy = ("memory copy", bounds.memory_copy)
        yield Stage("parse", "parse", records.parsing, *copy, size)
        bound = functools.partial(bounds.libjpeg, records.jpegs, shape)
        jpeg = (f"libjpeg-turbo, {cores()} cores", bound)
        yield Stage("decode", "decode", records.decoding, *jpeg)
        batches = batching(device.long_run(job))
        yield Stage("batch", "read, parse, decode, batch", batches, *jpeg)

    def _device_stages(self) -> Iterator[Stage]:
        """From the batch to the evaluated image."""
        job, on_batch = self._job, device.OnBatch(self._job)
        pixels = math.prod(job.dataset.manifest.image_shape)
        copy = ("memory copy", bounds.memory_copy)
        if self._gpu:
            copy = ("device memory copy", bounds.device_copy)
            bound = ("host to device, one piece", bounds.to_device, pixels)
            yield Stage("transfer", "host to device", on_batch.transfer(), *bound)
        # A copy reads every byte and writes it.
        warped = (pixels + 3 * self.config.input_size**2 * _FLOAT_BYTES) / 2
        yield Stage("warp", "warp", on_batch.warp(), *copy, warped)
        product, model = self._matmul(job.runtime.precision), job.training_model
        forward = (on_batch.forward(), *product, flops.forward(model))
        yield Stage("forward", "model forward", *forward)
        trained = flops.training(model)
        yield Stage("step", STEP, on_batch.step(), *product, trained)
        for way in stalls.WAYS:
            paths = self._records.paths if way == stalls.COLD else []
            between = functools.partial(bounds.drop_from_cache, paths)
            work = device.training(job, way == stalls.CACHED, between)
            yield Stage("train", way, work, STEP)
        # Whatever the training's precision is, evaluation is in float32.
        bound = (*self._matmul("float32"), flops.forward(job.model))
        yield Stage("evaluation", "evaluation", device.evaluation(job), *bound)

    def _matmul(self, precision: str) -> tuple[str, Callable[[], Work]]:
        make = functools.partial(tensorflow_step.matmul, precision, self._gpu)
        return f"matmul {precision}", make
