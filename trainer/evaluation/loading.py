"""What a report is made of: the files that a run or an evaluation left."""

import dataclasses
import io
import re
from pathlib import Path
from typing import Annotated, Literal, NotRequired

import pandas as pd
from pydantic import Field, FiniteFloat

from support.documents import Count, Document, Fraction, Sha256, read_json, read_text
from support.errors import ExitCode, UserError
from trainer.architectures import ARCHITECTURES
from trainer.evaluation import subgroups
from trainer.runs import FLAGS, HISTORY, METRICS, PREDICTIONS, provenance
from trainer.runs.record import Data, RunRecord, Split, checked, read_run, require

_REQUIRED = ("attribute", "best_epoch", "data", "epochs", "model", "parameters")
#: Keys of `run.json` that an evaluation on other data replaces.
_OF_DATA = ("data", "manifest_digest")
_PREDICTED = ("image_id", "identity", "label", "probability")
_HISTORY = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
_Number = Annotated[int, Field(ge=1, le=10**9)]


class Estimate(Document):
    """A metric; None where it is undefined, or has no interval."""

    value: FiniteFloat | None
    interval: tuple[FiniteFloat, FiniteFloat] | None


class _Bootstrap(Document):
    over: Literal["people", "images"]
    draws: Count
    seed: Count


class _OfClass(Document):
    precision: Estimate
    recall: Estimate
    f1: Estimate


class _Uncalibrated(Document):
    log_loss: FiniteFloat


class _Calibration(Document):
    temperature: FiniteFloat
    uncalibrated: _Uncalibrated


class _Abstention(Document):
    abstain: Fraction
    decided: Count
    coverage: Estimate
    error: Estimate
    target_error: Fraction | None


class Evaluation(Document):
    """What metrics.json says of the model and data of `trainer.evaluate`."""

    data: Data
    manifest_digest: str
    model_sha256: Sha256
    notes: list[str]


class Metrics(Document):
    """metrics.json, see `evaluation.results.assess`; older runs lack some keys."""

    split: NotRequired[Split]
    n: _Number
    people: _Number
    threshold: Fraction
    bootstrap: _Bootstrap
    confusion_matrix: tuple[tuple[Count, Count], tuple[Count, Count]]
    accuracy: Estimate
    balanced_accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auc: Estimate
    average_precision: Estimate
    log_loss: Estimate
    brier: Estimate
    ece: NotRequired[Estimate]
    per_class: NotRequired[tuple[_OfClass, _OfClass]]
    calibration: NotRequired[_Calibration]
    abstention: NotRequired[_Abstention]
    evaluation: NotRequired[Evaluation]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run and the results of one evaluation of it.

    Attributes:
      record: `run.json`, its facts about the data replaced by those of the evaluation.
      metrics: `metrics.json`, see `evaluation.results.assess`.
      history: `history.csv`, one row per epoch.
      predictions: `predictions.csv`, one row per image.
      flags: `flags.txt`, without the folders of the machine that trained.
      subgroups: `subgroups.json`, None without it.
    """

    record: RunRecord
    metrics: Metrics
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
    def evaluation(self) -> Evaluation | None:
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
    record = read_run(run_dir)
    require(run_dir, record, _REQUIRED)
    record = {key: value for key, value in record.items() if value is not None}
    metrics = read_metrics(results_dir)
    evaluation, model = metrics.get("evaluation"), provenance.model_sha256(record)
    if evaluation and evaluation["model_sha256"] != model:
        raise foreign(results_dir, f"no evaluation of the model in {run_dir}")
    groups = subgroups.read(results_dir)
    if groups is not None and groups["n"][0] != metrics["n"]:
        raise foreign(
            results_dir / subgroups.JSON_NAME,
            f"about {groups['n'][0]:,} images, not the {metrics['n']:,} here",
        )
    history = read_csv(run_dir, HISTORY)
    if record["best_epoch"] not in history["epoch"].to_numpy():
        raise _input_error(
            f"{run_dir / HISTORY} has no epoch {record['best_epoch']}, the best."
        )
    run = Run(
        record=record,
        metrics=metrics,
        history=history,
        predictions=read_csv(results_dir, PREDICTIONS),
        flags=re.sub("--(data|run)_dir=/.*\n", "", checked(run_dir, FLAGS, read_text)),
        subgroups=groups,
    )
    return evaluated(run, metrics) if evaluation else run


def evaluated(run: Run, metrics: Metrics) -> Run:
    """The same run with the numbers and data of an evaluation, for its metrics only."""
    replaced = {key: metrics["evaluation"][key] for key in _OF_DATA}
    return dataclasses.replace(run, record=run.record | replaced, metrics=metrics)


def read_metrics(results_dir: Path) -> Metrics:
    """Reads metrics.json of a run or an evaluation.

    Raises:
      UserError: exit 3, it is missing, damaged or of another program.
    """
    return checked(results_dir, METRICS, read_json, Metrics)


def read_csv(run_dir: Path, name: str, attribute: str | None = None) -> pd.DataFrame:
    """Reads one of the tables of a run: every example's prediction, or the history.

    Args:
      run_dir: its folder.
      name: of the file; any but history.csv is of predictions.
      attribute: what must have a column among the attributes.

    Raises:
      UserError: exit 3, it is missing, empty, damaged or of another program, or a
        value is out of range, with its line.
    """
    path, text = run_dir / name, checked(run_dir, name, read_text)
    try:
        table = pd.read_csv(
            io.StringIO(text), dtype={"image_id": str}, keep_default_na=False
        )
    except (ValueError, OverflowError) as error:  # pandas' own are ValueErrors
        raise _input_error(f"{path} is not a complete CSV file.") from error
    columns = _HISTORY if name == HISTORY else [*_PREDICTED, *filter(None, [attribute])]
    for column in columns:
        if column not in table:
            raise _input_error(f"{path}:1 has no column {column}.")
    if table.empty:
        raise _input_error(f"{path} has no rows.")
    numbers = table.drop(columns="image_id", errors="ignore")
    numbers = numbers.apply(pd.to_numeric, errors="coerce")
    if name == HISTORY:
        wrong = numbers[columns].isna()
    else:
        wrong = ~numbers.isin((0, 1))
        identity = numbers["identity"]
        wrong["identity"] = (identity % 1 != 0) | ~identity.between(-1, 2**53)
        wrong["probability"] = ~numbers["probability"].between(0, 1)
    for column in wrong.columns[wrong.any()]:
        row = wrong[column].idxmax()
        value = str(table[column][row])
        raise _input_error(f"{path}:{row + 2} {column} is {value!r}.")
    return table


def foreign(path: Path, what: str) -> UserError:
    """The error (exit 5) of results that are not of the run."""
    return UserError(
        f"{path} is {what}.",
        "Name a folder that `python -m trainer.evaluate` wrote for this run, or write "
        "it again.",
        ExitCode.INTEGRITY,
    )


def _input_error(cause: str) -> UserError:
    return UserError(cause, "Give the folder of a finished run.", ExitCode.INPUT_DATA)
