"""Test metrics with intervals that resample people, not images.

Pictures of one person resemble each other, so resampling images makes intervals too
narrow. Each bootstrap draw takes as many people as there are, with replacement, and
weights every picture by how often its person was drawn (the cluster bootstrap;
Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
The point values are scikit-learn's; the draws are computed here, all at once. Where
nothing went wrong every draw says the same, and `opened` gives the interval its width.

The expected calibration error (Guo, Pleiss, Sun and Weinberger, "On Calibration of
Modern Neural Networks", ICML 2017), which scikit-learn does not have: the confidence
of an example is the probability of the label that it is given. Examples go into 15
bins of equal width, (0, 1/15], ..., (14/15, 1], by their confidence; with two labels
and a threshold of 0.5 that is at least 0.5, so only the upper eight are used. The error
is the mean over examples of the distance, in their bin, between the share of examples
called right and the mean confidence. Resampling adds noise to every bin, so the draws
and with them the interval lie a little high.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from schemas import celeba

LEVEL = 0.95
#: The lowest probability that is called label 1.
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

#: A metric that more than this share of the draws leaves undefined has no interval.
_UNDEFINED_DRAWS = 0.05
#: Weights held at once, draws times examples: 3 MB per array, about a cache.
_CHUNK = 400_000
#: Names of label 0's own metrics among the draws; those of label 1 are in `SCALARS`.
_OF_LABEL_0 = {name: f"{name}_0" for name in PER_CLASS}
_COMPUTED = (*SCALARS, *_OF_LABEL_0.values())


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
      threshold: lowest probability that counts as a predicted 1.

    Returns:
      A JSON-serialisable dict: `n`, `people`, `threshold`, `bootstrap` (how the
      intervals were made), `confusion_matrix` [[tn, fp], [fn, tp]], for each of
      `SCALARS` {"value": float or None, "interval": [low, high] or None}, and
      `per_class`: for label 0 and for label 1 {"label", "n", and each of `PER_CLASS` in
      the same form}. A value is None where it is undefined (AUC of one class), an
      interval also where there is only one person to resample. Shares of exactly 0 or
      1 have the interval of `opened`. That of balanced accuracy is then the mean of
      those of the two recalls, that of F1 the harmonic mean of those of precision and
      recall.

    Raises:
      ValueError: no rows, or a label or probability outside its range.
    """
    label = predictions["label"].to_numpy(np.int64)
    probability = predictions["probability"].to_numpy(np.float64)
    _check(label, probability)
    person, people = clusters(predictions["identity"].to_numpy(np.int64))
    values = point_values(label, probability, threshold)
    intervals = dict.fromkeys(values)
    if people > 1:
        samples = bootstrap(label, probability, person, draws, seed, threshold)
        intervals = {name: interval(samples[name]) for name in values}
        predicted = (probability >= threshold).astype(np.int64)
        intervals = _open_all(values, intervals, label, predicted, person)
    found = {name: _estimate(values[name], intervals[name]) for name in values}
    matrix = sk.confusion_matrix(label, probability >= threshold, labels=[0, 1])
    names = (_OF_LABEL_0, {name: name for name in PER_CLASS})
    return {
        "n": len(label),
        "people": int(people),
        "threshold": threshold,
        "bootstrap": {"over": "people", "draws": draws, "seed": seed, "level": LEVEL},
        "confusion_matrix": matrix.tolist(),
        **{name: found[name] for name in SCALARS},
        "per_class": [
            {"label": value, "n": int(matrix[value].sum())}
            | {name: found[key] for name, key in names[value].items()}
            for value in (0, 1)
        ],
    }


