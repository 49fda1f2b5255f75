"""Beam's side of the build: options checked, a runner chosen, errors made plain."""

import argparse
import contextlib
import json
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    BeamFnControlServicer,
    GrpcServer,
    GrpcWorkerHandler,
    StateServicer,
    WorkerHandler,
)
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import json_format

from beam_pipelines.writing import worker
from support.errors import ExitCode, UserError, did_you_mean, usage_error
from support.pool import cores

#: Below this many images, starting processes takes longer than it saves.
FEW_IMAGES = 20_000

#: Adds the transforms to a pipeline.
Graph = Callable[[beam.Pipeline], Any]

_LOCAL_RUNNERS = ("directrunner", "fnapirunner", "direct", "fnapi")
_ERROR_TEXT = re.compile(r"<<celeba-error (\[.*?\])>>")


def parse_options(words: Sequence[str], own_flags: Sequence[str]) -> PipelineOptions:
    """Turns the words that are not our flags into Beam's options.

    Args:
      words: of the command line, for example ["--runner", "DirectRunner"].
      own_flags: names of our flags, to suggest when a word is neither.

    Raises:
      UserError: exit 2, for a word that is no option of Beam or a value it refuses.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for options in _subclasses(PipelineOptions):
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(list(words))
    if unknown:
        ours = [f"--{flag}" for flag in own_flags]
        raise _unknown(unknown[0], [*ours, *parser._option_string_actions])
    _check_runner(known.runner)
    if (known.runner or "").lower().startswith("portable") and not known.job_endpoint:
        raise usage_error(
            f"--runner={known.runner} needs --job_endpoint.",
            "Name the job service, for example --job_endpoint=localhost:8099.",
        )
    if known.direct_num_workers < 0:
        raise usage_error(
            f"--direct_num_workers={known.direct_num_workers} is negative.",
            "Use 0 for one per processor.",
        )
    return PipelineOptions(list(words))


def run(graph: Graph, options: PipelineOptions, images: int) -> str:
    """Runs a graph to its end.

    Beam's `DirectRunner` would first try to download another runner; here it means
    the runner inside the SDK: in this process for few images, else in one process per
    core, unless the options say otherwise.

    Args:
      graph: adds the transforms to a pipeline.
      options: Beam's.
      images: how many will be read.

    Returns:
      the runner that was used, in words.

    Raises:
      UserError: what a worker raised.
    """
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    name = options.view_as(StandardOptions).runner or "DirectRunner"
    if name.lower() not in _LOCAL_RUNNERS:
        try:
            chosen = create_runner(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise usage_error(
                f"--runner={name} cannot be loaded: {error}.",
                "Install what it needs, or use --runner=DirectRunner.",
            ) from error
        _run(graph, chosen, options)
        return name
    mode, workers = _choose_mode(options, images)
    # A copy: the next round chooses anew.
    options = PipelineOptions.from_dictionary(options.get_all_options(True))
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = workers
    if mode == "multi_processing":
        # Beam's own choice of processes would start workers that log to the terminal.
        direct.direct_running_mode = "in_memory"
        _run_in_processes(graph, options)
    else:
        _run_in_thread(graph, FnApiRunner(), options)
    return f"FnApiRunner, {mode}, {workers} worker{'s' * (workers > 1)}"


def expect(options: PipelineOptions, images: int) -> None:
    """Prepares for a run of up to so many images, while there is other work to do."""
    name = options.view_as(StandardOptions).runner or "DirectRunner"
    if name.lower() in _LOCAL_RUNNERS:
        if _choose_mode(options, images)[0] == "multi_processing":
            with contextlib.suppress(OSError):  # the run will meet it again
                worker.warm_up()


def to_text(error: UserError) -> str:
    """A text that survives Beam, which passes on only the text of an error."""
    fields = [error.cause, error.remedy, int(error.exit_code)]
    return f"<<celeba-error {json.dumps(fields)}>>"


def from_text(text: str) -> UserError | None:
    """The error that `to_text` wrote into a text, if there is one."""
    found = _ERROR_TEXT.search(text)
    if not found:
        return None
    cause, remedy, code = json.loads(found[1])
    return UserError(cause, remedy, ExitCode(code))


def _run(graph: Graph, runner: PipelineRunner, options: PipelineOptions) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Beam's own, about its own code
            pipeline = beam.Pipeline(runner=runner, options=options)
            graph(pipeline)
            pipeline.run().wait_until_finish()
    except Exception as error:
        plain = _plain(error)
        if plain is error:
            raise
        raise plain from error


def _plain(error: Exception) -> Exception:
    """What a worker raised; from a process it comes as the text of a traceback."""
    text = str(error)
    last = text.strip().split("\n")[-1].removeprefix("RuntimeError: ")  # Beam's own
    if isinstance(error, MemoryError) or re.match(r"(\w+: )*MemoryError\b", last):
        return _out_of_memory("A worker ran out of memory.")
    is_traceback = "Traceback (most recent call last)" in text
    return from_text(text) or (RuntimeError(last) if is_traceback else error)


def _run_in_thread(
    graph: Graph,
    runner: PipelineRunner,
    options: PipelineOptions,
    lost: Callable[[], bool] = lambda: False,
) -> None:
    """Runs in a thread that can be left: when workers are lost, or by a signal.

    Beam would take Ctrl-C for an error of the pipeline.
    """
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _run(graph, runner, options)
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() and not lost():
        thread.join(0.05)
    if errors:
        raise errors[0]
    if thread.is_alive():
        raise _out_of_memory(
            "A worker process was killed or could not start, perhaps because memory "
            "ran out."
        )


def _run_in_processes(graph: Graph, options: PipelineOptions) -> None:
    """Runs in worker processes of our own, which end when this process does.

    Beam's runner would wait forever for a worker that was killed. So it runs in a
    thread that can be left, and the handlers of the workers watch them.
    """
    _WorkerHandler.lost = threading.Event()
    try:
        worker.warm_up()
    except OSError as error:
        raise UserError(
            f"Worker processes cannot be started: {error}.",
            "Add --direct_num_workers=1, or set TMPDIR to a folder with a short path.",
            ExitCode.OUTPUT,
        ) from error
    environment = SubprocessSDKEnvironment.from_command_string("")
    runner = FnApiRunner(default_environment=environment)
    with _silent_threads():
        _run_in_thread(graph, runner, options, _WorkerHandler.lost.is_set)


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Keeps Beam's and gRPC's threads from printing tracebacks.

    They do when workers end before them, as after Ctrl-C: until this process is gone,
    if the block is left by an error.
    """
    hook, threading.excepthook = threading.excepthook, lambda _: None
    logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)
    yield
    threading.excepthook = hook


