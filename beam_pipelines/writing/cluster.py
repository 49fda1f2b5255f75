"""What must hold before a job goes to Dataflow: checked before anything is uploaded."""

import importlib.util
from collections.abc import Iterator, Mapping

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from support.errors import UserError, usage_error

_EXAMPLES = {
    "project": "my-project",
    "region": "us-central1",
    "temp_location": "gs://my-bucket/tmp",
}


def check(options: PipelineOptions, paths: Mapping[str, str]) -> None:
    """Refuses a job that Dataflow could not run; other runners are not looked at.

    Args:
      options: Beam's.
      paths: the flags that name data, and their values.

    Raises:
      UserError: exit 2, for a flag that is missing or names a place on this machine.
    """
    runner = options.view_as(StandardOptions).runner or ""
    if "dataflow" not in runner.rpartition(".")[2].lower():
        return
    for error in _errors(options, paths):
        raise error


def _errors(options: PipelineOptions, paths: Mapping[str, str]) -> Iterator[UserError]:
    google = options.view_as(GoogleCloudOptions)
    for flag, example in _EXAMPLES.items():
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
