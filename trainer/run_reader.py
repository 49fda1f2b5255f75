"""What a report is made of: the files that a run or an evaluation left."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from support.errors import ExitCode, UserError
from trainer import subgroup_table

MODEL_NAMES = {
    "googlenet": "GoogLeNet",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
}

_RUN_KEYS = ("attribute", "best_epoch", "data", "epochs", "model", "parameters")
#: Keys of `run.json` that an evaluation on other data replaces.
_OF_DATA = ("data", "manifest_digest")
_METRIC_KEYS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "average_precision",
    "log_loss",
    "brier",
    "confusion_matrix",
)
_PREDICTED = ("image_id", "identity", "label", "probability")
_COLUMNS = {
    "predictions.csv": _PREDICTED,
    "predictions-validation.csv": _PREDICTED,
    "history.csv": ("epoch", "loss", "accuracy", "val_loss", "val_accuracy"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run and the results of one evaluation of it.

    Attributes:
      record: `run.json`, its facts about the data replaced by those of the evaluation.
      metrics: `metrics.json`, see `trainer.results.assess`.
      history: `history.csv`, one row per epoch.
      predictions: `predictions.csv`, one row per image.
      flags: `flags.txt`.
      subgroups: `subgroups.json`, None without it.
    """

    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    flags: str
    subgroups: subgroup_table.Table | None

    @property
    def positive(self) -> str:
        """The attribute as words, for example "Wearing Hat"."""
        return self.record["attribute"].replace("_", " ")

    @property
    def model_name(self) -> str:
        return MODEL_NAMES.get(self.record["model"], self.record["model"])

    @property
    def split(self) -> str:
        return self.metrics.get("split", "test")

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """What `trainer.evaluate` says of the data; None: the run's own test."""
        return self.metrics.get("evaluation")


def load_run(run_dir: Path, results_dir: Path | None = None) -> Run:
    """Reads a run folder.

    Args:
      run_dir: a finished run's folder.
      results_dir: where metrics.json and predictions.csv are, if elsewhere.

    Raises:
      UserError: exit 3, a file is missing, damaged or of another program.
    """
    results_dir = results_dir or run_dir
    record = _read_json(run_dir, "run.json", _RUN_KEYS)
    metrics = _read_json(results_dir, "metrics.json", _METRIC_KEYS)
    evaluation = metrics.get("evaluation", {})
    replaced = {key: evaluation[key] for key in _OF_DATA if key in evaluation}
    return Run(
        record=record | replaced,
        metrics=metrics,
        history=read_csv(run_dir, "history.csv"),
        predictions=read_csv(results_dir, "predictions.csv"),
        flags=_read(run_dir, "flags.txt"),
        subgroups=subgroup_table.read(results_dir),
    )


def _read(run_dir: Path, name: str) -> str:
    try:
        return (run_dir / name).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"{run_dir} holds no {name}" if run_dir.is_dir() else f"No run {run_dir}"
        raise _input_error(f"{what}.") from error
    except UnicodeDecodeError as error:
        raise _input_error(f"{run_dir / name} is not a text file.") from error


def _read_json(run_dir: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        document = json.loads(_read(run_dir, name))
    except json.JSONDecodeError as error:
        raise _input_error(
            f"{run_dir / name}:{error.lineno} is not complete JSON."
        ) from error
    missing = [key for key in keys if key not in document]
    if missing:
        raise _input_error(f"{run_dir / name} has no {missing[0]!r}.")
    return document


def read_csv(run_dir: Path, name: str) -> pd.DataFrame:
    """Reads one of the tables of a run: every example's prediction, or the history.

    Raises:
      UserError: exit 3, it is missing, damaged or of another program.
    """
    _read(run_dir, name)
    try:
        table = pd.read_csv(
            run_dir / name, dtype={"image_id": str}, keep_default_na=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _input_error(f"{run_dir / name} is not a complete CSV file.") from error
    missing = [column for column in _COLUMNS[name] if column not in table]
    numbers = [column for column in _COLUMNS[name] if column != "image_id"]
    if missing:
        raise _input_error(f"{run_dir / name} has no column {missing[0]!r}.")
    if not all(pd.api.types.is_numeric_dtype(table[column]) for column in numbers):
        raise _input_error(f"{run_dir / name} has a value that is not a number.")
    return table


def _input_error(cause: str) -> UserError:
    return UserError(cause, "Give the folder of a finished run.", ExitCode.INPUT_DATA)
