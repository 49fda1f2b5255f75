"""Builds sharded TFRecords from a CelebA folder.

    python -m beam_pipelines.build --runner DirectRunner

reads data/celeba, writes data/tfrecords; Beam's options are accepted next to ours.
"""

import collections
import dataclasses
import datetime
import os
import platform
import socket
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
from absl import flags
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import selection
from beam_pipelines.reporting import report
from beam_pipelines.sources import load as sources
from beam_pipelines.sources.parquet import CONVERT, ParquetSource
from beam_pipelines.sources.remote import is_remote, require_served
from beam_pipelines.writing import options as beam_options
from beam_pipelines.writing import rounds, runner, staging
from schemas import celeba
from support import command, files
from support.errors import usage_error
from support.progress import Stopwatch

#: The flags that name data.
_PLACES = ("celeba_dir", "output_dir")


def main(argv: list[str]) -> None:
    """Parses flags, plans, writes, publishes."""
    values = flags.FlagValues()
    command.define_flags(BuildConfig, values)
    words = command.parse(argv, values, known_only=True)
    names = [field.name for field in dataclasses.fields(BuildConfig)]
    options = beam_options.parse(words, names)
    beam_options.check_dataflow(options, {name: values[name].value for name in _PLACES})
    config = command.from_flags(BuildConfig, values)
    for flag in _PLACES:
        require_served(getattr(config, flag), flag)
    build(config, options)


def build(config: BuildConfig, options: PipelineOptions) -> None:
    """Builds the dataset that `config` describes.

    Raises:
      UserError: with the exit code of what stands in the way.
    """
    watch = Stopwatch()
    FileSystems.set_options(options)  # the project and credentials for buckets
    output = _resolve(config.output_dir)
    if not (runner.is_local(options) or is_remote(config.celeba_dir)):
        # Workers may have been started in another folder.
        folder = os.path.abspath(config.celeba_dir)
        config = dataclasses.replace(config, celeba_dir=folder)
    if not config.dry_run:
        staging.check_output(output, config.overwrite)

    def expect(images: int) -> None:
        if not config.dry_run:
            runner.prepare(options, min(images, config.num_examples or images))

    found = sources.load(config, expect)
    watch.lap("reading annotations, listing images")
    if isinstance(found.images, ParquetSource) and not runner.is_local(options):
        raise usage_error(
            f"{found.images} contains Parquet files, which only DirectRunner reads.",
            f"Run {CONVERT.format(found.images)}, then build from NEW.",
        )
    config = dataclasses.replace(config, split=found.split)
    plan = selection.plan(found.rows, config)
    rounds.check_people(plan, config)
    watch.lap("planning")
    _say(found.notes)
    _say(describe(plan, config))
    if config.dry_run:
        print("dry run: nothing was written")
        return
    place = staging.open_staging(output, config.recipe(), found.fingerprints)
    with runner.engine(options) as run, place.hold():
        staging.check_output(output, config.overwrite)
        _write_and_publish(config, found, plan, place, run, watch)
    print(f"{output}: done in {watch.total:.1f} s")


def describe(plan: selection.Plan, config: BuildConfig) -> Iterable[str]:
    """The plan in lines: per split its examples, classes, people and shards; notes."""
    for index, split in enumerate(celeba.SPLITS):
        rows = plan.selected(index)
        zeros, ones = plan.class_counts()[index]
        people = plan.rows.identities[rows]
        known = len(np.unique(people[people >= 0]))
        size = int(plan.rows.sizes[rows].sum())  # 0: unknown, as in Parquet files
        yield (
            f"{split:<10} {len(rows):>9,} examples: {ones:,} with, {zeros:,} without "
            f"{config.attribute}; {known:,} people; {len(plan.bounds[index]) - 1} "
            f"shard(s)" + (f", {files.megabytes(size)}" if size else "")
        )

    yield from _selection_notes(plan, config)


