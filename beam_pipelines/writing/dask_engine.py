"""Beam's DaskRunner with one cluster and one client for all passes of a build."""

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from multiprocessing import resource_tracker
from typing import Any

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
_IMPORT = "import beam_pipelines.writing.pipeline"


class _Runner(DaskRunner):
    """Runs pipelines with the build's client; Beam's makes one for each pipeline."""

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
      UserError: exit 2, there is no such cluster, or it lacks this program; exit 7,
        workers were killed again and again; exit 75, the scheduler was lost.
    """
    for logger in _LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    given = options.view_as(DaskOptions).get_all_options(
        drop_default=True, current_only=True
    )
    names = {"npartitions", "partition_size"} & set(given)
    # One element of the graph, a range of shards, per task.
    partitions = {name: given.pop(name) for name in names} or {"partition_size": 1}
    running = {"address", "scheduler_file"} & set(given)
    with contextlib.ExitStack() as stack:
        if not running:
            given["address"] = stack.enter_context(_local_cluster())
        client = stack.enter_context(_connect(given))
        if running:
            _check_cluster(client)
        try:
            yield _Runner(client, partitions)
        except KilledWorker as error:
            raise UserError(
                "Dask's workers were killed again and again, perhaps because memory "
                "ran out.",
                "Run the same command again with more memory for each worker.",
                ExitCode.OUT_OF_MEMORY,
            ) from error
        except (CancelledError, OSError) as error:
            raise UserError(
                "The connection to Dask's scheduler was lost.",
                "When it is back, run the same command again to resume.",
                ExitCode.STOPPED,
            ) from error


@contextlib.contextmanager
def _local_cluster() -> Iterator[LocalCluster]:
    # What the worker processes log would be on this terminal.
    variable = "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED"
    with dask.config.set({variable: "critical"}):
        # Ctrl-C reaches the whole process group; the program alone decides what it
        # means. Threads and processes that are started meanwhile inherit the mask,
        # which Python's resource tracker would lift if it were not running yet.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = LocalCluster(
                n_workers=pool.cores(),
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with cluster:
            yield cluster


@contextlib.contextmanager
def _connect(given: dict[str, Any]) -> Iterator[Client]:
    file = given.get("scheduler_file")
    if file and not os.path.exists(file):  # Dask would wait for it
        raise usage_error(
            f"--dask_scheduler_file={file} does not exist.",
            f"Start a scheduler with: dask scheduler --scheduler-file {file}",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = Client(**{"timeout": _TIMEOUT, **given})
    except (OSError, ValueError) as error:
        place = file or given["address"]
        raise usage_error(
            f"No Dask scheduler answers at {place}: {error}".split("\n")[0] + ".",
            "Start one with `dask scheduler`, or leave the flag out.",
        ) from error
    with client:
        yield client


def _check_cluster(client: Client) -> None:
    """Refuses a cluster without this program: its workers would end without a word."""
    try:
        client.run_on_scheduler(exec, _IMPORT)
        workers = client.run(exec, _IMPORT)
    except ImportError as error:
        raise usage_error(
            f"Dask's scheduler or workers cannot import this program: {error}.",
            "Install it with the extra `dask` where they run, and start them again.",
        ) from error
    if not workers:
        print("Dask has no worker yet; start some with `dask worker`.", flush=True)
