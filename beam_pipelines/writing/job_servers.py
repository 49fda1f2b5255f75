"""Beam's runners that hand the job to a Java program: Flink, Spark, a job service."""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import create_runner

from beam_pipelines.config import BuildConfig
from support.errors import UserError, nearest, output_error, usage_error

#: Engines whose job server Beam starts: its options, the ones of its jar and version.
_ENGINES = {
    "flink": (FlinkRunnerOptions, "flink_job_server_jar", "flink_version"),
    "spark": (SparkRunnerOptions, "spark_job_server_jar", "spark_version"),
}
#: Loggers to which Beam writes what the Java programs print.
_LOGGERS = ("FlinkJarJobServer", "SparkJarJobServer")
#: Lines in which Java says why it failed; of a chain of causes the last is the first.
_REASON = re.compile(
    r"^(?:Caused by: (?:\w+\.[\w.$]+: )*)?"
    r"((?<=: ).+|Unrecognized .+|Error: .+|no main manifest.+)$",
    re.MULTILINE,
)


def engine_of(runner: str) -> str | None:
    """The engine behind `--runner`: "flink", "spark", "portable" or None."""
    name = re.sub("runner$", "", runner.rpartition(".")[2].lower())
    return name if name in (*_ENGINES, "portable") else None


def check(options: PipelineOptions, words: Sequence[str]) -> None:
    """Refuses a job server that cannot start; chooses the jar that `make` wrote.

    With `--flink_version` or `--spark_version` Beam gets the one that it publishes.

    Args:
      options: Beam's, from `words`.
      words: of the command line.

    Raises:
      UserError: exit 2, there is no Java or no such jar.
    """
    engine = engine_of(options.view_as(StandardOptions).runner or "")
    if engine not in _ENGINES or options.view_as(PortableOptions).job_endpoint:
        return
    java = options.view_as(JobServerOptions).job_server_java_launcher
    if shutil.which(java) is None:
        raise usage_error(
            f"--runner={engine.title()}Runner needs Java, and there is no {java!r}.",
            "Install Java 17, or name its launcher with --job_server_java_launcher.",
        )
    kind, flag, version = _ENGINES[engine]
    own, made = options.view_as(kind), made_jar(engine)
    given = getattr(own, flag)
    if given and "://" not in given and not os.path.exists(given):
        raise usage_error(
            f"--{flag}={given} does not exist.",
            f"Run `make engine-{engine}` once, or name another jar.",
        )
    chosen = any(word.startswith(f"--{version}") for word in words)
    if not given and not chosen and made.exists():
        setattr(own, flag, str(made))


def made_jar(engine: str) -> Path:
    """The place where `make engine-flink` or `make engine-spark` puts a job server."""
    folder = os.environ.get("CELEBA_JARS") or "~/.cache/celeba-attributes"
    return Path(folder).expanduser() / engine / "job-server.jar"


@contextlib.contextmanager
def open_runner(options: PipelineOptions) -> Iterator[PortableRunner]:
    """Makes a runner, and starts its job server if the options name none.

    What the job server prints goes into a file, which is kept if it fails.

    Raises:
      UserError: exit 2, no job server starts or answers, or it does not know an option;
        exit 4, it was lost, or the engine gave up.
    """
    name = options.view_as(StandardOptions).runner
    runner = create_runner(name)
    with _log_file(engine_of(name)) as log, contextlib.ExitStack() as stack:
        if not options.view_as(PortableOptions).job_endpoint:
            # One for all passes, where Beam would start another one for each.
            server = runner.default_job_server(options)
            stack.callback(server.stop)
            runner.default_job_server = lambda _: server
        _refuse_unknown(options, _connect(runner, options, log))
        try:
            yield runner
        except grpc.RpcError as error:
            raise _failed("The job server was lost", error.details(), log) from error
        except RuntimeError as error:
            if "failed in state" not in str(error):
                raise
            raise _failed(f"{name} gave up", str(error), log) from error


def _connect(runner: PortableRunner, options: PipelineOptions, log: Path) -> Any:
    """The job service of the server that the options name, else of the runner's."""
    try:
        return runner.create_job_service(options).job_service
    except grpc.FutureTimeoutError as error:
        endpoint = options.view_as(PortableOptions).job_endpoint
        raise usage_error(
            f"No job service answers at {endpoint}.",
            "Start one there, or name another with --job_endpoint.",
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).split(": ")[0]  # if Beam could not fetch a jar, no more
        raise usage_error(
            _failed("The job server does not start", reason, log).cause,
            f"See {log}; `make engine-flink` or `engine-spark` fetches a tested jar.",
        ) from error


def _refuse_unknown(options: PipelineOptions, service: Any) -> None:
    """Refuses options that neither Beam nor the job server knows."""
    request = beam_job_api_pb2.DescribePipelineOptionsRequest()
    answer = service.DescribePipelineOptions(request)
    known = {*options.get_all_options(), *(option.name for option in answer.options)}
    for name in options.get_all_options(retain_unknown_options=True):
        if name not in known:
            own = [field.name for field in dataclasses.fields(BuildConfig)]
            near = [f"--{other}" for other in nearest(name, [*own, *known])]
            raise usage_error(
                f"There is no flag --{name}, nor does the job server know it.",
                f"Did you mean {' or '.join(near)}?" if near else "Leave it out.",
            )


@contextlib.contextmanager
def _log_file(engine: str) -> Iterator[Path]:
    """A file for what Beam and the Java program log; it stays if an error names it."""
    descriptor, path = tempfile.mkstemp(prefix=f"celeba-{engine}-", suffix=".log")
    root = logging.getLogger()
    with open(descriptor, "w", buffering=1) as file:
        handlers, root.handlers = root.handlers, [logging.StreamHandler(file)]
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
        hook, threading.excepthook = threading.excepthook, _log_error
        keep = False
        try:
            yield Path(path)
        except UserError as error:
            keep = path in error.remedy
            raise
        finally:
            root.handlers, threading.excepthook = handlers, hook
            if not keep:
                os.unlink(path)


def _log_error(args: threading.ExceptHookArgs) -> None:
    """Logs what ended a thread of Beam or gRPC, instead of printing it."""
    error = (args.exc_type, args.exc_value, args.exc_traceback)
    logging.error("a thread ended", exc_info=error)


def _failed(cause: str, text: str, log: Path) -> UserError:
    """An error with the reason that a Java program gives, in a text or in its log."""
    reason = _REASON.findall(text) or _REASON.findall(log.read_text(errors="replace"))
    reason = reason[-1] if reason else text.split("\n")[0]
    remedy = f"See {log}; run the same command again to resume."
    return output_error(f"{cause}: {reason}", remedy)
