"""The stages of a training run, each with its upper bound."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import flops, harness
from benchmarks.harness import Measurement, Work
from benchmarks.stages import bounds, page_cache, stalls
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
BOUND, FRACTION = "upper bound", "fraction of it"
_COPY, _READ, _COLD_READ = "memory copy", "sequential read", "sequential read, cold"
_JPEG, _DEVICE_COPY, _TO_DEVICE = (
    "libjpeg-turbo, one core",
    "device memory copy",
    "host to device, one piece",
)
_MATMUL = "matmul "
_FLOAT_BYTES = 4
#: What the page cache may keep of files that it was asked to forget.
_KEPT = 0.05
#: The fraction of the free memory that decoded images may take.
_CACHE_FRACTION = 0.6


@dataclasses.dataclass(frozen=True)
class Stage:
    """Work that is measured in images, and its upper bound.

    Attributes:
      name: of the stage.
      work: of which images are the units.
      bound: the case that it is compared with, empty for none.
      per_image: how much of that one image takes.
    """

    name: str
    work: Work
    bound: str = ""
    per_image: float = 1.0


@dataclasses.dataclass
class Cold:
    """Files that the system is asked to forget, and how much of them it kept."""

    paths: list[Path]
    kept: list[float | None] = dataclasses.field(default_factory=list)

    def drop(self) -> None:
        page_cache.drop(self.paths)
        self.kept.append(page_cache.fraction_cached(self.paths))

    def note(self) -> str:
        """A note on rates that are called cold, empty if they were."""
        if None in self.kept:
            return "Whether the page cache forgot the shards cannot be seen here."
        most = max(self.kept, default=0.0)
        if most <= _KEPT:
            return ""
        return (
            f"The page cache kept {most:.0%} of the shards though it was asked to "
            "forget them: the cold rates are not cold."
        )


class Breakdown:
    """The stages for some options, ready to be measured.

    Raises:
      UserError: none of the chosen stages exists on this device (exit 2).

    Attributes:
      stages: in the order in which an image meets them.
      doubled: the stage that is measured twice, to see the noise.
      waited: name of a stage -> the fraction of each turn that waited for batches.
      cold: the training shards.
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
        self.cold = Cold(shard_paths(self._part))
        self.waited: dict[str, list[float]] = {}
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
        for stage in self.stages:
            if stage.bound and stage.bound not in works:
                works[stage.bound] = self._bound(stage.bound)
        return works

    def measurements(self, measured: Mapping[str, Measurement]) -> list[Measurement]:
        """Rates of the stages, images/s, with their upper bounds as facts."""
        results = []
        for stage in self.stages:
            one, facts = measured[stage.name], {}
            if stage.bound:
                bound = measured[stage.bound].median / stage.per_image
                facts = {BOUND: bound, FRACTION: one.median / bound}
            if stage.name in self.waited:
                turns = self.waited[stage.name][-len(one.samples) :]
                facts["waiting for input"] = statistics.median(turns)
            results.append(dataclasses.replace(one, facts=facts))
        return [*results, measured[self.doubled + AGAIN]]

    def table(self, results: Mapping[str, Measurement]) -> str:
        """The stages as a table in Markdown."""
        rows = []
        for stage in self.stages:
            one = results[stage.name]
            cells = [harness.rate(one.median), f"±{one.spread:.0%}", "", ""]
            if stage.bound:
                bound = harness.rate(one.facts[BOUND])
                cells[2:] = f"{bound} ({stage.bound})", f"{one.facts[FRACTION]:.0%}"
            rows.append([stage.name, *cells])
        return harness.markdown(["stage", "images/s", "spread", BOUND, FRACTION], rows)

    def settings(self, measured: Mapping[str, Measurement]) -> dict[str, Any]:
        """The data, the machine's settings, and the bounds in their own units."""
        names = {stage.name for stage in self.stages}
        cases = sorted({stage.bound for stage in self.stages} - names - {""})
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
        pixels = math.prod(self._part.manifest.image_shape)
        warped = 3 * self.config.input_size**2 * _FLOAT_BYTES
        size = records.record_bytes
        matmul = _MATMUL + job.runtime.precision
        forward = flops.forward(job.training_model)
        stages = {
            "read": [
                Stage("read shards", records.reading(False), _READ, size),
                Stage("read shards, cold", records.reading(True), _COLD_READ, size),
            ],
            "parse": [Stage("parse", records.parsing, _COPY, size)],
            "decode": [Stage("decode", records.decoding, _JPEG, 1 / cores())],
            "batch": [
                Stage(
                    "read, parse, decode, batch",
                    batching(long_run(job)),
                    _JPEG,
                    1 / cores(),
                )
            ],
            "transfer": [],
            "warp": [
                Stage(
                    "warp",
                    parts.warp(),
                    _DEVICE_COPY if parts.gpu else _COPY,
                    (pixels + warped) / 2,  # a copy reads every byte and writes it
                )
            ],
            "forward": [Stage("model forward", parts.forward(), matmul, forward)],
            "step": [
                Stage(STEP, parts.step(), matmul, flops.training(job.training_model))
            ],
            "evaluation": [
                Stage(
                    "evaluation",
                    parts.evaluate(),
                    _MATMUL + "float32",  # whatever the training's precision is
                    flops.forward(job.model),
                )
            ],
        }
        if parts.gpu:
            moved = Stage("host to device", parts.transfer(), _TO_DEVICE, pixels)
            stages["transfer"].append(moved)
        for name in self.config.chosen:
            yield from self._training() if name == "train" else stages[name]

    def _training(self) -> Iterator[Stage]:
        for way in stalls.WAYS:
            waited = self.waited[way] = []
            between = self.cold.drop if way == stalls.COLD else lambda: None
            cache = way == stalls.CACHED
            yield Stage(way, training(self._parts.job, cache, waited, between), STEP)

    def _bound(self, case: str) -> Work:
        shape = self._part.manifest.image_shape
        makers: dict[str, Callable[[], Work]] = {
            _COPY: bounds.memory_copy,
            _READ: functools.partial(bounds.sequential_read, self.cold.paths, False),
            _COLD_READ: functools.partial(
                bounds.sequential_read, self.cold.paths, True
            ),
            _JPEG: functools.partial(bounds.libjpeg, self._records.jpegs, shape),
            _DEVICE_COPY: bounds.device_copy,
            _TO_DEVICE: bounds.to_device,
        }
        if case.startswith(_MATMUL):
            precision = case.removeprefix(_MATMUL)
            return bounds.matmul(precision, self._parts.gpu)
        return makers[case]()