def _out_of_memory(cause: str) -> UserError:
    return UserError(
        cause,
        "Run the same command again to go on; --direct_num_workers=1 takes less.",
        ExitCode.OUT_OF_MEMORY,
    )


def _choose_mode(options: PipelineOptions, images: int) -> tuple[str, int]:
    """In how many processes to work, as options or size say."""
    direct = options.view_as(DirectOptions)
    given = options.get_all_options(drop_default=True)
    workers = direct.direct_num_workers or cores()
    mode = direct.direct_running_mode
    if "direct_num_workers" not in given and images >= FEW_IMAGES:
        workers = cores()
    if "direct_running_mode" not in given and workers > 1:
        mode = "multi_processing"
    return mode, 1 if mode == "in_memory" else workers


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class _WorkerHandler(GrpcWorkerHandler):
    """Starts a worker as a process, and notices when one ends that should not.

    Attributes:
      lost: set when a worker was killed or could not start.
    """

    lost = threading.Event()

    def __init__(
        self,
        _command: bytes,
        state: StateServicer,
        provision_info: Any,
        grpc_server: GrpcServer,
    ):
        super().__init__(state, provision_info, grpc_server)
        options = provision_info.provision_info.pipeline_options
        self._environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{self.control_address}"',
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start_worker(self) -> None:
        self._thread.start()

    def stop_worker(self) -> None:
        self._thread.join()

    def close(self) -> None:
        # Beam tells the end to connected workers and then waits for all of them,
        # forever for one that connects later: here the message waits for it.
        self.control_conn.push(BeamFnControlServicer._DONE_MARKER)
        super().close()

    def _watch(self) -> None:
        try:
            process = worker.start(self._environment)
        except (OSError, EOFError):
            self.lost.set()
            return
        process.join()
        if process.exitcode:
            self.lost.set()


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise usage_error(
            f"Beam refuses its options: {message}.", "Correct the option."
        )


def _unknown(word: str, names: list[str]) -> UserError:
    if not word.startswith("-"):
        return usage_error(f"{word!r} is not a flag.", "Flags begin with --.")
    flag = f"--{word.lstrip('-').split('=')[0]}"
    remedy = did_you_mean(flag, names)
    if not remedy.startswith("Did"):
        remedy = "--help lists the flags; Beam's options are accepted too."
    return usage_error(f"There is no flag {flag}.", remedy)


def _check_runner(name: str | None) -> None:
    known = [*StandardOptions.KNOWN_RUNNER_NAMES, "FnApiRunner"]
    lowered = [runner.lower() for runner in known]
    if name is None or "." in name:
        return
    if name.lower() not in lowered and f"{name.lower()}runner" not in lowered:
        raise usage_error(f"--runner={name} is not known.", did_you_mean(name, known))


def _subclasses(parent: type) -> list[type]:
    found = []
    for child in parent.__subclasses__():
        found += [child, *_subclasses(child)]
    return found
