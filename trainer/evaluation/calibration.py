"""Calibration of probabilities: temperature, reliability, abstention, doubtful labels.

Label 1 is an attribute that annotators *perceived*, so where a confident model and a
label disagree, either may be wrong.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

from trainer.evaluation import bootstrap, metrics

#: The lowest and the highest temperature that are fitted.
TEMPERATURES = (0.25, 20.0)
#: Distance of a probability from 0.5 below which a model abstains, by default.
ABSTAIN = 0.1


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(n,) logits to (n,) float64 probabilities of label 1, at any size of a logit."""
    return expit(np.asarray(logits, np.float64) / temperature)


def fit_temperature(label: np.ndarray, logits: np.ndarray) -> float:
    """Fits the temperature that logits are divided by for the smallest log loss.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML
    2017. The loss is convex in the inverse of the temperature. No logit changes sign,
    so that every predicted label stays.

    Args:
      label: (n,) 0 or 1, of examples that the model was not trained on.
      logits: (n,) float.

    Returns:
      A temperature within `TEMPERATURES`. If no logit contradicts its label (common in
      tiny sets) the loss falls forever as the temperature does, which says nothing
      about calibration: 1.0.

    Raises:
      ValueError: no examples, or a logit is NaN or infinite.
    """
    logits = np.asarray(logits, np.float64)
    margin = np.where(np.asarray(label) == 1, logits, -logits)
    if not len(margin) or not np.isfinite(margin).all():
        raise ValueError("there are no logits, or one is not a finite number")
    if (margin >= 0).all():
        return 1.0
    lowest, highest = TEMPERATURES
    best = minimize_scalar(
        lambda inverse: np.logaddexp(0, -margin * inverse).mean(),
        bounds=(1 / highest, 1 / lowest),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(1 / best.x)


def reliability(
    label: np.ndarray, probability: np.ndarray, bins: int = 10
) -> pd.DataFrame:
    """Compares predicted with observed frequencies, in bins of equal width.

    Unlike scikit-learn's `calibration_curve` it counts the examples of each bin.

    Args:
      label: (n,) 0 or 1.
      probability: (n,) of label 1, 0..1.
      bins: number of bins, each closed below, the last one also above.

    Returns:
      One row per bin that has examples: low, high, n, probability (mean), share (of
      label 1).
    """
    number = np.minimum((probability * bins).astype(int), bins - 1)
    table = pd.DataFrame({"probability": probability, "share": label}).groupby(number)
    means = table.mean()
    means.insert(0, "n", table.size())
    means.insert(0, "high", (means.index + 1) / bins)
    means.insert(0, "low", means.index / bins)
    return means.reset_index(drop=True)


def covered(probability: np.ndarray, abstain: float) -> np.ndarray:
    """(n,) bool: probabilities at least `abstain` (0..0.5) away from 0.5."""
    return np.maximum(probability, 1 - probability) >= 0.5 + abstain


def abstention(
    predictions: pd.DataFrame, abstain: float, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Coverage and error of a model that abstains near 0.5.

    Args:
      predictions: columns identity, label, probability, see `metrics.evaluate`.
      abstain: abstention threshold: it abstains less than this far from 0.5, 0..0.5.
      draws: bootstrap draws over people.
      seed: seed of the draws.

    Returns:
      `abstain`, `decided` and `errors` (counts), `coverage` (fraction of the images
      that get a label) and `error` (fraction of those that is wrong), both
      {"value", "interval"}.
    """
    probability = predictions["probability"].to_numpy(np.float64)
    identity = predictions["identity"].to_numpy(np.int64)
    labeled = covered(probability, abstain)
    wrong = labeled & _is_wrong(predictions["label"].to_numpy(), probability)
    everything = np.ones(len(labeled))
    return {
        "abstain": abstain,
        "decided": int(labeled.sum()),
        "errors": int(wrong.sum()),
        "coverage": bootstrap.ratio(labeled, everything, identity, draws, seed),
        "error": bootstrap.ratio(wrong, labeled, identity, draws, seed),
    }


def coverage_curve(label: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Every trade-off of coverage against error, from full coverage to the lowest.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification",
    JMLR 2010.

    Args:
      label: (n,) 0 or 1.
      probability: (n,) of label 1, 0..1.

    Returns:
      One row per threshold that abstains from other examples than the one before it:
      abstain (rising), coverage and error (0..1).
    """
    confidence = np.maximum(probability, 1 - probability)
    wrong = pd.Series(_is_wrong(label, probability))
    # Examples of one confidence are covered together.
    counts = wrong.groupby(confidence).agg(["size", "sum"])[::-1].cumsum()[::-1]
    abstain = counts.index.to_numpy() - 0.5
    abstain[:1] = 0.0  # a threshold below the least confident example abstains never
    coverage, error = counts["size"] / len(wrong), counts["sum"] / counts["size"]
    table = {"abstain": abstain, "coverage": coverage, "error": error}
    return pd.DataFrame(table).reset_index(drop=True)


def smallest_threshold(
    label: np.ndarray, probability: np.ndarray, target_error: float
) -> float | None:
    """The smallest abstention threshold with at most this error; None if none has."""
    curve = coverage_curve(label, probability)
    enough = curve[curve["error"] <= target_error]
    return None if enough.empty else float(enough["abstain"].iloc[0])


def likely_label_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Examples whose label the model contradicts, the most confident first.

    Confident means: at least as confident of the other label as it is on average of the
    examples that carry that one (Northcutt, Jiang and Chuang, "Confident Learning:
    Estimating Uncertainty in Dataset Labels", JAIR 2021).

    Args:
      predictions: columns image_id, label, probability.

    Returns:
      Some of the rows; ties are ordered by image_id.
    """
    label, probability = predictions["label"] == 1, predictions["probability"]
    usual_1, usual_0 = probability[label].mean(), (1 - probability[~label]).mean()
    confidence = np.maximum(probability, 1 - probability)
    confident = confidence >= np.where(label, usual_0, usual_1)
    return by_confidence(predictions[_is_wrong(label, probability) & confident])


def most_uncertain(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` rows whose probability is nearest to 0.5, ties by image_id."""
    return by_confidence(predictions, ascending=True).head(count)


def by_confidence(predictions: pd.DataFrame, ascending: bool = False) -> pd.DataFrame:
    """The rows by the distance of their probability from 0.5, ties by image_id."""
    distance = (predictions["probability"] - 0.5).abs()
    order = np.lexsort([predictions["image_id"], distance if ascending else -distance])
    return predictions.iloc[order]


def _is_wrong(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    return (probability >= metrics.THRESHOLD) != (label == 1)
