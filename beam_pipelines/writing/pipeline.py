"""The whole Beam graph: plans of shards go in, written shards come out.

No image crosses a shuffle: what is shuffled are the plans, below 100 bytes a record.
Each worker reads, checks and writes whole shards.
"""

from collections.abc import Iterator

import apache_beam as beam

from beam_pipelines.writing import runner, shards
from beam_pipelines.writing.stores import Store
from support.errors import UserError
from support.files import output_errors


class PlanShards(beam.DoFn):
    """The store that holds the plan -> one `ShardPlan` per shard to write."""

    def process(self, store: Store) -> Iterator[shards.ShardPlan]:
        yield from shards.load_plans(store)


class WriteShard(beam.DoFn):
    """`ShardPlan` -> name of the shard, written with its receipt."""

    def __init__(self, task: shards.Task):
        self.task = task

    def process(self, plan: shards.ShardPlan) -> Iterator[str]:
        try:
            with output_errors(str(self.task.store), self.task.needed):
                shards.write_shard(plan, self.task)
        except UserError as error:
            # Beam turns what a worker raises into text; this text can be turned back.
            raise RuntimeError(runner.to_text(error)) from error
        yield plan.name


def write_shards(pipeline: beam.Pipeline, task: shards.Task) -> beam.PCollection[str]:
    """Adds the build to a pipeline; its result are the names of the written shards."""
    return (
        pipeline
        | "PlanFile" >> beam.Create([task.store])
        | "PlanShards" >> beam.ParDo(PlanShards())  # one ShardPlan per shard
        | "Spread" >> beam.Reshuffle()  # shards go to all workers
        | "WriteShard" >> beam.ParDo(WriteShard(task))
    )
