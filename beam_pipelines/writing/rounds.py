"""Writes a plan's shards, in passes, until no image in them is unusable.

Writers never replace an image, they report it; the planner fills the slot; only shards
that changed are written again, in a retry pass. The images that a pass rejected are on
disk before the next begins, so a build that was killed repeats the same decisions.
"""

import collections
import dataclasses
import functools
import time
from typing import Any

import numpy as np

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import selection
from beam_pipelines.planning.selection import Plan
from beam_pipelines.sources.load import Sources
from beam_pipelines.sources.rows import match
from beam_pipelines.writing import (
    copies,
    duplicates,
    pipeline,
    progress,
    runner,
    shards,
)
from beam_pipelines.writing.shards import ShardReport
from beam_pipelines.writing.staging import Rejection, Staging, load_reports
from schemas.manifest import Manifest, Shard
from support.errors import ExitCode, UserError, input_error

#: What the manifest has of the report on a shard.
_REPORTED = ("name", "records", "bytes", "sha256", "class_counts")

#: How often shards are written before it counts as somebody else's writing.
_ATTEMPTS = 3


@dataclasses.dataclass
class Work:
    """What this run has done so far.

    Attributes:
      images: how many were read.
      seconds: how long the runner took for them.
      runner: its name and mode; "" before the first pass.
    """

    images: int = 0
    seconds: float = 0.0
    runner: str = ""

    def add(self, images: int, seconds: float, runner: str) -> None:
        self.images += images
        self.seconds += seconds
        self.runner = self.runner or runner  # retry passes have little to do


@dataclasses.dataclass(frozen=True)
class Written:
    """All shards, as they are in the staging folder.

    Attributes:
      plan: the plan that they follow, after all replacements.
      reports: on every shard, in order.
      rejected: images that cannot be used, the missing ones included.
      work: what this run did for it.
      passes: how many were needed, those of an interrupted run included.
      duplicates: images that are in another split, too.
      encoding: what was done to images of other formats, as a source of the manifest.
    """

    plan: Plan
    reports: tuple[ShardReport, ...]
    rejected: tuple[Rejection, ...]
    work: Work
    passes: int
    duplicates: int
    encoding: dict[str, dict[str, Any]]

    @property
    def turned(self) -> int:
        """Images to which an EXIF orientation was applied."""
        return sum(report.turned for report in self.reports)


def write(
    config: BuildConfig,
    found: Sources,
    plan: Plan,
    staging: Staging,
    run: runner.Run,
) -> Written:
    """Writes all shards of a plan into the staging folder.

    Raises:
      UserError: exit 3, for too many unusable images, for images of several sizes, or
        if replacements run out.
    """
    task = shards.Task(
        found.images,
        staging.store,
        config.target_size(),
        len(config.data_set.attributes),
        expected_bytes(plan, config),
    )
    done = staging.load_retries()
    for count, rejected in enumerate(done, 1):
        # Again: the fraction may be another one than the interrupted build had.
        _check_bad_fraction(plan, done[:count], staging, config)
        plan = _replace(plan, rejected, config)
    work = Work()
    while True:
        near = copies.bring_near(
            found.images, plan, staging.store, task.size is not None
        )
        task = dataclasses.replace(task, source=near)
        reports = _write_plans(list(shards.shard_plans(plan)), task, run, work)
        _check_sizes(reports, staging)
        rejected = [row for report in reports for row in report.rejected]
        doubles = duplicates.find(plan, reports)
        if not config.keep_duplicates:
            rejected += doubles
        if not rejected:
            break
        done.append(rejected)
        # Before the pass counts as complete: the same command must fail again.
        _check_bad_fraction(plan, done, staging, config)
        staging.save_retries(done)
        plan = _replace(plan, rejected, config)
    excluded = (*_missing(plan), *(row for rejected in done for row in rejected))
    encoding, passes = copies.encoding(plan, staging.store), len(done) + 1
    return Written(plan, reports, excluded, work, passes, len(doubles), encoding)


