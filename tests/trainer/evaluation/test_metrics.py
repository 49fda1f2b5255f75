"""Point values and intervals against scikit-learn and known answers."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from trainer.evaluation import bootstrap, metrics


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
    correct = (probability >= 0.5) == (label == 1)
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if weight[inside].sum():
            fraction = np.average(correct[inside], weights=weight[inside])
            mean = np.average(confidence[inside], weights=weight[inside])
            total += weight[inside].sum() * abs(fraction - mean)
    return total / weight.sum()


def test_every_draw_equals_scikit_learn_with_the_same_weights():
    table = _predictions(150, 40)
    label, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    person, people = bootstrap.clusters(table["identity"].to_numpy())
    samples = metrics.draw(label, probability, person, 5, 3, 0.5)
    draws = np.concatenate(list(bootstrap.person_weights(people, 150, 5, 3)))
    assert draws.sum(axis=1).tolist() == [people] * 5
    for number, weights in enumerate(draws):
        expected = _sklearn(label, probability, weights[person])
        for name in metrics.SCALARS:
            assert samples[name][number] == pytest.approx(expected[name], abs=1e-12)
        other = np.clip(1 - probability - 1e-9, 0, 1)
        swapped = _sklearn(1 - label, other, weights[person])
        for name in metrics.PER_CLASS:
            assert samples[f"{name}_0"][number] == pytest.approx(swapped[name])


def test_ratio_resamples_people():
    identity = np.array([4, 4, 7, -1])
    part, total = np.array([1, 0, 1, 1]), np.array([1, 1, 2, 1])
    result = bootstrap.ratio(part, total, identity, draws=200, seed=1)
    assert result["value"] == 3 / 5
    draws = np.concatenate(list(bootstrap.person_weights(3, 4, 200, 1)))
    samples = draws @ [1, 1, 1] / (draws @ [2, 2, 1])
    assert result["interval"] == pytest.approx(bootstrap.interval(samples))
    nothing = bootstrap.ratio(part, np.zeros(4), identity)
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


def test_copies_of_images_do_not_narrow_intervals():
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


def test_unknown_people_are_separate_clusters():
    person, people = bootstrap.clusters(np.array([7, -1, 5, 7, -1]))
    assert people == 4
    assert person.tolist() == [1, 2, 0, 1, 3]


def test_single_class_has_no_ranking_metrics():
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
    # With two people, half of the draws have one class alone: no interval.
    two = metrics.evaluate(one.assign(identity=[3, 4]))
    assert two["auc"] == {"value": 0.0, "interval": None}
    assert two["accuracy"]["interval"] == [0.0, 1.0]


def test_rule_of_three_opens_the_far_end_only():
    values = np.array([1.0, 0.0, 0.0, 1.0, 0.999, 1.0, np.nan])
    bounds = np.array(
        [[1, 1], [0, 0], [0, 0], [0.9, 1], [0.998, 1], [np.nan] * 2, [np.nan] * 2]
    )
    people = np.array([60, 60, 2, 60, 60, 60, 0])
    expected = [[0.95, 1], [0, 0.05], [0, 1], [0.9, 1], [0.998, 1], *[[np.nan] * 2] * 2]
    np.testing.assert_allclose(bootstrap.opened(values, bounds.T, people).T, expected)


def _known(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    """People numbered from 0: (how many, label, prediction) of one image each."""
    table = [
        (label, predicted) for count, *row in rows for label, predicted in [row] * count
    ]
    label, predicted = np.array(table).T
    probability = 0.1 + 0.8 * predicted
    identity = np.arange(len(label))
    return pd.DataFrame(
        {"identity": identity, "label": label, "probability": probability}
    )


def test_perfect_values_have_intervals_with_a_width():
    table = _known([(40, 0, 0), (20, 1, 1)])
    result = metrics.evaluate(pd.concat([table] * 3), draws=200)  # people, not images
    assert result["people"] == 60
    ends = {name: result[name]["interval"] for name in metrics.SCALARS}
    assert ends["accuracy"] == [1 - 3 / 60, 1.0]
    assert ends["precision"] == ends["recall"] == [1 - 3 / 20, 1.0]
    assert ends["f1"] == [pytest.approx(0.85), 1.0]
    assert ends["balanced_accuracy"] == [pytest.approx((0.85 + 0.925) / 2), 1.0]
    of_label_0 = result["per_class"][0]
    for name in metrics.PER_CLASS:
        assert of_label_0[name]["interval"] == [pytest.approx(1 - 3 / 40), 1.0]
        assert result["per_class"][1][name] == result[name]
    json.dumps(result, allow_nan=False)


def test_only_perfect_values_are_opened():
    # Every predicted 1 is correct, but ten others are missed.
    table = _known([(40, 0, 0), (10, 1, 0), (50, 1, 1)])
    result = metrics.evaluate(table, draws=200, seed=5)
    assert result["precision"] == {"value": 1.0, "interval": [1 - 3 / 50, 1.0]}
    of_label_0 = result["per_class"][0]
    assert of_label_0["recall"] == {"value": 1.0, "interval": [1 - 3 / 40, 1.0]}
    label, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    samples = metrics.draw(label, probability, np.arange(100), 200, 5, 0.5)
    for name in set(metrics.SCALARS) - {"precision"}:
        expected = bootstrap.interval(samples[name]).tolist()
        assert result[name]["interval"] == expected
    for name in ("precision", "f1"):
        unchanged = bootstrap.interval(samples[f"{name}_0"]).tolist()
        assert of_label_0[name]["interval"] == unchanged


def test_intervals_where_every_prediction_is_wrong():
    result = metrics.evaluate(_known([(40, 0, 1), (60, 1, 0)]), draws=200)
    assert result["accuracy"] == {"value": 0.0, "interval": [0.0, 0.03]}
    precision, recall = 3 / 40, 3 / 60
    assert result["precision"]["interval"] == [0.0, precision]
    assert result["recall"]["interval"] == [0.0, recall]
    harmonic = pytest.approx(2 / (1 / precision + 1 / recall))
    assert result["f1"] == {"value": 0.0, "interval": [0.0, harmonic]}
    balanced = pytest.approx((3 / 40 + 3 / 60) / 2)
    assert result["balanced_accuracy"]["interval"] == [0.0, balanced]
    # Nothing is predicted 1, so its precision is undefined.
    never = metrics.evaluate(_known([(40, 0, 0), (60, 1, 0)]), draws=200)
    assert never["precision"] == {"value": None, "interval": None}
    assert never["f1"] == {"value": 0.0, "interval": [0.0, pytest.approx(0.1 / 1.05)]}


def test_perfect_ratio_counts_people_in_its_denominator():
    identity = np.repeat(np.arange(50), 2)
    decided = identity < 40
    wrong = np.zeros(100)
    error = bootstrap.ratio(wrong, decided, identity)
    assert error == {"value": 0.0, "interval": [0.0, 3 / 40]}
    coverage = bootstrap.ratio(np.ones(100), np.ones(100), identity)
    assert coverage == {"value": 1.0, "interval": [1 - 3 / 50, 1.0]}


@pytest.mark.parametrize(
    "change", [{"label": 2}, {"probability": float("nan")}, {"probability": 1.1}]
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match="label|probability"):
        metrics.evaluate(_predictions(5, 5).assign(**change))
    with pytest.raises(ValueError, match="no predictions"):
        metrics.evaluate(_predictions(0, 1))