def _selection_notes(plan: selection.Plan, config: BuildConfig) -> Iterable[str]:
    """What the counts per split do not show."""
    if config.narrowing:
        left = sum(len(pool) for pool in plan.pools.values())
        yield f"{config.narrowing} leaves {left:,} of {len(plan.rows):,} images"
    counts = plan.class_counts().sum(axis=1)
    away = np.abs(counts - counts.sum() * np.array(config.split_fractions))
    if config.split != "official" and (away > 2 + 0.005 * counts.sum()).any():
        shares = ", ".join(f"{count / counts.sum():.3f}" for count in counts)
        yield f"--split_fractions cannot be kept with these images: they are {shares}"
    share = selection.leakage(plan)
    if config.split != "identity" and share is None:
        yield "how many test images show a person of train is unknown: no identities"
    elif config.split != "identity":
        yield f"{share:.1%} of the test images show a person who is also in train"


def _write_and_publish(
    config: BuildConfig,
    found: sources.Sources,
    plan: selection.Plan,
    place: staging.Staging,
    run: runner.Run,
    watch: Stopwatch,
) -> None:
    if place.open():
        print(f"continuing the unfinished build in {place.store}", flush=True)
    needed = rounds.expected_bytes(plan, config)
    if not place.store.is_remote:
        left = needed - place.bytes() if needed else 0
        files.check_free_space(place.store.location, left)
    with files.output_errors(place.store.location, needed):
        written = rounds.write(config, found, plan, place, run)
        watch.lap("reading, checking and writing images")
        rounds.check_people(written.plan, config)
        manifest = rounds.manifest(config, found, written)
        facts = _facts(config, written, watch)
        place.publish(manifest, written.rejected, facts, config.overwrite)
    watch.lap("publishing")
    _say(_result(config, written, facts["images_per_second"]))
    # Only now: drawing takes a second, for which no reader of the data should wait.
    facts |= {"stages": watch.seconds}
    try:
        place.add(report.make(manifest, written.plan, written.rejected, facts))
    except (Exception, command.Stopped, KeyboardInterrupt) as error:
        print(
            f"{config.output_dir} is complete; only its report was not drawn: {error}"
        )
        return
    if not report.can_draw():
        print(report.NO_CHARTS)


def _resolve(path: str) -> str:
    """The output's own place: what a link leads to is replaced, the link stays."""
    return path.rstrip("/") if is_remote(path) else os.path.realpath(path)


def _facts(config: BuildConfig, written: rounds.Written, watch: Stopwatch) -> dict:
    """What `build.json` holds: all that must not be in the manifest."""
    reasons = collections.Counter(reason for _, reason, _ in written.rejected)
    work = written.work
    rate = work.images / work.seconds if work.seconds else 0.0
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "beam": beam.__version__,
        "runner": written.work.runner,
        "config": dataclasses.asdict(config),
        "seconds": round(watch.total, 2),
        "stages": {name: round(value, 3) for name, value in watch.seconds.items()},
        "seconds_in_runner": round(work.seconds, 2),
        "images_read": written.work.images,
        "images_per_second": round(rate, 1),
        "rounds": written.passes,
        "turned_upright": written.turned,
        "rejected": dict(reasons),
        "duplicates_kept": written.duplicates,
    }


def _result(config: BuildConfig, written: rounds.Written, rate: float) -> Iterable[str]:
    if written.rejected:
        counts = rounds.reasons(written.rejected)
        yield f"{len(written.rejected):,} images excluded: {counts}"
        yield from describe(written.plan, config)
    for encoding in written.encoding.values():
        yield (
            f"{encoding['images']:,} {encoding['from']} images encoded as "
            f"{encoding['to']}"
        )
    if written.duplicates:
        yield (
            f"{written.duplicates:,} images are in another split, too, under another "
            "name (--keep_duplicates)"
        )
    if written.turned:
        yield f"{written.turned:,} images with their EXIF orientation applied"
    yield (
        f"{written.work.images:,} images read and checked, {rate:,.0f} per second "
        f"({written.work.runner})"
    )


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    command.run(main)