def _write_plans(
    plans: list[shards.ShardPlan], task: shards.Task, run: runner.Run, work: Work
) -> tuple[ShardReport, ...]:
    """Writes shards until each has a report on its plan; the reports, in order.

    An engine that believes a worker dead starts another attempt at its shards. The
    first may still be running, and end after a later pass has written other plans.
    """
    for _ in range(_ATTEMPTS):
        reports = load_reports(task.store, [plan.name for plan in plans])
        written = {name: report.plan for name, report in reports.items()}
        pending = [plan for plan in plans if written.get(plan.name) != plan.digest]
        if work.runner and not pending:
            return tuple(reports.values())
        # The first time writers also look at shards left by an earlier run.
        chosen = pending if work.runner else plans
        started = time.perf_counter()
        with progress.watch(task.store, pending):
            shards.save_plans(task.store, chosen)
            write_shards = functools.partial(
                pipeline.write_shards, task=task, count=len(chosen)
            )
            images = sum(len(plan.names) for plan in pending)
            used = run(write_shards, images)
        work.add(images, time.perf_counter() - started, used)
    raise UserError(
        f"{pending[0].name} in {task.store} was changed while it was written.",
        "See that no other program writes there; then run the same command again.",
        ExitCode.INTEGRITY,
    )


def manifest(config: BuildConfig, found: Sources, written: Written) -> Manifest:
    """Describes the dataset that was written."""
    sizes = {size for report in written.reports for size in report.image_sizes}
    height, width = map(int, min(sizes).split("x"))
    return Manifest(
        dataset=config.data_set.about,
        attributes=config.data_set.attributes,
        attribute=config.attribute,
        image_shape=(height, width, 3),
        config=config.recipe(),
        class_weights=_class_weights(written.plan, config),
        sources=found.fingerprints | written.encoding,
        shards=tuple(
            Shard(split=split, **{key: getattr(report, key) for key in _REPORTED})
            for report, (_, split, _) in zip(
                written.reports, written.plan.shards(), strict=True
            )
        ),
    )


def check_people(plan: Plan, config: BuildConfig) -> None:
    """Proves that a split by identity shows nobody in two splits."""
    shared = selection.people_in_two_splits(plan)
    if config.split == "identity" and shared:
        raise UserError(
            f"{shared} people are in two splits.",
            "This is a bug: please report it with the command line.",
            ExitCode.INTEGRITY,
        )


def expected_bytes(plan: Plan, config: BuildConfig) -> int:
    """How large the dataset will be; 0 if resizing makes that unknown."""
    if config.target_size():
        return 0
    return int(plan.rows.sizes[np.concatenate(plan.slots)].sum())


def _replace(plan: Plan, rejected: list[Rejection], config: BuildConfig) -> Plan:
    # Said before it: if too few are left, the error does not know why.
    print(f"excluding {len(rejected):,} images: {reasons(rejected)}", flush=True)
    names = np.array([name.encode() for name, _, _ in rejected], "S")
    return selection.replace(plan, match(names, plan.rows.names), config)


def _missing(plan: Plan) -> list[Rejection]:
    detail = "annotated, but there is no file"
    names = plan.rows.missing.tolist()
    return [(name.decode(), "missing", detail) for name in names]


def _class_weights(plan: Plan, config: BuildConfig) -> tuple[float, float]:
    """Weights that make both classes of the training split count the same."""
    zeros, ones = plan.class_counts()[0].tolist()
    if config.is_balanced or not zeros or not ones:
        return 1.0, 1.0
    return (zeros + ones) / (2 * zeros), (zeros + ones) / (2 * ones)


def _check_bad_fraction(
    plan: Plan, done: list[list[Rejection]], staging: Staging, config: BuildConfig
) -> None:
    excluded = [row for part in done for row in part]
    rejected = [row for row in excluded if row[1] != duplicates.REASON]
    read = int(plan.used.sum())
    if len(rejected) <= config.max_bad_fraction * read:
        return
    path = staging.write_rejected(excluded)
    # The images may be fixed before the command is given again.
    staging.forget_rejections(name for name, _, _ in plan.shards())
    raise input_error(
        f"{len(rejected):,} of {read:,} images are unusable ({reasons(rejected)}); "
        f"--max_bad_fraction={config.max_bad_fraction} does not allow that.",
        f"See {path}; download the images again, or raise the fraction.",
    )


def reasons(rejected: list[Rejection] | tuple[Rejection, ...]) -> str:
    """Counts by reason, for example "truncated 2, not a JPEG 1"."""
    counts = collections.Counter(reason for _, reason, _ in rejected)
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())


def _check_sizes(reports: tuple[ShardReport, ...], staging: Staging) -> None:
    sizes = collections.Counter()
    for report in reports:
        sizes.update(report.image_sizes)
    if len(sizes) <= 1:
        return
    staging.discard()
    common = [f"{size} ({count:,})" for size, count in sizes.most_common(4)]
    more = ", ..." if len(sizes) > 4 else ""
    raise input_error(
        f"The images have {len(sizes)} sizes, height x width: "
        f"{', '.join(common)}{more}.",
        "Add --image_size=S or --image_size=H,W to bring them to one size.",
    )
