"""Test metrics with intervals that resample people, see `evaluation.bootstrap`.

Each metric is defined once, with weights: ones give its value, the draws its interval.
A test compares them with scikit-learn's, which takes a minute for 1,000 draws.

The expected calibration error (Guo, Pleiss, Sun and Weinberger, "On Calibration of
Modern Neural Networks", ICML 2017), which scikit-learn does not have: the confidence
of an example is the probability of its predicted label. Examples go into 15 bins of
equal width, (0, 1/15], ..., (14/15, 1], by their confidence; with two labels and a
threshold of 0.5 that is at least 0.5, so only the upper eight are used. The error is
the mean over examples of the distance, in their bin, between the fraction classified
correctly and the mean confidence. Resampling adds noise to every bin, so the draws and
with them the interval lie a little high.
"""

import statistics
from typing import Any

import numpy as np
import pandas as pd

from trainer.evaluation import bootstrap

#: The lowest probability of predicted label 1.
THRESHOLD = 0.5

#: Metric names, in the order in which they are reported.
SCALARS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
)
#: Metrics that are also reported for each label, as if it were the positive one.
PER_CLASS = ("precision", "recall", "f1")

#: Bins of the expected calibration error.
CONFIDENCE_BINS = 15


def evaluate(
    predictions: pd.DataFrame,
    draws: int = 1000,
    seed: int = 0,
    threshold: float = THRESHOLD,
) -> dict[str, Any]:
    """Computes every metric and its 95 % interval.

    Args:
      predictions: columns `identity` (int, -1 = unknown: a cluster of its own),
        `label` (0 or 1) and `probability` (of label 1, 0..1), one row per example.
      draws: bootstrap draws.
      seed: seed of the draws.
      threshold: lowest probability of predicted label 1.

    Returns:
      A JSON-serializable dict: `n`, `people`, `threshold`, `bootstrap` (how the
      intervals were made), `confusion_matrix` [[tn, fp], [fn, tp]], for each of
      `SCALARS` {"value": float or None, "interval": [low, high] or None}, and
      `per_class`: for label 0 and for label 1 {"label", "n", and each of `PER_CLASS` in
      the same form}. A value is None where it is undefined (AUC of one class), an
      interval also where there is only one person to resample. Proportions of exactly
      0 or 1 have the interval of `bootstrap.opened`. That of balanced accuracy is then
      the mean of those of the two recalls, that of F1 the harmonic mean of those of
      precision and recall.

    Raises:
      ValueError: no rows, or a label or probability outside its range.
    """
    label = predictions["label"].to_numpy(np.int64)
    probability = predictions["probability"].to_numpy(np.float64)
    _check(label, probability)
    identity = predictions["identity"].to_numpy(np.int64)
    person, people = bootstrap.clusters(identity)
    predicted = probability >= threshold
    values = point_values(label, probability, threshold)
    intervals = dict.fromkeys(values)
    if people > 1:
        samples = draw(label, probability, person, draws, seed, threshold)
        intervals = {name: bootstrap.interval(samples[name]) for name in values}
        _open(intervals, values, label, predicted, person)
    estimates = {
        name: bootstrap.estimate(values[name], intervals[name]) for name in values
    }
    cells = np.bincount(2 * label + predicted, minlength=4)
    matrix = cells.reshape(2, 2).tolist()
    return {
        "n": len(label),
        "people": people,
        "threshold": threshold,
        "bootstrap": {"over": bootstrap.unit(identity), "draws": draws, "seed": seed}
        | {"level": bootstrap.LEVEL},
        "confusion_matrix": matrix,
        **{name: estimates[name] for name in SCALARS},
        "per_class": [
            {"label": value, "n": sum(matrix[value])}
            | {name: estimates[name + suffix] for name in PER_CLASS}
            for value, suffix in enumerate(("_0", ""))
        ],
    }


def point_values(
    label: np.ndarray, probability: np.ndarray, threshold: float
) -> dict[str, float]:
    """The metrics of one test set; arguments as in `draw`.

    Returns:
      Per name in `SCALARS`, and `NAME_0` for each of `PER_CLASS` of label 0, its value;
      NaN where undefined.
    """
    # One person, who is drawn once.
    person = np.zeros(len(label), np.int64)
    sums = _sums_by_person(label, probability, person, threshold)
    values = _counted(sums) | _ranked(label, probability, np.ones((1, 1)), person)
    return {name: float(samples[0]) for name, samples in values.items()}


