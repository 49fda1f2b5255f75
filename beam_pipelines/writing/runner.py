"""Runs a pipeline: a runner is chosen, signals are obeyed, errors are made plain."""

import contextlib
import functools
import io
import json
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.runner import PipelineRunner, create_runner

from beam_pipelines.writing import job_servers
from beam_pipelines.writing import options as beam_options
from support import pool
from support.errors import ExitCode, UserError, usage_error

#: Below this many images, starting processes takes longer than it saves.
FEW_IMAGES = 20_000

#: Adds the transforms to a pipeline, for a number of processes on this machine.
Graph = Callable[[beam.Pipeline, int], Any]

#: Runs a graph to its end, given how many images it reads; returns the runner in words.
Run = Callable[[Graph, int], str]

_LOCAL_RUNNERS = ("directrunner", "fnapirunner", "direct", "fnapi")
#: Beam and all that a worker process imports again as part of its `__main__`.
_WORKERS_IMPORT = ("beam_pipelines.writing.rounds", "beam_pipelines.reporting.report")
_ERROR_TEXT = re.compile(r"<<celeba-error (\[.*?\])>>")


@contextlib.contextmanager
def engine(options: PipelineOptions) -> Iterator[Run]:
    """Opens what runs the pipelines of one build, and closes it.

    Beam's `DirectRunner` would first try to download another runner; here it means
    the runner inside the SDK.

    Raises:
      UserError: exit 2, what the options ask for is not there; in the block, what a
        worker raised.
    """
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    name = _runner_name(options)
    if is_local(options):
        yield functools.partial(_run_locally, options=options)
        return
    with contextlib.ExitStack() as stack:
        if beam_options.is_dask(name):
            from beam_pipelines.writing import dask_engine  # an extra has it

            runner = stack.enter_context(dask_engine.open_runner(options))
        elif job_servers.engine_of(name):
            runner = stack.enter_context(job_servers.open_runner(options))
        else:
            runner = _create(name)
            if isinstance(runner, PrismRunner):
                _start_prism(runner, options)

        # Ctrl-C must not wait for a job server, nor may its threads print.
        run_job = _run_in_thread if job_servers.engine_of(name) else _run

        def run(graph: Graph, _images: int) -> str:
            run_job(graph, runner, options, 1)
            return name

        yield run


def _create(name: str) -> PipelineRunner:
    try:
        return create_runner(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise usage_error(
            f"--runner={name} cannot be loaded: {error}.",
            "Install what it needs, or use --runner=DirectRunner.",
        ) from error


def _start_prism(runner: PrismRunner, options: PipelineOptions) -> None:
    """Starts the program that all of the build's pipelines will use."""
    if options.view_as(PortableOptions).job_endpoint:
        return
    try:
        runner.default_job_server(options).start()
    except Exception as error:  # it downloads, unpacks and starts a program
        raise usage_error(
            f"Prism cannot be started: {error}".split("\n")[0].rstrip(".") + ".",
            "Name its program with --prism_location=FILE, or use DirectRunner.",
        ) from error


def _run_locally(graph: Graph, images: int, options: PipelineOptions) -> str:
    """Runs a graph in this process; for many images it gets a process per core."""
    mode, workers = _choose_mode(options, images)
    # A copy: the next pass chooses again.
    options = PipelineOptions.from_dictionary(options.get_all_options(True))
    direct = options.view_as(DirectOptions)
    direct.direct_running_mode, direct.direct_num_workers = mode, workers
    processes = 1
    if mode == "multi_processing":
        # Beam's own would each import Beam and log to the terminal.
        direct.direct_running_mode, direct.direct_num_workers = "in_memory", 1
        processes = workers
    if processes > 1:
        pool.warm_up(_WORKERS_IMPORT)
    _run_in_thread(graph, create_runner("FnApiRunner"), options, processes)
    return f"FnApiRunner, {mode}, {workers} worker{'s' * (workers > 1)}"


def prepare(options: PipelineOptions, images: int) -> None:
    """Starts what worker processes need, while there is other work to do."""
    if is_local(options):
        mode, workers = _choose_mode(options, images)
        if mode == "multi_processing" and workers > 1:
            with contextlib.suppress(UserError):  # the run will meet it again
                pool.warm_up(_WORKERS_IMPORT)


def to_text(error: UserError) -> str:
    """A text that survives Beam, which passes on only the text of an error."""
    fields = [error.cause, error.remedy, int(error.exit_code)]
    return f"<<celeba-error {json.dumps(fields)}>>"


def from_text(text: str) -> UserError | None:
    """The error that `to_text` wrote into a text, if there is one."""
    match = _ERROR_TEXT.search(text)
    if not match:
        return None
    cause, remedy, code = json.loads(match[1])
    return UserError(cause, remedy, ExitCode(code))


def _run(
    graph: Graph, runner: PipelineRunner, options: PipelineOptions, processes: int
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Beam's own, about its own code
            pipeline = beam.Pipeline(runner=runner, options=options)
            graph(pipeline, processes)
            pipeline.run().wait_until_finish()
    except Exception as error:
        text = str(error)
        plain = from_text(text)
        if plain is None and "Traceback (most recent call last)" in text:
            plain = RuntimeError(text.strip().split("\n")[-1])
        if plain is None:
            raise
        raise plain from error


def _run_in_thread(
    graph: Graph, runner: PipelineRunner, options: PipelineOptions, processes: int
) -> None:
    """Runs in a thread that a signal can leave: Beam would take it for an error."""
    errors: list[BaseException] = []
    ended = threading.Event()  # a signal in `Thread.join` marks the thread as ended

    def work() -> None:
        try:
            _run(graph, runner, options, processes)
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)
        ended.set()

    # Beam also prints what it raises.
    with contextlib.redirect_stderr(io.StringIO()):
        threading.Thread(target=work, daemon=True).start()
        try:
            ended.wait()
        except BaseException:
            for _ in range(20 if processes > 1 else 0):
                pool.kill_workers()
                if ended.wait(0.05):  # else some may just have been starting
                    break
            raise
    if errors:
        raise errors[0]


def _runner_name(options: PipelineOptions) -> str:
    return options.view_as(StandardOptions).runner or "DirectRunner"


def is_local(options: PipelineOptions) -> bool:
    return _runner_name(options).lower() in _LOCAL_RUNNERS


def _choose_mode(options: PipelineOptions, images: int) -> tuple[str, int]:
    """Beam's mode and the number of workers, by the options or the dataset's size."""
    direct = options.view_as(DirectOptions)
    given = options.get_all_options(drop_default=True)
    workers = direct.direct_num_workers or pool.cores()
    mode = direct.direct_running_mode
    if "direct_num_workers" not in given and images >= FEW_IMAGES:
        workers = pool.cores()
    if "direct_running_mode" not in given and workers > 1:
        mode = "multi_processing"
    return mode, 1 if mode == "in_memory" else workers
