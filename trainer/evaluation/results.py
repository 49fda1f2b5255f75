"""Test results: from predictions to metrics.json, predictions.csv and two lists."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from support import text
from support.files import atomic_write_all
from trainer.evaluation import calibration, metrics, subgroups
from trainer.runs import METRICS, PREDICTIONS

LABEL_ERRORS, UNCERTAIN = "likely_label_errors.csv", "most_uncertain.csv"
LOGIT = "logit"

_LISTED = ["image_id", "identity", "label", "probability"]
_UNCERTAIN_ROWS = 100
_UNCALIBRATED = ("log_loss", "brier", "ece")


def calibrated(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """The same predictions with the probabilities that a temperature gives.

    Returns:
      First the columns image_id, identity, label and probability, as in the files.
    """
    probability = calibration.probabilities(predictions[LOGIT], temperature)
    table = predictions.assign(probability=probability)
    first = [name for name in _LISTED if name in table]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def assess(
    predictions: pd.DataFrame,
    temperature: float,
    split: str,
    abstain: float = calibration.ABSTAIN,
    target_error: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that metrics.json says of the predictions for a split.

    Args:
      predictions: columns identity, label, logit, and probability at `temperature`.
      temperature: what the logits were divided by.
      split: name of the split.
      abstain: half the width of the band around 0.5 without a decision.
      target_error: what the band was chosen for on the validation split, if it was.
      seed: of the bootstrap.

    Returns:
      The metrics of `metrics.evaluate` and `split`; `calibration`: the temperature,
      the reliability bins, and under `uncalibrated` some metrics at temperature 1;
      `abstention`: see `calibration.abstention`, with `target_error`.
    """
    label = predictions["label"].to_numpy()
    probability = predictions["probability"].to_numpy()
    result = metrics.evaluate(predictions, seed=seed)
    plain = calibration.probabilities(predictions[LOGIT])
    before = metrics.point_values(label, plain, result["threshold"])
    bins = calibration.reliability(label, probability)
    return {
        "split": split,
        **result,
        "calibration": {
            "temperature": temperature,
            "uncalibrated": {name: before[name] for name in _UNCALIBRATED},
            "reliability": bins.to_dict("records"),
        },
        "abstention": calibration.abstention(predictions, abstain, seed=seed)
        | {"target_error": target_error},
    }


def write(
    folder: Path,
    predictions: pd.DataFrame,
    result: dict[str, Any],
    attribute: str,
) -> None:
    """Writes predictions.csv, metrics.json, subgroups and lists of doubtful examples.

    Args:
      folder: an existing folder.
      predictions: see `assess`, with image_id and a column of each attribute.
      result: what `assess` returned, with or without additions.
      attribute: the one that is the label.
    """
    seed = result["bootstrap"]["seed"]
    uncertain = calibration.most_uncertain(predictions, _UNCERTAIN_ROWS)
    groups = subgroups.evaluate(predictions, attribute, seed=seed)
    documents = {METRICS: json.dumps(result, indent=1) + "\n"}
    for name, table in {
        PREDICTIONS: predictions.drop(columns=LOGIT),
        LABEL_ERRORS: calibration.likely_label_errors(predictions)[_LISTED],
        UNCERTAIN: uncertain[_LISTED],
    }.items():
        documents[name] = table.to_csv(index=False)
    documents |= subgroups.documents(groups, attribute=attribute, seed=seed)
    atomic_write_all(folder, documents)


def summary(result: dict[str, Any]) -> str:
    """The lines that a program prints at its end."""
    accuracy, coverage, error = (
        text.estimate(one["value"], one["interval"], text.percent)
        for one in (
            result["accuracy"],
            result["abstention"]["coverage"],
            result["abstention"]["error"],
        )
    )
    band = result["abstention"]["abstain"]
    low, high = text.percent(0.5 - band), text.percent(0.5 + band)
    plain = result["calibration"]["uncalibrated"]["log_loss"]
    return (
        f"{result['split']} accuracy {accuracy} on {text.images_of_people(result)} "
        f"(95 % interval, {text.resampled(result)})\n"
        f"temperature {result['calibration']['temperature']:.3f}: log loss "
        f"{result['log_loss']['value']:.4f}, without it {plain:.4f}\n"
        f"abstains between {low} and {high}: coverage {coverage}, error {error}"
    ).replace("\u00a0", " ")