def draw(
    label: np.ndarray,
    probability: np.ndarray,
    person: np.ndarray,
    draws: int,
    seed: int,
    threshold: float,
) -> dict[str, np.ndarray]:
    """Every metric of every draw.

    Args:
      label: (n,) 0 or 1.
      probability: (n,) of label 1.
      person: (n,) numbers 0..people-1, see `bootstrap.clusters`.
      draws: number of draws.
      seed: seed of the draws.
      threshold: lowest probability of predicted label 1.

    Returns:
      Per metric (draws,) float64, NaN where a draw leaves it undefined.
    """
    sums = _sums_by_person(label, probability, person, threshold)
    parts = [
        _counted(weights @ sums) | _ranked(label, probability, weights, person)
        for weights in bootstrap.person_weights(len(sums), len(label), draws, seed)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _open(
    intervals: dict[str, np.ndarray],
    values: dict[str, float],
    label: np.ndarray,
    predicted: np.ndarray,
    person: np.ndarray,
) -> None:
    """Opens the intervals of values of exactly 0 or 1, in place."""
    inside = {
        "accuracy": np.ones(len(label), bool),
        "precision": predicted,
        "recall": label == 1,
        "precision_0": ~predicted,
        "recall_0": label == 0,
    }
    for name, rows in inside.items():
        people = len(np.unique(person[rows]))
        intervals[name] = bootstrap.opened(values[name], intervals[name], people)
    for name, parts, mean in (
        ("balanced_accuracy", ("recall", "recall_0"), statistics.mean),
        ("f1", ("precision", "recall"), statistics.harmonic_mean),
        ("f1_0", ("precision_0", "recall_0"), statistics.harmonic_mean),
    ):
        if values[name] in (0, 1) and np.isfinite(intervals[name]).all():
            # An F1 of 0 can have an undefined part, of which anything may be true.
            low, high = zip(*(intervals[part] for part in parts), strict=True)
            low, high = np.nan_to_num(low, nan=0.0), np.nan_to_num(high, nan=1.0)
            intervals[name] = np.array([mean(low.tolist()), mean(high.tolist())])


def _check(label: np.ndarray, probability: np.ndarray) -> None:
    if not len(label):
        raise ValueError("there are no predictions to evaluate")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a probability is outside 0..1 or not a number")


def _sums_by_person(
    label: np.ndarray, probability: np.ndarray, person: np.ndarray, threshold: float
) -> np.ndarray:
    """(people, 21) sums: tn, fp, fn, tp, log loss, squared error, and in the column of
    an example's bin of confidence, 1 if correct less its confidence.
    """
    predicted = probability >= threshold
    cell = 2 * label + predicted
    confidence = np.where(predicted, probability, 1 - probability)
    number = np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64) - 1
    gaps = np.zeros((CONFIDENCE_BINS, len(label)))
    correct = predicted == (label == 1)
    gaps[np.maximum(number, 0), np.arange(len(label))] = correct - confidence
    tiny = np.finfo(np.float64).eps  # the clipping of sklearn.metrics.log_loss
    likelihood = np.where(label == 1, probability, 1 - probability)
    columns = [cell == 0, cell == 1, cell == 2, cell == 3]
    columns.append(-np.log(np.clip(likelihood, tiny, 1 - tiny)))
    columns += [(probability - label) ** 2, *gaps]
    return np.stack([np.bincount(person, column) for column in columns], axis=1)


def _counted(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics that are ratios of sums, from (draws, 21) `_sums_by_person`."""
    tn, fp, fn, tp, log_loss, squared = sums[:, :6].T
    n = tn + fp + fn + tp
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "accuracy": (tn + tp) / n,
            "balanced_accuracy": (recall + specificity) / 2,
            "precision": tp / (tp + fp),
            "recall": recall,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "precision_0": tn / (tn + fn),
            "recall_0": specificity,
            "f1_0": 2 * tn / (2 * tn + fn + fp),
            "log_loss": log_loss / n,
            "brier": squared / n,
            "ece": np.abs(sums[:, 6:]).sum(axis=1) / n,
        }


def _ranked(
    label: np.ndarray, probability: np.ndarray, weights: np.ndarray, person: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics of the ranking, weighted by (draws, people): AUC, average precision.

    With cumulative weights over the sorted scores of each class, AUC is the mean over
    positives of the negatives below, ties half (Mann-Whitney); average precision is
    the mean over positives of the precision at their score.
    """
    order = np.argsort(probability, kind="stable")
    positive, negative = order[label[order] == 1], order[label[order] == 0]
    scores, others = probability[positive], probability[negative]
    w = weights[:, person[positive]]
    positives = _cumulative(w)
    negatives = _cumulative(weights[:, person[negative]])
    below = negatives[:, np.searchsorted(others, scores, "left")]
    at_most = negatives[:, np.searchsorted(others, scores, "right")]
    above = positives[:, -1:] - positives[:, np.searchsorted(scores, scores, "left")]
    false = negatives[:, -1:] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        wins = np.einsum("dn,dn->d", w, below + at_most) / 2
        precision = np.where(w > 0, above / (above + false), 0)
        mass = np.einsum("dn,dn->d", w, precision)
        area = wins / (positives[:, -1] * negatives[:, -1])
        both = np.where(np.isnan(area), np.nan, positives[:, -1])
        return {"auc": area, "average_precision": mass / both}


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """(draws, n) -> (draws, n + 1): the weight before each position, then all of it."""
    return np.pad(np.cumsum(weights, axis=1), ((0, 0), (1, 0)))
