"""The ladder: what happens to an image, rung by rung, each beside its own limit."""

import dataclasses
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import flops
from benchmarks.harness import Measurement
from benchmarks.ladder import limits, page_cache, rungs_input, rungs_model, stalls
from benchmarks.ladder.ladder_config import LadderConfig
from benchmarks.ladder.limits import Work
from support.errors import usage_error
from support.hardware import available_memory
from support.pool import cores
from trainer.data import open_dataset
from trainer.data.dataset import splits_that_fit
from trainer.loop import runtime

STEP, AGAIN = "train step", ", again"
TRAIN = {
    stalls.CACHED: "train, decoded images",
    stalls.WARM: "train, shards in page cache",
    stalls.COLD: "train, shards on disk",
}
_COPY, _READ, _COLD_READ = "memory copy", "sequential read", "sequential read, cold"
_JPEG, _DEVICE_COPY, _TO_DEVICE = (
    "libjpeg-turbo, one core",
    "device memory copy",
    "host to device, one piece",
)
_FLOAT_BYTES = 4
#: What the page cache may keep of files that it was asked to forget.
_KEPT = 0.05
#: The share of the free memory that decoded images may take.
_CACHE_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a rung is held against.

    Attributes:
      case: the name of what was measured.
      per_image: how much of that one image takes.
      words: what the table says of it.
    """

    case: str
    per_image: float
    words: str


@dataclasses.dataclass(frozen=True)
class Rung:
    """Work that is measured in images, and its limit, if it has one."""

    name: str
    work: Work
    limit: Limit | None


@dataclasses.dataclass
class Cold:
    """Files that the system is asked to forget, and how much of them it kept."""

    paths: list[Path]
    held: list[float | None] = dataclasses.field(default_factory=list)

    def drop(self) -> None:
        page_cache.drop(self.paths)
        self.held.append(page_cache.share_held(self.paths))

    def note(self) -> str:
        """What to say about rates that are called cold, empty if they were."""
        if not self.held:
            return ""
        if None in self.held:
            return "Whether the page cache forgot the shards cannot be seen here."
        most = max(self.held)
        if most <= _KEPT:
            return ""
        return (
            f"The page cache kept {most:.0%} of the shards though it was asked to "
            "forget them: the cold rates are not cold."
        )


class Ladder:
    """The rungs for some options, ready to be measured.

    Raises:
      UserError: none of the rungs asked for exists on this device (exit 2).

    Attributes:
      part: the shards that are used.
      parts: what the rungs on the device share.
      rungs: in the order in which an image meets them.
      waited: name of a rung -> the share of each turn that waited for batches.
      cold: the training shards.
    """

    def __init__(self, config: LadderConfig):
        self.config = config
        self._whole = open_dataset(config.data_dir)
        self.part = rungs_input.part_of(self._whole)
        self.cold = Cold(rungs_input.shard_paths(self.part))
        train = config.train_config()
        auto = dataclasses.replace(train, precision="auto")
        self._auto_precision = runtime.prepare(auto).precision
        self.parts = rungs_model.Parts.build(train, self.part)
        self.waited: dict[str, list[float]] = {}
        # What one image takes of the machine: see the limits of the rungs.
        self.records = rungs_input.Records(self.part)
        self.flops = flops.training(self.parts.job.training_model)
        self.rungs = [
            rung for name in config.chosen for rung in getattr(self, f"_{name}")()
        ]
        if not self.rungs:
            raise usage_error(
                f"--rungs={','.join(config.rungs)} leaves nothing to measure here.",
                "Add another rung, or all.",
            )

    @property
    def works(self) -> dict[str, Work]:
        """All that is measured: the rungs, one of them again, and their limits."""
        works = {rung.name: rung.work for rung in self.rungs}
        works[self.doubled + AGAIN] = works[self.doubled]
        for rung in self.rungs:
            if rung.limit and rung.limit.case not in works:
                works[rung.limit.case] = self._limit(rung.limit.case)
        return works

    @property
    def doubled(self) -> str:
        """The rung that is measured twice, to see the noise."""
        names = [rung.name for rung in self.rungs]
        return STEP if STEP in names else names[0]

    def training(self, job: Any, way: str, waited: list[float]) -> Work:
        """Training with the step of a job, reading in some way."""
        batches = rungs_model.long_run(job, cache=way == stalls.CACHED)
        if way == stalls.CACHED:
            next(iter(batches))  # all of them are decoded before the first
        between = self.cold.drop if way == stalls.COLD else lambda: None
        return rungs_model.training(job, batches, waited, between)

    def setting(self, measured: dict[str, Measurement]) -> stalls.Setting:
        """What a suggestion needs to know, from the rates of the rungs."""
        effective = self.parts.job.runtime
        manifest = self._whole.manifest
        pixels = math.prod(manifest.image_shape)
        images = sum(manifest.num_examples(split) for split in ("train", "validation"))
        files = sum(shard.bytes for shard in manifest.split("train"))
        free = available_memory()
        usual = stalls.WARM if files < free else stalls.COLD
        return stalls.Setting(
            gpu=self.parts.gpu,
            xla=effective.xla,
            precision=effective.precision,
            auto_precision=self._auto_precision,
            batch_size=self.config.batch_size,
            matmul_share=measured[STEP].facts["share of limit"],
            cache_mb=math.ceil(images * pixels / 1e6),
            usual=stalls.CACHED if "train" in splits_that_fit(manifest, -1) else usual,
            cache_fits=images * pixels < _CACHE_SHARE * free,
        )

    def _read(self) -> Iterator[Rung]:
        size = self.records.record_bytes
        yield Rung(
            "read shards",
            self.records.reading(cold=False),
            Limit(_READ, size, "whole files, page cache"),
        )
        yield Rung(
            "read shards, cold",
            self.records.reading(cold=True),
            Limit(_COLD_READ, size, "whole files, disk"),
        )

    def _parse(self) -> Iterator[Rung]:
        limit = Limit(_COPY, self.records.record_bytes, "memory copy")
        yield Rung("parse", self.records.parsing, limit)

    def _decode(self) -> Iterator[Rung]:
        yield Rung("decode", self.records.decoding, _jpeg_limit())

    def _batch(self) -> Iterator[Rung]:
        work = rungs_input.batching(rungs_model.long_run(self.parts.job))
        yield Rung("read, parse, decode, batch", work, _jpeg_limit())

    def _transfer(self) -> Iterator[Rung]:
        if not self.parts.gpu:
            print("skipped: host to device; the device is the CPU, nothing is moved")
            return
        size = math.prod(self.part.manifest.image_shape)
        limit = Limit(_TO_DEVICE, size, "one large copy")
        yield Rung("host to device", rungs_model.transfer(self.parts), limit)

    def _warp(self) -> Iterator[Rung]:
        read = math.prod(self.part.manifest.image_shape)
        written = 3 * self.config.input_size**2 * _FLOAT_BYTES
        case = _DEVICE_COPY if self.parts.gpu else _COPY
        # A copy reads every byte and writes it.
        limit = Limit(case, (read + written) / 2, case)
        yield Rung("warp", rungs_model.warping(self.parts), limit)

    def _forward(self) -> Iterator[Rung]:
        operations = flops.forward(self.parts.job.training_model)
        yield Rung(
            "model forward", rungs_model.forward(self.parts), self._matmul(operations)
        )

    def _step(self) -> Iterator[Rung]:
        yield Rung(STEP, rungs_model.stepping(self.parts), self._matmul(self.flops))

    def _train(self) -> Iterator[Rung]:
        for way, name in TRAIN.items():
            self.waited[name] = []
            work = self.training(self.parts.job, way, self.waited[name])
            yield Rung(name, work, Limit(STEP, 1, STEP))

    def _evaluation(self) -> Iterator[Rung]:
        # Runs in float32, whatever the training's precision is.
        operations = flops.forward(self.parts.job.model)
        limit = self._matmul(operations, "float32")
        work = rungs_model.evaluating(self.parts.job)
        yield Rung("evaluation", work, limit)

    def _matmul(self, operations: float, precision: str = "") -> Limit:
        name = f"matmul {precision or self.parts.job.runtime.precision}"
        return Limit(name, operations, name)

    def _limit(self, case: str) -> Work:
        if case.startswith("matmul "):
            return limits.matmul(case.removeprefix("matmul "), self.parts.gpu)
        shape = self.part.manifest.image_shape
        makers = {
            _COPY: limits.memory_copy,
            _READ: lambda: limits.sequential_read(self.cold.paths, cold=False),
            _COLD_READ: lambda: limits.sequential_read(self.cold.paths, cold=True),
            _JPEG: lambda: limits.libjpeg(self.records.jpegs, shape),
            _DEVICE_COPY: limits.device_copy,
            _TO_DEVICE: limits.to_device,
        }
        return makers[case]()


def with_limits(
    ladder: Ladder, measured: dict[str, Measurement]
) -> dict[str, Measurement]:
    """The rungs' rates, images/s, with what they are held against as facts."""
    results = {}
    for rung in ladder.rungs:
        facts = {}
        rate = measured[rung.name].median
        if rung.limit:
            limit = measured[rung.limit.case].median / rung.limit.per_image
            facts = {"limit": limit, "share of limit": rate / limit}
        if rung.name in ladder.waited:
            turns = ladder.waited[rung.name][-len(measured[rung.name].samples) :]
            facts["waiting for input"] = statistics.median(turns)
        results[rung.name] = dataclasses.replace(measured[rung.name], facts=facts)
    again = ladder.doubled + AGAIN
    results[again] = measured[again]
    return results


def _jpeg_limit() -> Limit:
    return Limit(_JPEG, 1 / cores(), f"libjpeg-turbo, {cores()} cores")
