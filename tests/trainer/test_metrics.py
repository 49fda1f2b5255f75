"""Point values and intervals against scikit-learn and known answers."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from trainer import metrics


def _predictions(n: int, people: int, seed: int = 0) -> pd.DataFrame:
    """Probabilities of two decimals, so that there are ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    probability = np.clip(rng.normal(0.3 + 0.4 * label, 0.25), 0, 1).round(2)
    identity = rng.integers(0, people, n)
    return pd.DataFrame(
        {"identity": identity, "label": label, "probability": probability}
    )


def _sklearn(label, probability, weight) -> dict[str, float]:
    hit = {"sample_weight": weight}
    predicted = probability >= 0.5
    return {
        "accuracy": sk.accuracy_score(label, predicted, **hit),
        "balanced_accuracy": sk.balanced_accuracy_score(label, predicted, **hit),
        "precision": sk.precision_score(label, predicted, **hit),
        "recall": sk.recall_score(label, predicted, **hit),
        "f1": sk.f1_score(label, predicted, **hit),
        "auc": sk.roc_auc_score(label, probability, **hit),
        "average_precision": sk.average_precision_score(label, probability, **hit),
        "log_loss": sk.log_loss(label, probability, **hit),
        "brier": sk.brier_score_loss(label, probability, **hit),
        "ece": _ece(label, probability, weight),
    }


def _ece(label, probability, weight) -> float:
    """Guo et al.'s definition, bin by bin."""
    label, probability = np.asarray(label), np.asarray(probability)
    weight = np.ones(len(label)) if weight is None else weight
    confidence = np.maximum(probability, 1 - probability)
    right = (probability >= 0.5) == (label == 1)
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if weight[inside].sum():
            share = np.average(right[inside], weights=weight[inside])
            mean = np.average(confidence[inside], weights=weight[inside])
            total += weight[inside].sum() * abs(share - mean)
    return total / weight.sum()


def test_every_draw_equals_scikit_learn_with_the_same_weights():
    table = _predictions(150, 40)
    label, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    person, people = metrics.clusters(table["identity"].to_numpy())
    samples = metrics.bootstrap(label, probability, person, 5, 3, 0.5)
    draws = np.concatenate(list(metrics.person_weights(people, 150, 5, 3)))
    assert draws.sum(axis=1).tolist() == [people] * 5
    for number, weights in enumerate(draws):
        expected = _sklearn(label, probability, weights[person])
        for name in metrics.SCALARS:
            assert samples[name][number] == pytest.approx(expected[name], abs=1e-12)
        other = np.clip(1 - probability - 1e-9, 0, 1)
        swapped = _sklearn(1 - label, other, weights[person])
        for name in metrics.PER_CLASS:
            assert samples[f"{name}_0"][number] == pytest.approx(swapped[name])


def test_calibration_error_by_hand():
    # Sure by 0.9: right, right, wrong. Sure by 0.55: wrong.
    label = np.array([1, 0, 1, 1])
    probability = np.array([0.9, 0.1, 0.1, 0.45])
    values = metrics.point_values(label, probability, 0.5)
    assert values["ece"] == pytest.approx((abs(2 - 3 * 0.9) + 0.55) / 4)
    samples = metrics.bootstrap(label, probability, np.arange(4), 3, 0, 0.5)
    draws = np.concatenate(list(metrics.person_weights(4, 4, 3, 0)))
    gaps = draws * np.array([1 - 0.9, 1 - 0.9, -0.9, -0.55])
    expected = (abs(gaps[:, :3].sum(axis=1)) + abs(gaps[:, 3])) / 4
    np.testing.assert_allclose(samples["ece"], expected)


def test_metrics_of_each_label():
    table = _predictions(300, 90)
    result = metrics.evaluate(table)
    swapped = {
        "label": 1 - table["label"],
        "probability": np.clip(1 - table["probability"] - 1e-9, 0, 1),
    }
    other = metrics.evaluate(table.assign(**swapped))
    of_label_0, of_label_1 = result["per_class"]
    assert [row["label"] for row in result["per_class"]] == [0, 1]
    assert of_label_0["n"] + of_label_1["n"] == 300
    for name in metrics.PER_CLASS:
        assert of_label_1[name] == result[name]
        assert of_label_0[name]["value"] == pytest.approx(other[name]["value"])
        assert of_label_0[name]["interval"] == pytest.approx(other[name]["interval"])


