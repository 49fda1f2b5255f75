"""Beam's options, checked before anything is read, written or uploaded."""

import argparse
import contextlib
import importlib
import importlib.util
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence

from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from beam_pipelines.writing import job_servers
from support.errors import UserError, did_you_mean, usage_error

_DATAFLOW_NEEDS = {
    "project": "my-project",
    "region": "us-central1",
    "temp_location": "gs://my-bucket/tmp",
}


def parse(words: Sequence[str], own_flags: Sequence[str]) -> PipelineOptions:
    """Turns the words that are not our flags into Beam's options.

    Args:
      words: of the command line, for example ["--runner", "DirectRunner"].
      own_flags: names of our flags, to suggest when a word is neither.

    Raises:
      UserError: exit 2, for a word that is no option of Beam or a value it refuses.
    """

    def refuse_unknown(parser: argparse.ArgumentParser) -> None:
        parser.exit_on_error = False
        try:
            _, unknown = parser.parse_known_args(list(words))
        except argparse.ArgumentError as error:
            raise usage_error(
                f"Beam refuses its options: {error}.", "Correct the option."
            ) from error
        if job_servers.engine_of(runner):  # its job server may know the option
            logging.getLogger("apache_beam.options").setLevel(logging.ERROR)
            unknown = [word for word in unknown if not word.startswith("--")]
        if unknown:
            spelt = re.findall(r"--\w+", parser.format_usage())
            raise _unknown(unknown[0], [*(f"--{name}" for name in own_flags), *spelt])

    options = PipelineOptions(list(words))
    runner = _runner(options)
    if is_dask(runner):
        _require_dask()
    elif flag := next((word for word in words if word.startswith("--dask_")), None):
        flag = flag.split("=")[0]
        raise usage_error(f"{flag} needs --runner=DaskRunner.", "Add it.")
    options.get_all_options(add_extra_args_fn=refuse_unknown)
    _check_runner(runner)
    job_servers.check(options, words)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if runner.lower().startswith("portable") and not endpoint:
        raise usage_error(
            f"--runner={runner} needs --job_endpoint.",
            "Name the job service, for example --job_endpoint=localhost:8099.",
        )
    workers = options.view_as(DirectOptions).direct_num_workers
    if workers < 0:
        raise usage_error(
            f"--direct_num_workers={workers} is negative.",
            "Use 0 for one per processor.",
        )
    return options


def _runner(options: PipelineOptions) -> str:
    """The value of --runner, "" without; the first that is asked of Beam's parser."""
    lines = io.StringIO()
    try:
        with contextlib.redirect_stderr(lines):
            return options.view_as(StandardOptions).runner or ""
    except SystemExit as error:
        what = lines.getvalue().strip().rpartition("error: ")[2]
        raise usage_error(
            f"Beam refuses its options: {what}.", "Correct the option."
        ) from error


def is_dask(runner: str) -> bool:
    """Tells whether `--runner` names Beam's DaskRunner, in any spelling."""
    return re.sub("runner$", "", runner.rpartition(".")[2].lower()) == "dask"


def check_dataflow(options: PipelineOptions, paths: Mapping[str, str]) -> None:
    """Refuses a job that Dataflow could not run; ignores other runners.

    Args:
      options: Beam's.
      paths: the flags that name data, and their values.

    Raises:
      UserError: exit 2, for a flag that is missing or names a place on this machine.
    """
    runner = options.view_as(StandardOptions).runner or ""
    if "dataflow" in runner.rpartition(".")[2].lower():
        for error in _dataflow_errors(options, paths):
            raise error


def _dataflow_errors(
    options: PipelineOptions, paths: Mapping[str, str]
) -> Iterator[UserError]:
    google = options.view_as(GoogleCloudOptions)
    for flag, example in _DATAFLOW_NEEDS.items():
        if not getattr(google, flag):
            yield usage_error(
                f"--runner=DataflowRunner needs --{flag}.",
                f"Add it, for example --{flag}={example}.",
            )
    for flag, path in {**paths, "temp_location": google.temp_location}.items():
        if not path.startswith("gs://"):
            yield usage_error(
                f"--{flag}={path} is on this machine, where Dataflow cannot reach it.",
                f"Copy it to a bucket and write --{flag}=gs://...",
            )
    setup = options.view_as(SetupOptions)
    image = options.view_as(WorkerOptions).sdk_container_image
    if not (setup.setup_file or setup.extra_packages or image):
        yield usage_error(
            "Dataflow's workers would not have this program.",
            "Add --setup_file=./setup.py, from a checkout.",
        )
    if importlib.util.find_spec("google.cloud.dataflow") is None:
        yield usage_error(
            "Beam's Dataflow support is not installed.",
            "Run: pip install -e '.[gcp]'",
        )


def _require_dask() -> None:
    """Makes Beam know Dask's options, which it does when the runner is imported."""
    if importlib.util.find_spec("distributed") is None:
        raise usage_error(
            "--runner=DaskRunner needs Dask, which is not installed.",
            "Run: pip install -e '.[dask]'",
        )
    importlib.import_module("apache_beam.runners.dask.dask_runner")


def _unknown(word: str, names: Sequence[str]) -> UserError:
    if not word.startswith("-"):
        return usage_error(f"{word!r} is not a flag.", "Flags begin with --.")
    flag = f"--{word.lstrip('-').split('=')[0]}"
    remedy = did_you_mean(flag, names)
    if not remedy.startswith("Did"):
        remedy = "--help lists the flags; Beam's options are accepted too."
    return usage_error(f"There is no flag {flag}.", remedy)


def _check_runner(name: str) -> None:
    known = [*StandardOptions.KNOWN_RUNNER_NAMES, "DaskRunner"]
    short = {re.sub("runner$", "", runner.lower()) for runner in known}
    if name and "." not in name and re.sub("runner$", "", name.lower()) not in short:
        raise usage_error(f"--runner={name} is not known.", did_you_mean(name, known))