def clusters(identity: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the people 0, 1, ...; each example of an unknown person is its own.

    Args:
      identity: (n,) int, -1 = unknown.

    Returns:
      (n,) int64 person numbers, and how many there are.
    """
    known = identity != celeba.UNKNOWN_IDENTITY
    names, numbers = np.unique(identity[known], return_inverse=True)
    person = np.empty(len(identity), np.int64)
    person[known] = numbers
    person[~known] = len(names) + np.arange(np.count_nonzero(~known))
    return person, len(names) + int(np.count_nonzero(~known))


def point_values(
    label: np.ndarray, probability: np.ndarray, threshold: float
) -> dict[str, float | None]:
    """The metrics of one test set by scikit-learn; None where undefined.

    Returns:
      Per name in `SCALARS`, and per metric of label 0, its value.
    """
    predicted = (probability >= threshold).astype(np.int64)
    gaps = _gaps(label, probability, threshold)
    by_label = sk.precision_recall_fscore_support(
        label, predicted, labels=[0, 1], zero_division=np.nan
    )
    values = {
        "accuracy": sk.accuracy_score(label, predicted),
        "log_loss": sk.log_loss(label, probability, labels=[0, 1]),
        "brier": np.mean((probability - label) ** 2),
        "ece": np.abs(gaps.sum(axis=0)).sum() / len(label),
    }
    for name, (of_label_0, of_label_1) in zip(PER_CLASS, by_label[:3], strict=True):
        values |= {_OF_LABEL_0[name]: of_label_0, name: of_label_1}
    if 0 < label.sum() < len(label):
        values |= {
            "balanced_accuracy": sk.balanced_accuracy_score(label, predicted),
            "auc": sk.roc_auc_score(label, probability),
            "average_precision": sk.average_precision_score(label, probability),
        }
    return {name: _finite(values.get(name, math.nan)) for name in _COMPUTED}


def bootstrap(
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
      person: (n,) numbers 0..people-1, see `clusters`.
      draws: number of draws.
      seed: seed of the draws.
      threshold: lowest probability that counts as a predicted 1.

    Returns:
      Per metric (draws,) float64, NaN where a draw leaves it undefined.
    """
    people = int(person.max()) + 1
    sums = _sums_by_person(label, probability, person, threshold)
    parts = []
    for weights in person_weights(people, len(label), draws, seed):
        counted = _counted(weights @ sums)
        ranked = _ranked(label, probability, weights, person)
        parts.append(counted | ranked)
    return {name: np.concatenate([part[name] for part in parts]) for name in _COMPUTED}


def ratio(
    part: np.ndarray,
    whole: np.ndarray,
    identity: np.ndarray,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """A sum over examples as a share of another, for example errors of decisions.

    Args:
      part: (n,) numbers whose sum is divided, 0..whole.
      whole: (n,) numbers by whose sum it is divided.
      identity: (n,) int, -1 = unknown: a cluster of its own.
      draws: bootstrap draws.
      seed: seed of the draws.

    Returns:
      {"value": float or None, "interval": [low, high] or None}, as in `evaluate`; of
      a share of exactly 0 or 1 the interval of `opened`.
    """
    person, people = clusters(identity)
    sums = np.stack([np.bincount(person, part), np.bincount(person, whole)], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts, wholes = resample(sums, draws, seed).T
        value = np.divide(*sums.sum(axis=0))
        bounds = interval(parts / wholes) if people > 1 else None
    bounds = opened(value, bounds, np.count_nonzero(sums[:, 1]))
    return _estimate(_finite(value), bounds)


def resample(sums: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Sums over the people of each draw, counted as often as they were drawn.

    Args:
      sums: (people, columns) over each person's examples.
      draws: number of draws.
      seed: seed of the draws.

    Returns:
      (draws, columns) float64.
    """
    people = len(sums)
    drawn = [weights @ sums for weights in person_weights(people, 0, draws, seed)]
    return np.concatenate(drawn)


def interval(samples: np.ndarray) -> list[float] | None:
    """The percentile interval of (draws,) samples; None if too many are undefined."""
    if np.mean(np.isnan(samples)) > _UNDEFINED_DRAWS:
        return None
    tail = (1 - LEVEL) / 2
    return np.nanquantile(samples, [tail, 1 - tail]).tolist()


def opened(
    value: float | None, bounds: list[float] | None, people: int
) -> list[float] | None:
    """The interval of a share, its far end opened if the share is exactly 0 or 1.

    Then every draw says the same, for resampling cannot see what did not occur. The
    rule of three can (Hanley and Lippman-Hand, "If Nothing Goes Wrong, Is Everything
    All Right?", JAMA 249, 1983): the far end is 3 by the number of people away.

    Args:
      value: the share; None or NaN if undefined.
      bounds: its percentile interval, None if unknown.
      people: with an example that it is a share of.
    """
    if bounds is None or value not in (0, 1):
        return bounds
    reach = min(1.0, float(3 / people))
    low, high = bounds
    return [0.0, max(high, reach)] if value == 0 else [min(low, 1 - reach), 1.0]


def _open_all(
    values: Mapping[str, float | None],
    intervals: Mapping[str, list[float] | None],
    label: np.ndarray,
    predicted: np.ndarray,
    person: np.ndarray,
) -> dict[str, list[float] | None]:
    """The intervals of `evaluate`, those of perfect values opened."""
    of = {
        "accuracy": np.ones(len(label), bool),
        "precision": predicted == 1,
        "recall": label == 1,
        _OF_LABEL_0["precision"]: predicted == 0,
        _OF_LABEL_0["recall"]: label == 0,
    }
    found = dict(intervals)
    for name, inside in of.items():
        people = len(np.unique(person[inside]))
        found[name] = opened(values[name], intervals[name], people)

    def combine(name: str, parts: Sequence[str], mean: Callable) -> None:
        if intervals[name] is not None and values[name] in (0, 1):
            # An F1 of 0 can have an undefined part, of which anything may be true.
            ends = [found[part] or [0.0, 1.0] for part in parts]
            found[name] = [float(mean(end)) for end in zip(*ends, strict=True)]

    combine("balanced_accuracy", ("recall", _OF_LABEL_0["recall"]), statistics.mean)
    for names in ({name: name for name in PER_CLASS}, _OF_LABEL_0):
        parts = (names["precision"], names["recall"])
        combine(names["f1"], parts, statistics.harmonic_mean)
    return found


def _check(label: np.ndarray, probability: np.ndarray) -> None:
    if not len(label):
        raise ValueError("there are no predictions to evaluate")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("a label is neither 0 nor 1")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a probability is outside 0..1 or not a number")


def person_weights(
    people: int, examples: int, draws: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields (chunk, people) float64: how often each draw took each person."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(draws, _CHUNK // max(people, examples)))
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        taken = rng.integers(0, people, size=(rows, people))
        taken += np.arange(rows)[:, None] * people
        counts = np.bincount(taken.ravel(), minlength=rows * people)
        yield counts.reshape(rows, people).astype(np.float64)


def _sums_by_person(
    label: np.ndarray, probability: np.ndarray, person: np.ndarray, threshold: float
) -> np.ndarray:
    """(people, 21): tn, fp, fn, tp, log loss, squared error, 15 `_gaps`, summed."""
    cell = 2 * label + (probability >= threshold)
    tiny = np.finfo(np.float64).eps  # the clipping of sklearn.metrics.log_loss
    likelihood = np.where(label == 1, probability, 1 - probability)
    columns = [cell == number for number in range(4)]
    columns.append(-np.log(np.clip(likelihood, tiny, 1 - tiny)))
    columns.append((probability - label) ** 2)
    columns += list(_gaps(label, probability, threshold).T)
    return np.stack([np.bincount(person, column) for column in columns], axis=1)


def _gaps(label: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """(n, 15): in the column of an example's bin, 1 if right less its confidence."""
    predicted = probability >= threshold
    confidence = np.where(predicted, probability, 1 - probability)
    number = np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64) - 1
    gaps = np.zeros((len(label), CONFIDENCE_BINS))
    right = predicted == (label == 1)
    gaps[np.arange(len(label)), np.maximum(number, 0)] = right - confidence
    return gaps


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
    total = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total


def _estimate(value: float | None, bounds: list[float] | None) -> dict[str, Any]:
    return {"value": value, "interval": None if value is None else bounds}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
