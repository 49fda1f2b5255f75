"""run.json, and how the other files of a run folder are read: without Keras."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, FiniteFloat

from schemas import celeba
from schemas.manifest import Manifest
from support.documents import Count, Document, DocumentError, Sha256, read_json
from support.errors import ExitCode, UserError
from support.files import atomic_write
from trainer.config import INPUT_SIZES, TrainConfig
from trainer.runs import RUN

FINISHED, RUNNING = "finished", "running"
Split = Literal[celeba.SPLITS]
_VERSIONS = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn")


class About(Document):
    """The data set that the images come from, see `schemas.dataset.About`."""

    key: str
    name: str
    terms: str
    home_page: str


class Data(Document):
    """A dataset, in run.json and of an evaluation."""

    image_shape: tuple[Count, Count, Count]
    split: str | None
    class_counts: dict[Split, tuple[Count, Count]]
    dataset: About
    sources: dict[str, dict[str, str | int | float | bool]]


class RunRecord(Document, total=False):
    """run.json; an unfinished run lacks the end, older ones lack more."""

    status: str
    started: str | None
    model: str
    regime: str
    input_size: Annotated[int, Field(ge=INPUT_SIZES[0], le=INPUT_SIZES[1])]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    attribute: str
    manifest_digest: str
    global_batch: Count
    versions: dict[str, str]
    data: Data
    precision: str
    xla: bool
    devices: list[str]
    device_name: str
    replicas: Count
    parameters: Count
    preprocessing: str
    flip_average: bool
    decoded_in_memory: list[Split]
    finished: str
    files: dict[str, Sha256]
    epochs: Count
    best_epoch: Count
    train_seconds: FiniteFloat | None
    images_per_second: FiniteFloat | None
    input_wait: FiniteFloat
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    inference_images_per_second: FiniteFloat | None


class Export(Document):
    """The JSON file next to an export."""

    format: str
    file: str
    sha256: Sha256
    model_sha256: Sha256
    manifest_digest: str
    attribute: str
    largest_difference: FiniteFloat | None
    compared_on: NotRequired[dict[str, Any]]


def checked(run_dir: str | Path, name: str, reader: Callable, *args: Any) -> Any:
    """Reads a file of a run folder with a reader of `support.documents`.

    Raises:
      UserError: exit 3, it is missing, damaged or of another program.
    """
    path = Path(run_dir) / name
    try:
        return reader(path, *args)
    except (FileNotFoundError, NotADirectoryError):
        cause = f"{run_dir} holds no {name}."
        if name == RUN or not path.parent.is_dir():
            cause = f"{run_dir} is not a run folder: it holds no {name}."
    except DocumentError as error:
        cause = error.at(path)
    except OSError as error:
        cause = f"{path} cannot be read: {error.strerror}."
    remedy = "Name the folder of a run, or restore the file from a copy."
    raise UserError(cause, remedy, ExitCode.INPUT_DATA)


def read_run(run_dir: str | Path) -> RunRecord:
    """Reads run.json.

    Raises:
      UserError: there is none, or it is damaged (exit 3).
    """
    return checked(run_dir, RUN, read_json, RunRecord)


def write_run(run_dir: str | Path, run: Mapping[str, Any]) -> None:
    atomic_write(Path(run_dir) / RUN, json.dumps(run, indent=1) + "\n")


def require(run_dir: str | Path, run: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Checks that run.json holds some of the values that it may lack.

    Raises:
      UserError: it does not (exit 3).
    """
    missing = [key for key in keys if run.get(key) is None]
    if missing:
        raise UserError(
            f"{Path(run_dir) / RUN} has no {missing[0]!r}.",
            "Restore it from a copy, or train again.",
            ExitCode.INPUT_DATA,
        )


def is_finished(run_dir: str | Path) -> bool:
    """Whether the run in a folder ended; no run, or a damaged one, did not."""
    try:
        return read_run(run_dir).get("status") == FINISHED
    except UserError:
        return False


def describe(config: TrainConfig, manifest: Manifest) -> RunRecord:
    """Describes a run before its first step, without devices and model."""
    return {
        "status": RUNNING,
        "started": now(),
        "model": config.model,
        "regime": config.regime,
        "input_size": config.input_size,
        "flip_average": config.flip_average,
        "seed": config.seed,
        "attribute": manifest.attribute,
        "manifest_digest": manifest.digest,
        "global_batch": config.batch_size,
        "versions": versions(*_VERSIONS),
        "data": describe_data(manifest),
    }


def describe_data(manifest: Manifest) -> Data:
    """Describes a dataset as run.json and metrics.json do."""
    return {
        "image_shape": list(manifest.image_shape),
        "split": manifest.config.get("split"),
        "class_counts": {
            split: list(manifest.class_counts(split)) for split in celeba.SPLITS
        },
        "dataset": dataclasses.asdict(manifest.dataset),
        "config": manifest.config,
        "sources": manifest.sources,
    }


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        # TensorFlow goes by other names too: tensorflow-cpu, for one.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
