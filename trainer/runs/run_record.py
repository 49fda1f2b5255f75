"""What other programs read of a run folder, without Keras: they must start at once."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from schemas import celeba
from support.command import flags_text
from support.documents import (
    DocumentError,
    Each,
    Maybe,
    Optional,
    between,
    is_count,
    is_number,
    is_sha256,
    read_json,
)
from support.errors import ExitCode, UserError
from trainer.config import INPUT_SIZES, TrainConfig

RUN, FLAGS, BEST = "run.json", "flags.txt", "best.keras"
FINISHED = "finished"


_COUNTS = (is_count, is_count)
#: What is known of a dataset, in run.json and of an evaluation.
DATA_SHAPE = {
    "image_shape": (is_count, is_count, is_count),
    "split": Maybe(str),
    "class_counts": dict.fromkeys(celeba.SPLITS, _COUNTS),
    "dataset": {"key": str, "name": str, "terms": str, "home_page": str},
    "sources": Each(Each(lambda value: isinstance(value, str | int | float))),
}
#: What run.json may hold; readers require what they need beside it.
RUN_SHAPE = {
    "attribute": Optional(str),
    "best_epoch": Optional(is_count),
    "data": Optional(DATA_SHAPE),
    "decoded_in_memory": Optional([lambda value: value in celeba.SPLITS]),
    "device_name": Optional(str),
    "devices": Optional([str]),
    "epochs": Optional(is_count),
    "files": Optional(Each(is_sha256)),
    "finished": Optional(str),
    "global_batch": Optional(is_count),
    "images_per_second": Optional(Maybe(is_number)),
    "inference_images_per_second": Optional(Maybe(is_number)),
    "input_size": Optional(between(*INPUT_SIZES, int)),
    "input_wait": Optional(is_number),
    "manifest_digest": Optional(str),
    "model": Optional(str),
    "parameters": Optional(is_count),
    "precision": Optional(str),
    "preprocessing": Optional(str),
    "regime": Optional(str),
    "replicas": Optional(is_count),
    "seed": Optional(between(0, 2**32 - 1, int)),
    "started": Optional(Maybe(str)),
    "status": Optional(str),
    "temperature": Optional(between(1e-3, 1e3)),
    "train_seconds": Optional(Maybe(is_number)),
    "versions": Optional(Each(str)),
    "xla": Optional(bool),
}


def read(run_dir: str | Path) -> dict[str, Any]:
    """Reads a run folder's run.json, every known value of the type it should have.

    Raises:
      UserError: there is none, or it is damaged (exit 3).
    """
    path = Path(run_dir) / RUN
    try:
        return read_json(path, RUN_SHAPE)
    except (FileNotFoundError, NotADirectoryError) as error:
        cause = f"{run_dir} is not a run folder: it has no {RUN}."
        remedy = "Name a folder that `python -m trainer.main` wrote."
        raise UserError(cause, remedy, ExitCode.INPUT_DATA) from error
    except (DocumentError, OSError) as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}."
            if isinstance(error, OSError)
            else error.at(path),
            "Restore it from a copy, or train again.",
            ExitCode.INPUT_DATA,
        ) from error


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


def is_finished(run_dir: Path) -> bool:
    """Whether the run in a folder ended; no run, or a damaged one, did not."""
    try:
        return read(run_dir).get("status") == FINISHED
    except UserError:
        return False


def read_options(text: str) -> dict[str, str]:
    """The lines of a `flags.txt` as option -> value."""
    lines = [line.removeprefix("--").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines if name}


def all_options(text: str) -> dict[str, str]:
    """The same with the default of every option of `TrainConfig` that it leaves out.

    So an older run equals a newer one with the options of later versions unused.
    """
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    defaults = read_options(flags_text(TrainConfig(**fields)))
    return defaults | read_options(text)
