"""The whole Beam graph: numbers of shards go in, names of written shards come out.

No image and no plan crosses a shuffle: each worker reads the plans of its shards, then
reads, checks and writes whole shards.
"""

import functools
import socket
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from beam_pipelines.writing import runner, shards
from support.errors import UserError, output_error
from support.files import output_errors
from support.pool import process_map

#: The graph names at most so many ranges of shards, which keeps it small.
_RANGES = 1000

_REMEDY = "Run it again to resume, if need be with --direct_num_workers=1."


class LoadPlans(beam.DoFn):
    """First and last number of a range of shards -> their `ShardPlan`s."""

    def __init__(self, task: shards.Task):
        self.task = task

    def process(self, numbers: tuple[int, int]) -> Iterator[shards.ShardPlan]:
        store = self.task.store
        try:
            yield from shards.load_plans(store, range(*numbers))
        except FileNotFoundError as error:
            host = socket.gethostname()
            lost = output_error(
                f"A worker on {host} does not find {store}.",
                "Give --output_dir a folder that all machines share, or a bucket.",
            )
            raise RuntimeError(runner.to_text(lost)) from error


class WriteShard(beam.DoFn):
    """`ShardPlan` -> name of the shard, written with its report."""

    def __init__(self, task: shards.Task):
        self.task = task

    def process(self, plan: shards.ShardPlan) -> Iterator[str]:
        yield from self.write([plan], 1)

    def write(self, plans: Sequence[shards.ShardPlan], processes: int) -> Iterator[str]:
        """Writes shards, in processes of this machine; yields their names."""
        write = functools.partial(shards.write_shard, task=self.task)
        try:
            with (
                output_errors(self.task.store.location, self.task.needed),
                process_map(processes, write, plans, remedy=_REMEDY) as reports,
            ):
                for report in reports:
                    # Here, while the next shards are written, not all at the end.
                    self.task.store.sync(report.name)
                    yield report.name
        except UserError as error:
            # Beam turns what a worker raises into text; this text can be turned back.
            raise RuntimeError(runner.to_text(error)) from error


class WriteShardsInProcesses(WriteShard):
    """As `WriteShard`, all shards of a bundle at once: for Beam's local runner."""

    def __init__(self, task: shards.Task, processes: int):
        super().__init__(task)
        self.processes = processes

    def start_bundle(self) -> None:
        self._plans: list[shards.ShardPlan] = []

    def process(self, plan: shards.ShardPlan) -> None:
        self._plans.append(plan)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for name in self.write(self._plans, self.processes):
            yield GlobalWindows.windowed_value(name)


def write_shards(
    pipeline: beam.Pipeline, processes: int, task: shards.Task, count: int
) -> beam.PCollection[str]:
    """Adds the build to a pipeline.

    Args:
      pipeline: to add it to.
      processes: how many write at once, in each bundle.
      task: what the shards have in common.
      count: how many plans are in the task's store.

    Returns:
      the names of the written shards.
    """
    many = processes > 1
    write = WriteShardsInProcesses(task, processes) if many else WriteShard(task)
    return (
        pipeline
        | "Shards" >> beam.Create(_ranges(count))  # (first, last + 1)
        | "Spread" >> beam.Reshuffle()  # to all workers
        | "LoadPlans" >> beam.ParDo(LoadPlans(task))  # one ShardPlan per shard
        | "WriteShard" >> beam.ParDo(write)
    )


def _ranges(count: int) -> list[tuple[int, int]]:
    step = -(-count // _RANGES)
    return [(start, min(start + step, count)) for start in range(0, count, step)]
