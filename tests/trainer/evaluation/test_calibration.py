"""Temperature, abstention and doubtful labels against counts made by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from schemas import celeba
from trainer.evaluation import calibration, results


def _logits(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with the probabilities that the logits mean: calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, n)
    return (rng.random(n) < calibration.probabilities(logits)).astype(int), logits


def _table(probability, label) -> pd.DataFrame:
    count = len(label)
    return pd.DataFrame(
        {
            "image_id": [f"{number}.jpg" for number in range(count)],
            "identity": np.arange(count),
            "label": label,
            "probability": probability,
        }
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_known_factor_is_recovered(factor):
    label, logits = _logits(20_000)
    temperature = calibration.fit_temperature(label, factor * logits)
    assert temperature == pytest.approx(factor, rel=0.04)
    least = log_loss(label, calibration.probabilities(factor * logits, temperature))
    for other in (temperature * 0.99, temperature * 1.01):
        loss = log_loss(label, calibration.probabilities(factor * logits, other))
        assert loss > least


def test_temperature_stays_within_its_bounds():
    lowest, highest = calibration.TEMPERATURES
    label, logits = _logits(500)
    assert calibration.fit_temperature(label, logits / 100) == pytest.approx(lowest)
    assert calibration.fit_temperature(label, -logits) == pytest.approx(highest)
    assert calibration.fit_temperature(label, 1000 * logits) == pytest.approx(highest)
    # Nothing wrong, nothing to learn from; a single example; no difference at all.
    assert calibration.fit_temperature([0, 1, 1], [-3.0, 2.0, 0.1]) == 1.0
    assert calibration.fit_temperature([1], [0.5]) == 1.0
    assert calibration.fit_temperature([1], [-0.5]) == pytest.approx(highest)
    assert calibration.fit_temperature([0, 1], [0.0, 0.0]) == 1.0
    for logits in ([], [np.nan], [np.inf]):
        with pytest.raises(ValueError, match="no logits|not a finite"):
            calibration.fit_temperature([1] * len(logits), np.array(logits))


def test_probabilities_of_any_logit():
    probability = calibration.probabilities([-2000.0, -1.0, 0.0, 2000.0], 0.5)
    assert probability.tolist() == [0, pytest.approx(1 / (1 + np.e**2)), 0.5, 1]


def test_reliability_bins_by_hand():
    label = np.array([0, 1, 1, 1, 0])
    bins = calibration.reliability(label, np.array([0.0, 0.1, 0.19, 1.0, 0.95]), 10)
    assert bins["n"].tolist() == [1, 2, 2]
    assert bins["low"].tolist() == pytest.approx([0, 0.1, 0.9])
    assert bins["share"].tolist() == [0, 1, 0.5]
    assert bins["probability"].tolist() == pytest.approx([0, 0.145, 0.975])


PROBABILITY = np.array([0.95, 0.6, 0.59, 0.4, 0.45, 0.02, 0.2])
LABEL = np.array([1, 0, 1, 0, 1, 0, 1])


def test_abstention_by_hand():
    assert calibration.covered(PROBABILITY, 0.1).tolist() == [
        *(True, True, False),
        *(True, False, True, True),
    ]
    table = _table(PROBABILITY, LABEL)
    result = calibration.abstention(table, 0.1)
    assert (result["decided"], result["errors"]) == (5, 2)
    assert result["coverage"]["value"] == 5 / 7
    assert result["error"]["value"] == 2 / 5
    low, high = result["error"]["interval"]
    assert 0 <= low < 2 / 5 < high <= 1
    everything = calibration.abstention(table, 0.0)
    assert (everything["decided"], everything["errors"]) == (7, 3)
    nothing = calibration.abstention(table, 0.5)
    assert nothing["error"] == {"value": None, "interval": None}


def test_curve_and_smallest_threshold():
    curve = calibration.coverage_curve(LABEL, PROBABILITY)
    # 0.6 and 0.4 are equally confident and covered together.
    assert curve["coverage"].tolist() == [c / 7 for c in (7, 6, 5, 3, 2, 1)]
    assert curve["error"].tolist() == [3 / 7, 2 / 6, 2 / 5, 1 / 3, 0, 0]
    assert curve["abstain"].tolist() == pytest.approx([0, 0.09, 0.1, 0.3, 0.45, 0.48])
    for target in (0.0, 0.33, 1 / 3, 0.42, 0.5):
        threshold = calibration.smallest_threshold(LABEL, PROBABILITY, target)
        result = calibration.abstention(_table(PROBABILITY, LABEL), threshold)
        assert result["error"]["value"] <= target
        smaller = curve["abstain"] < threshold - 1e-12
        assert (curve["error"][smaller] > target).all()
    assert calibration.smallest_threshold(LABEL, PROBABILITY, 0.5) == 0
    assert calibration.smallest_threshold(1 - LABEL, PROBABILITY, 0.1) is None


def test_likely_label_errors_and_most_uncertain():
    # Label 1 gets 0.9 on average, label 0 gets 0.25: its usual confidence is 0.75.
    probability = np.array([1.0, 0.98, 0.95, 0.67, 0.05, 0.02, 0.03, 0.91])
    label = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    assert calibration.likely_label_errors(_table(probability, label))[
        "image_id"
    ].tolist() == ["7.jpg"]
    uncertain = _table(np.where(probability == 0.91, 0.89, probability), label)
    assert calibration.likely_label_errors(uncertain).empty
    table = _table(np.array([0.7, 0.5, 0.3, 0.9]), np.array([1, 0, 1, 1]))
    nearest = calibration.most_uncertain(table, 3)
    assert nearest["image_id"].tolist()[0] == "1.jpg"
    assert set(nearest["image_id"]) == {"0.jpg", "1.jpg", "2.jpg"}


def test_results_of_a_split(tmp_path):
    label, logits = _logits(60)
    table = _table(calibration.probabilities(logits), label)
    table[results.LOGIT] = 2 * logits
    for number, name in enumerate(celeba.ATTRIBUTES):
        table[name] = number % 2
    table = results.calibrated(table, 2.0)
    np.testing.assert_allclose(table["probability"], calibration.probabilities(logits))
    result = results.assess(table, 2.0, "validation", abstain=0.2, target_error=0.1)
    results.write(tmp_path, table, result, "Male")
    assert json.loads((tmp_path / "metrics.json").read_text()) == result
    assert result["split"] == "validation"
    facts = result["calibration"]
    assert facts["uncalibrated"]["log_loss"] == pytest.approx(
        log_loss(label, calibration.probabilities(2 * logits))
    )
    assert sum(row["n"] for row in facts["reliability"]) == 60
    assert result["abstention"]["abstain"] == 0.2
    columns = list(pd.read_csv(tmp_path / "predictions.csv"))
    assert columns == [name for name in table if name != "logit"]
    listed = pd.read_csv(tmp_path / "most_uncertain.csv")
    assert (listed["probability"] - 0.5).abs().is_monotonic_increasing
    lines = results.summary(result).splitlines()
    assert lines[0].startswith("validation accuracy ")
    assert "between 30.0 % and 70.0 %" in lines[2]
