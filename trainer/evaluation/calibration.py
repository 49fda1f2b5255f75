"""What a probability is worth: temperature, reliability, abstention, doubtful labels.

NumPy and pandas only. Label 1 is an attribute that annotators *perceived*, so where a
sure model and a label disagree, either may be wrong.
"""

from typing import Any

import numpy as np
import pandas as pd

from trainer.evaluation import metrics

#: The lowest and the highest temperature that are fitted.
TEMPERATURES = (0.25, 20.0)
#: Half the width of the band around 0.5 without a decision, if none is asked for.
ABSTAIN = 0.1

_BISECTIONS = 60


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(n,) logits to (n,) float64 probabilities of label 1, at any size of a logit."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64) / temperature))


def fit_temperature(label: np.ndarray, logits: np.ndarray) -> float:
    """Finds the temperature that logits are divided by for the smallest log loss.

    Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML
    2017. The loss is convex in the inverse of the temperature, so bisection of its
    derivative finds the one minimum. It keeps every decision: no logit changes sign.

    Args:
      label: (n,) 0 or 1, of examples that the model was not trained on.
      logits: (n,) float.

    Returns:
      A temperature within `TEMPERATURES`. Without a single logit on the wrong side
      (common in tiny sets) the loss falls for ever as the temperature does; that says
      nothing about how sure to be, and 1.0 is returned.

    Raises:
      ValueError: no examples, or a logit is NaN or infinite.
    """
    margin = np.where(np.asarray(label) == 1, 1.0, -1.0) * np.asarray(logits)
    if not len(margin) or not np.isfinite(margin).all():
        raise ValueError("there are no logits, or one is not a finite number")
    if (margin >= 0).all():
        return 1.0
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        slope = -np.mean(margin * probabilities(-margin * middle))
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(2 / (low + high))


def reliability(
    label: np.ndarray, probability: np.ndarray, bins: int = 10
) -> pd.DataFrame:
    """Compares what the model says with what is labeled, in bins of equal width.

    Args:
      label: (n,) 0 or 1.
      probability: (n,) of label 1, 0..1.
      bins: number of bins, each closed below, the last one also above.

    Returns:
      One row per bin that has examples: low, high, n, probability (mean), share (of
      label 1).
    """
    number = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(number, minlength=bins)
    used = np.flatnonzero(count)
    return pd.DataFrame(
        {
            "low": used / bins,
            "high": (used + 1) / bins,
            "n": count[used],
            "probability": np.bincount(number, probability, bins)[used] / count[used],
            "share": np.bincount(number, label, bins)[used] / count[used],
        }
    )


def decided(probability: np.ndarray, abstain: float) -> np.ndarray:
    """(n,) bool: probabilities at least `abstain` (0..0.5) away from 0.5."""
    return np.maximum(probability, 1 - probability) >= 0.5 + abstain


def abstention(
    predictions: pd.DataFrame, abstain: float, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """How many examples a model decides that may leave some undecided, and how well.

    Args:
      predictions: columns identity, label, probability, see `metrics.evaluate`.
      abstain: half the width of the band around 0.5 without a decision, 0..0.5.
      draws: bootstrap draws over people.
      seed: seed of the draws.

    Returns:
      `abstain`, `decided` and `errors` (counts), `coverage` (share decided) and `error`
      (share of those that is wrong), both {"value", "interval"}.
    """
    probability = predictions["probability"].to_numpy(np.float64)
    identity = predictions["identity"].to_numpy(np.int64)
    sure = decided(probability, abstain)
    wrong = sure & _is_wrong(predictions["label"].to_numpy(), probability)
    everything = np.ones(len(sure))
    return {
        "abstain": abstain,
        "decided": int(sure.sum()),
        "errors": int(wrong.sum()),
        "coverage": metrics.ratio(sure, everything, identity, draws, seed),
        "error": metrics.ratio(wrong, sure, identity, draws, seed),
    }


def coverage_curve(label: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Every trade-off of coverage against error, from no band to the widest.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification",
    JMLR 2010.

    Args:
      label: (n,) 0 or 1.
      probability: (n,) of label 1, 0..1.

    Returns:
      One row per band that leaves other examples undecided than the one before it:
      abstain (rising), coverage and error (0..1).
    """
    confidence = np.maximum(probability, 1 - probability)
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    errors = np.cumsum(_is_wrong(label, probability)[order])
    abstain = confidence[order] - 0.5
    # Examples of one confidence are decided together: the last of them counts.
    last = np.append(abstain[1:] != abstain[:-1], True)
    curve = pd.DataFrame(
        {"abstain": abstain, "coverage": count / len(order), "error": errors / count}
    )[last]
    curve = curve.iloc[::-1].reset_index(drop=True)
    curve.loc[0, "abstain"] = 0.0  # a band below the least sure example is none
    return curve


def smallest_band(
    label: np.ndarray, probability: np.ndarray, target_error: float
) -> float | None:
    """The smallest band whose decisions are wrong at most so often; None if none is."""
    curve = coverage_curve(label, probability)
    enough = curve[curve["error"] <= target_error]
    return None if enough.empty else float(enough["abstain"].iloc[0])


def likely_label_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Examples whose label the model contradicts with confidence, the surest first.

    Confident means: at least as sure of the other label as it is on average of the
    examples that carry that one (Northcutt, Jiang and Chuang, "Confident Learning:
    Estimating Uncertainty in Dataset Labels", JAIR 2021).

    Args:
      predictions: columns image_id, label, probability.

    Returns:
      Some of the rows; ties go by image_id.
    """
    label, probability = predictions["label"] == 1, predictions["probability"]
    confidence = np.maximum(probability, 1 - probability)
    usual = {
        1: probability[label].mean(),
        0: (1 - probability[~label]).mean(),
    }
    other = np.where(label, usual[0], usual[1])
    wrong = _is_wrong(label, probability)
    return by_confidence(predictions[wrong & (confidence >= other)])


def most_uncertain(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` rows whose probability is nearest to 0.5; ties go by image_id."""
    return by_confidence(predictions, ascending=True).head(count)


def by_confidence(predictions: pd.DataFrame, ascending: bool = False) -> pd.DataFrame:
    """The rows by the distance of their probability from 0.5; ties go by image_id."""
    distance = (predictions["probability"] - 0.5).abs()
    keys = pd.DataFrame({"distance": distance, "image_id": predictions["image_id"]})
    order = keys.sort_values(["distance", "image_id"], ascending=[ascending, True])
    return predictions.loc[order.index]


def _is_wrong(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    return (probability >= metrics.THRESHOLD) != (label == 1)
