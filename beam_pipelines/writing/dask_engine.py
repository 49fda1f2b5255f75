"""Beam's DaskRunner with one cluster and one client for all passes of a build."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError

import apache_beam as beam
import dask
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dask.dask_runner import (
    DaskOptions,
    DaskRunner,
    DaskRunnerResult,
)
from apache_beam.runners.dask.overrides import dask_overrides
from distributed import Client, KilledWorker, LocalCluster

from support import pool
from support.errors import ExitCode, UserError, usage_error

_LOGGERS = ("distributed", "distributed.client", "tornado.application")
_TIMEOUT = 10  # seconds in which a scheduler must answer


class _Runner(DaskRunner):
    """Runs pipelines with a client that is there, where Beam's makes one for each."""

    def __init__(self, client: Client, partitions: dict[str, int]):
        super().__init__()
        self._client = client
        self._partitions = partitions

    def run_pipeline(
        self, pipeline: beam.Pipeline, options: PipelineOptions
    ) -> DaskRunnerResult:
        pipeline.replace_all(dask_overrides())
        visitor = self.to_dask_bag_visitor(self._partitions)
        pipeline.visit(visitor)
        *_, last = visitor.bags.values()
        future = self._client.compute(last)
        future.result()  # Beam's own waiting takes what was lost for done
        return DaskRunnerResult(self._client, [future])


@contextlib.contextmanager
def open_runner(options: PipelineOptions) -> Iterator[DaskRunner]:
    """Connects to the cluster that the options name, else starts one on this machine.

    Raises:
      UserError: exit 2, there is no such cluster; exit 7, workers were killed again and
        again; exit 75, the scheduler was lost.
    """
    given = options.view_as(DaskOptions).get_all_options(
        drop_default=True, current_only=True
    )
    names = {"npartitions", "partition_size"} & set(given)
    # One element of the graph, a range of shards, per task.
    partitions = {name: given.pop(name) for name in names} or {"partition_size": 1}
    place = given.get("address") or given.get("scheduler_file")
    for logger in _LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if not place:
            given["address"] = stack.enter_context(_local_cluster())
        client = stack.enter_context(_connect(place, {"timeout": _TIMEOUT, **given}))
        if not client.scheduler_info()["workers"]:
            print(f"{place} has no worker yet: start some with `dask worker`.")
        try:
            yield _Runner(client, partitions)
        except KilledWorker as error:
            raise UserError(
                "Dask's workers were killed again and again, perhaps because memory "
                "ran out.",
                "Run it again with fewer threads or more memory for each worker.",
                ExitCode.OUT_OF_MEMORY,
            ) from error
        except (CancelledError, OSError) as error:
            raise UserError(
                f"The connection to Dask's scheduler was lost: {error}".split("\n")[0],
                "When it is back, run the same command again to resume.",
                ExitCode.STOPPED,
            ) from error


@contextlib.contextmanager
def _local_cluster() -> Iterator[LocalCluster]:
    # What the worker processes log would be on this terminal.
    variable = "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED"
    with dask.config.set({variable: "critical"}):
        with LocalCluster(
            n_workers=pool.cores(),
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster


@contextlib.contextmanager
def _connect(place: str | None, arguments: dict) -> Iterator[Client]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = Client(**arguments)
    except (OSError, ValueError) as error:
        raise usage_error(
            f"No Dask scheduler answers at {place}: {error}".split("\n")[0],
            "Start one with `dask scheduler`, or leave the flag out.",
        ) from error
    with client:
        yield client