def test_a_ratio_resamples_people():
    identity = np.array([4, 4, 7, -1])
    part, whole = np.array([1, 0, 1, 1]), np.array([1, 1, 2, 1])
    found = metrics.ratio(part, whole, identity, draws=200, seed=1)
    assert found["value"] == 3 / 5
    draws = np.concatenate(list(metrics.person_weights(3, 4, 200, 1)))
    samples = draws @ [1, 1, 1] / (draws @ [2, 2, 1])
    assert found["interval"] == pytest.approx(metrics.interval(samples))
    nothing = metrics.ratio(part, np.zeros(4), identity)
    assert nothing == {"value": None, "interval": None}


def test_point_values_matrix_and_intervals():
    table = _predictions(400, 120)
    result = metrics.evaluate(table, seed=7)
    expected = _sklearn(table["label"], table["probability"], None)
    assert (result["n"], result["people"]) == (400, table["identity"].nunique())
    (tn, fp), (fn, tp) = result["confusion_matrix"]
    assert tn + fp + fn + tp == 400
    assert result["accuracy"]["value"] == (tn + tp) / 400
    for name in metrics.SCALARS:
        low, high = result[name]["interval"]
        assert result[name]["value"] == pytest.approx(expected[name], abs=1e-12)
        assert low < result[name]["value"] < high
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert metrics.evaluate(table, seed=7) == result
    assert metrics.evaluate(table, seed=8)["auc"] != result["auc"]


def test_copies_of_a_persons_pictures_add_no_certainty():
    table = _predictions(200, 10_000).drop_duplicates("identity")
    copied = pd.concat([table] * 5)
    for name in metrics.SCALARS:
        once = metrics.evaluate(table)[name]["interval"]
        assert metrics.evaluate(copied)[name]["interval"] == pytest.approx(once)
    apart = metrics.evaluate(copied.assign(identity=-1))
    assert apart["people"] == len(copied)
    low, high = apart["accuracy"]["interval"]
    wide = metrics.evaluate(copied)["accuracy"]["interval"]
    assert high - low < 0.6 * (wide[1] - wide[0])


def test_unknown_people_are_clusters_of_their_own():
    person, people = metrics.clusters(np.array([7, -1, 5, 7, -1]))
    assert people == 4
    assert person.tolist() == [1, 2, 0, 1, 3]


def test_one_class_has_no_ranking():
    table = _predictions(30, 10).assign(label=1)
    result = metrics.evaluate(table)
    nothing = {"value": None, "interval": None}
    assert result["auc"] == result["average_precision"] == nothing
    assert result["balanced_accuracy"] == nothing
    assert result["recall"]["value"] == result["accuracy"]["value"]
    json.dumps(result, allow_nan=False)


def test_tiny_test_sets():
    one = pd.DataFrame({"identity": [3, 3], "label": [0, 1], "probability": [0.5, 0.4]})
    result = metrics.evaluate(one)
    assert result["confusion_matrix"] == [[0, 1], [1, 0]]  # 0.5 counts as a 1
    assert result["accuracy"] == {"value": 0.0, "interval": None}
    # With two people, half of the draws hold one class alone: no interval.
    two = metrics.evaluate(one.assign(identity=[3, 4]))
    assert two["auc"] == {"value": 0.0, "interval": None}
    assert two["accuracy"]["interval"] == [0.0, 0.0]


@pytest.mark.parametrize(
    "change", [{"label": 2}, {"probability": float("nan")}, {"probability": 1.1}]
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match="label|probability"):
        metrics.evaluate(_predictions(5, 5).assign(**change))
    with pytest.raises(ValueError, match="no predictions"):
        metrics.evaluate(_predictions(0, 1))
