"""What a report is made of: the files that a run or an evaluation left."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from schemas import celeba
from support.documents import (
    DocumentError,
    Maybe,
    Optional,
    between,
    is_count,
    is_number,
    is_sha256,
    read_json,
    read_text,
)
from support.errors import ExitCode, UserError
from trainer.architectures import ARCHITECTURES
from trainer.evaluation import subgroups
from trainer.runs.run_record import BEST, DATA_SHAPE, RUN_SHAPE, is_attribute

_REQUIRED = ("attribute", "best_epoch", "data", "epochs", "model", "parameters")
_RUN_SHAPE = RUN_SHAPE | {key: RUN_SHAPE[key].shape for key in _REQUIRED}
#: Keys of `run.json` that an evaluation on other data replaces.
_OF_DATA = ("data", "manifest_digest")
_SHARE = between(0, 1)
_ESTIMATE = {"value": Maybe(is_number), "interval": Maybe((is_number, is_number))}
_ESTIMATED = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "average_precision",
    "log_loss",
    "brier",
)
_OF_CLASS = {"precision": _ESTIMATE, "recall": _ESTIMATE, "f1": _ESTIMATE}
_METRICS_SHAPE = dict.fromkeys(_ESTIMATED, _ESTIMATE) | {
    "n": between(1, 1e9, int),
    "people": between(1, 1e9, int),
    "threshold": _SHARE,
    "bootstrap": {"draws": is_count, "seed": is_count},
    "confusion_matrix": ((is_count, is_count), (is_count, is_count)),
    "split": Optional(lambda value: value in celeba.SPLITS),
    "ece": Optional(_ESTIMATE),
    "per_class": Optional((_OF_CLASS, _OF_CLASS)),
    "calibration": Optional(
        {"temperature": is_number, "uncalibrated": {"log_loss": is_number}}
    ),
    "abstention": Optional(
        {
            "abstain": _SHARE,
            "decided": is_count,
            "coverage": _ESTIMATE,
            "error": _ESTIMATE,
            "target_error": Maybe(_SHARE),
        }
    ),
    "evaluation": Optional(
        {
            "data": DATA_SHAPE,
            "manifest_digest": str,
            "model_sha256": is_sha256,
            "notes": [str],
        }
    ),
}
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
      metrics: `metrics.json`, see `evaluation.results.assess`.
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
    subgroups: pd.DataFrame | None

    @property
    def positive(self) -> str:
        """The attribute as words, for example "Wearing Hat"."""
        return self.record["attribute"].replace("_", " ")

    @property
    def model_name(self) -> str:
        name = self.record["model"]
        return ARCHITECTURES[name].title if name in ARCHITECTURES else name

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
      UserError: a file is missing, damaged or of another program (exit 3); the results
        are of another model, or the subgroups of other images (5).
    """
    results_dir = results_dir or run_dir
    record = _checked(run_dir, "run.json", read_json, _RUN_SHAPE)
    record = {key: value for key, value in record.items() if value is not None}
    metrics = read_metrics(results_dir)
    evaluation = metrics.get("evaluation", {})
    model = record.get("files", {}).get(BEST)
    if evaluation and evaluation["model_sha256"] != model:
        raise _foreign(results_dir, f"no evaluation of the model in {run_dir}")
    groups = subgroups.read(results_dir)
    if groups is not None and groups["n"][0] != metrics["n"]:
        raise _foreign(
            results_dir / subgroups.JSON_NAME,
            f"about {groups['n'][0]:,} images, not the {metrics['n']:,} here",
        )
    replaced = {key: evaluation[key] for key in _OF_DATA if key in evaluation}
    history = read_csv(run_dir, "history.csv")
    if record["best_epoch"] not in history["epoch"].to_numpy():
        raise _input_error(
            f"{run_dir / 'history.csv'} has no epoch {record['best_epoch']}, the best."
        )
    return Run(
        record=record | replaced,
        metrics=metrics,
        history=history,
        predictions=read_csv(results_dir, "predictions.csv"),
        flags=_checked(run_dir, "flags.txt", read_text),
        subgroups=groups,
    )


def evaluated(run: Run, metrics: Mapping[str, Any]) -> Run:
    """The same run with the numbers and data of an evaluation, for its metrics only."""
    facts = metrics["evaluation"]
    replaced = {key: facts[key] for key in _OF_DATA if key in facts}
    return dataclasses.replace(run, record=run.record | replaced, metrics=metrics)


def read_metrics(results_dir: Path) -> dict[str, Any]:
    """Reads metrics.json of a run or an evaluation, see `evaluation.results.assess`.

    Raises:
      UserError: exit 3, it is missing, damaged or of another program.
    """
    return _checked(results_dir, "metrics.json", read_json, _METRICS_SHAPE)


def read_for_groups(run_dir: Path) -> tuple[str, float, dict[str, int]]:
    """The attribute, threshold and bootstrap of a run, for its subgroups.

    Raises:
      UserError: exit 3, run.json or metrics.json is missing or damaged.
    """
    record = _checked(run_dir, "run.json", read_json, {"attribute": is_attribute})
    shape = {key: _METRICS_SHAPE[key] for key in ("threshold", "bootstrap")}
    metrics = _checked(run_dir, "metrics.json", read_json, shape)
    return record["attribute"], metrics["threshold"], metrics["bootstrap"]


def _checked(run_dir: Path, name: str, reader: Callable, *more: Any) -> Any:
    """Calls a reader of `support.documents`; its errors become the user's."""
    path = run_dir / name
    try:
        return reader(path, *more)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"{run_dir} holds no {name}" if run_dir.is_dir() else f"No run {run_dir}"
        raise _input_error(f"{what}.") from error
    except DocumentError as error:
        raise _input_error(error.at(path)) from error
    except OSError as error:
        raise _input_error(f"{path} cannot be read: {error.strerror}.") from error


def read_csv(run_dir: Path, name: str) -> pd.DataFrame:
    """Reads one of the tables of a run: every example's prediction, or the history.

    Raises:
      UserError: exit 3, it is missing, damaged or of another program.
    """
    text = _checked(run_dir, name, read_text)
    try:
        table = pd.read_csv(
            io.StringIO(text), dtype={"image_id": str}, keep_default_na=False
        )
    except (ValueError, OverflowError) as error:  # pandas' own are ValueErrors
        raise _input_error(f"{run_dir / name} is not a complete CSV file.") from error
    missing = [column for column in _COLUMNS[name] if column not in table]
    numbers = [column for column in _COLUMNS[name] if column != "image_id"]
    if missing:
        raise _input_error(f"{run_dir / name} has no column {missing[0]!r}.")
    if not all(pd.api.types.is_numeric_dtype(table[column]) for column in numbers):
        raise _input_error(f"{run_dir / name} has a value that is not a number.")
    if name == "history.csv":
        return table
    good = table["label"].isin((0, 1)) & table["probability"].between(0, 1)
    good &= pd.api.types.is_integer_dtype(table["identity"])
    if not good.all():
        row = int(good.to_numpy().argmin())
        raise _input_error(
            f"{run_dir / name}:{row + 2} has a label, probability or identity that is "
            "none."
        )
    return table


def _foreign(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is {what}.",
        "Name a folder that `python -m trainer.evaluate` wrote for this run, or write "
        "it again.",
        ExitCode.INTEGRITY,
    )


def _input_error(cause: str) -> UserError:
    return UserError(cause, "Give the folder of a finished run.", ExitCode.INPUT_DATA)
