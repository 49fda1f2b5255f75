"""The whole Beam graph: plans of shards go in, written shards come out.

No image crosses a shuffle: what is shuffled are the plans, below 100 bytes a record.
Each worker reads, checks and writes whole shards.
"""

import functools
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from beam_pipelines.writing import runner, shards
from beam_pipelines.writing.store import Store
from support.errors import UserError
from support.files import output_errors
from support.pool import process_map

_REMEDY = "Run it again to resume, if need be with --direct_num_workers=1."


class LoadPlans(beam.DoFn):
    """The store that contains the plan -> one `ShardPlan` per shard to write."""

    def process(self, store: Store) -> Iterator[shards.ShardPlan]:
        yield from shards.load_plans(store)


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
    pipeline: beam.Pipeline, processes: int, task: shards.Task
) -> beam.PCollection[str]:
    """Adds the build to a pipeline; its result are the names of the written shards."""
    many = processes > 1
    write = WriteShardsInProcesses(task, processes) if many else WriteShard(task)
    return (
        pipeline
        | "PlanFile" >> beam.Create([task.store])
        | "LoadPlans" >> beam.ParDo(LoadPlans())  # one ShardPlan per shard
        | "Spread" >> beam.Reshuffle()  # shards go to all workers
        | "WriteShard" >> beam.ParDo(write)
    )
