"""Subgroups against hand-computed rates, a loop over the draws, and known traps."""

import json

import numpy as np
import pandas as pd
import pytest

from schemas import celeba
from support.errors import ExitCode, UserError
from tests.trainer.evaluation.run_folder import edit, refused
from trainer import subgroups as program
from trainer.evaluation import bootstrap, group_rates, groups, metrics, subgroups
from trainer.evaluation.group_rates import RATES

NONE = [None] * 3


def _twelve() -> pd.DataFrame:
    """Nine of twelve correct; all without eyeglasses are."""
    glasses = [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]
    label = [1] * 6 + [0] * 6
    predicted = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    return pd.DataFrame(
        {
            "image_id": [f"{number}.jpg" for number in range(12)],
            "identity": -1,
            "label": label,
            "probability": np.where(predicted, 0.5, 0.4),
            "Eyeglasses": glasses,
            "Male": label,
            "Young": 1,
        }
    )


def _many(n: int = 300, people: int = 60, seed: int = 0) -> pd.DataFrame:
    """Random attributes; people with a hat often get the other label."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        rng.integers(0, 2, (n, len(celeba.ATTRIBUTES))), columns=celeba.ATTRIBUTES
    )
    table.insert(0, "image_id", [f"{number:04d}.jpg" for number in range(n)])
    table.insert(1, "identity", rng.integers(0, people, n))
    table.insert(2, "label", table["Male"])
    wrong = rng.random(n) < np.where(table["Wearing_Hat"], 0.5, 0.05)
    table.insert(3, "probability", np.where(wrong, 1 - table["label"], table["label"]))
    return table


def _evaluated(*args, **options) -> dict[str, dict]:
    """Group -> row, None where undefined."""
    table = subgroups.evaluate(*args, **options)
    return {row["group"]: row for row in subgroups.records(table)}


def _summary(predictions, **options) -> dict:
    return subgroups.summary(subgroups.evaluate(predictions, "Male", **options))


def _values(row, suffix=""):
    return [row[rate + suffix] for rate in RATES]


@pytest.fixture
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(group_rates, "MIN_PEOPLE", 2)
    monkeypatch.setattr(group_rates, "MIN_IMAGES", 2)


def test_rates_gaps_and_equalized_odds_by_hand(nothing_is_small):
    rows = _evaluated(_twelve(), "Male")
    assert list(rows) == ["all", "Eyeglasses=0", "Eyeglasses=1", "Young=0", "Young=1"]
    assert _values(rows["all"]) == [9 / 12, 1 / 6, 2 / 6]
    glasses = rows["Eyeglasses=1"]
    assert (glasses["title"], glasses["n"], glasses["people"]) == ("Eyeglasses", 5, 5)
    assert _values(glasses) == [2 / 5, 1 / 2, 2 / 3]
    assert _values(glasses, "_n") == [5, 2, 3]
    assert _values(glasses, "_gap") == pytest.approx([-3 / 5, 1 / 2, 2 / 3])
    others = rows["Eyeglasses=0"]
    assert others["title"] == "not Eyeglasses"
    assert _values(others) == [1, 0, 0]
    assert _values(others, "_gap") == pytest.approx([3 / 5, -1 / 2, -2 / 3])
    # Seven of seven correct: the rule of three, not an interval without width.
    assert others["accuracy_low"] == pytest.approx(1 - 3 / 7)
    assert others["accuracy_high"] == 1
    assert glasses["equalized_odds_difference"] == pytest.approx(2 / 3)
    assert rows["Young=1"]["equalized_odds_difference"] is None
    assert _summary(_twelve())["lowest"]["group"] == "Eyeglasses=1"


def test_empty_group_and_its_complement_have_no_gap():
    rows = _evaluated(_twelve(), "Male")
    nobody, everybody = rows["Young=0"], rows["Young=1"]
    assert (nobody["n"], nobody["people"], nobody["small"]) == (0, 0, 1)
    assert _values(nobody) == _values(nobody, "_low") == NONE
    assert _values(nobody, "_gap") == _values(everybody, "_gap") == NONE
    assert _values(everybody) == [9 / 12, 1 / 6, 2 / 6]


def test_crossed_slices_also_with_the_label():
    rows = _evaluated(_twelve(), "Male", ["Young", "Male*Eyeglasses"])
    chosen = {row["grouping"]: row["chosen"] for row in rows.values()}
    assert chosen == {"": 0, "Eyeglasses": 0, "Young": 1, "Male*Eyeglasses": 1}
    crossed = [row for row in rows.values() if row["kind"] == "crossing"]
    assert [(row["group"], row["title"], row["n"]) for row in crossed] == [
        ("Male=0*Eyeglasses=0", "not Male × not Eyeglasses", 4),
        ("Male=0*Eyeglasses=1", "not Male × Eyeglasses", 2),
        ("Male=1*Eyeglasses=0", "Male × not Eyeglasses", 3),
        ("Male=1*Eyeglasses=1", "Male × Eyeglasses", 3),
    ]
    assert [_values(row) for row in crossed] == [
        [1, 0, None],
        [0.5, 0.5, None],
        [1, None, 0],
        [1 / 3, None, 2 / 3],
    ]
    gaps = _values(crossed[1], "_gap")
    assert gaps == [pytest.approx(0.5 - 8 / 10), pytest.approx(0.5), None]
    assert crossed[0]["equalized_odds_difference"] == pytest.approx(2 / 3)


def _rates(predictions, rows) -> list[float]:
    """The three rates of images by their numbers, which may repeat."""
    label = predictions["label"].to_numpy()[rows]
    wrong = (predictions["probability"].to_numpy()[rows] >= 0.5) != (label == 1)
    return [1 - wrong.mean(), wrong[label == 0].mean(), wrong[label == 1].mean()]


def _loop(predictions, draws, seed):
    """(attribute, value) -> (draws, 3) rates."""
    person, people = bootstrap.clusters(predictions["identity"].to_numpy())
    n = len(predictions)
    weights = np.concatenate(list(bootstrap.person_weights(people, n, draws, seed)))
    drawn = [np.repeat(np.arange(n), draw[person].astype(int)) for draw in weights]
    samples = {}
    for name in set(celeba.ATTRIBUTES) - {"Male"}:
        values = predictions[name].to_numpy()
        for value in (0, 1):
            own = [rows[values[rows] == value] for rows in drawn]
            rates = [_rates(predictions, rows) for rows in own]
            samples[name, value] = np.array(rates)
    return samples


def test_intervals_and_p_values_equal_a_loop_over_the_draws(nothing_is_small):
    predictions = _many(600, 120)
    table = subgroups.evaluate(predictions, "Male", draws=30, seed=5)
    rows = {row["group"]: row for row in subgroups.records(table)}
    samples = _loop(predictions, 30, 5)
    highest, statistics = np.zeros(30), {}
    for name in set(celeba.ATTRIBUTES) - {"Male"}:
        gaps = samples[name, 1] - samples[name, 0]
        row = rows[f"{name}=1"]
        for column, rate in enumerate(RATES):
            bounds = [row[f"{rate}_low"], row[f"{rate}_high"]]
            expected = bootstrap.interval(samples[name, 1][:, column])
            assert bounds == pytest.approx(list(expected))
            bounds = [row[f"{rate}_gap_low"], row[f"{rate}_gap_high"]]
            assert bounds == pytest.approx(list(bootstrap.interval(gaps[:, column])))
            error, gap = gaps[:, column].std(), row[f"{rate}_gap"]
            highest = np.maximum(highest, np.abs(gaps[:, column] - gap) / error)
            pooled = _pooled_error(predictions, name, column)
            statistics[name, rate] = abs(gap) / max(error, pooled)
        odds = bootstrap.interval(np.abs(gaps[:, 1:]).max(axis=1))
        assert row["equalized_odds_difference_low"] == pytest.approx(odds[0])
        assert row["equalized_odds_difference_high"] == pytest.approx(odds[1])
    for (name, rate), statistic in statistics.items():
        p = (1 + np.count_nonzero(highest >= statistic)) / 31
        assert rows[f"{name}=1"][f"{rate}_gap_p"] == pytest.approx(p)
    assert subgroups.summary(table)["tested"] == len(statistics) == 39 * 3


def _pooled_error(predictions, name, column):
    inside = predictions["label"].isin({0: [0, 1], 1: [0], 2: [1]}[column])
    n = predictions[name][inside].value_counts()
    pooled = _rates(predictions, slice(None))[column]
    return np.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))


def test_real_gap_survives_and_chance_does_not():
    table = subgroups.evaluate(_many(1500, 400), "Male")
    gaps = subgroups.surviving_gaps(table)
    assert set(gaps["title"]) == {"Wearing Hat"} and set(gaps["rate"]) == set(RATES)
    assert gaps["gap"].abs().is_monotonic_decreasing
    assert subgroups.summary(table)["lowest"]["group"] == "Wearing_Hat=1"
    # Some intervals exclude zero by chance all the same.
    signs = np.sign(table["accuracy_gap_low"]) * np.sign(table["accuracy_gap_high"])
    assert (signs[table["group"].str.endswith("=1")] > 0).sum() > 1
    shown = subgroups.clearest_gaps(table, 15)
    assert shown["group"].iloc[0] == "Wearing_Hat=1" and len(shown) == 15


def test_few_people_make_a_small_group():
    predictions = _many(1500, 400)
    # Many images of 29 people, every prediction of them wrong.
    few = predictions["identity"].unique()[:29]
    predictions["Bald"] = predictions["identity"].isin(few).astype(int)
    bald = predictions["Bald"] == 1
    predictions.loc[bald, "probability"] = 1.0 - predictions["label"][bald]
    table = subgroups.evaluate(predictions, "Male")
    rows = {row["group"]: row for row in subgroups.records(table)}
    small, large = rows["Bald=1"], rows["Bald=0"]
    assert small["people"] == 29 and small["n"] >= 50
    assert small["small"] and not large["small"]
    assert _values(small, "_gap_p") == _values(large, "_gap_p") == NONE
    assert subgroups.summary(table)["lowest"]["group"] == "Wearing_Hat=1"
    assert large["equalized_odds_difference_small"]
    assert large["equalized_odds_difference"] > 0.5


def test_group_without_errors_is_no_evidence_of_a_gap(nothing_is_small):
    predictions = _many(400, 400)
    wrong = predictions.index < 20
    predictions["identity"] = -1
    predictions["probability"] = abs(predictions["label"] - wrong).astype(float)
    predictions["Bald"] = (predictions.index >= 380).astype(int)
    row = _evaluated(predictions, "Male")["Bald=1"]
    # The group's own draws never vary: taken alone, 5 % would be four errors away.
    assert row["accuracy"] == row["accuracy_high"] == 1
    assert row["accuracy_low"] == pytest.approx(0.85)
    assert row["accuracy_gap_low"] < 0 < row["accuracy_gap_high"]
    assert not row["accuracy_gap_survives"] and row["accuracy_gap_p"] > 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Yong", "Did you mean Young"),
        ("Male*Eyeglases", "Did you mean Eyeglasses"),
        ("Male*Male", "with itself"),
        ("Male*", "no attribute ''"),
        ("Male*Young*Bald*Bangs*Goatee", "more than 4"),
    ],
)
def test_invalid_slices_are_refused(text, message):
    with refused(message, ExitCode.USAGE):
        groups.partitions(_many(), "Male", ("Young", text))


def test_external_table_makes_groups(tmp_path):
    path = tmp_path / "tone.csv"
    path.write_text(
        "\ufeffimage_id, tone,light,empty\n0.jpg,dark,,\n\n1.jpg,pale,in,\n"
        "4.jpg,dark ,in,\n99.jpg,x,x,\n"
    )
    predictions = _twelve()
    external = groups.read_group_csv(path, predictions)
    table = subgroups.evaluate(predictions, "Male", groups=external)
    rows = subgroups.records(table[table["kind"] == "table"])
    assert [(row["group"], row["title"], row["n"]) for row in rows] == [
        ("tone=dark", "tone: dark", 2),
        ("tone=pale", "tone: pale", 1),
        ("light=in", "light: in", 2),
    ]
    # The rest are the other images of the table, not those without a value.
    assert rows[0]["accuracy_gap"] == pytest.approx(0.5 - 1)
    assert rows[0]["false_positive_rate"] is None
    assert rows[2]["accuracy"] == 0.5
    assert subgroups.summary(table)["excluded"] == {"tone": 9, "light": 10}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read: No columns"),
        ("id,tone\n0.jpg,a\n", ":1 names the columns 'id', 'tone'"),
        ("image_id,tone,tone\n", ":1 names the columns"),
        ("image_id,Young\n", ":1 names the columns 'image_id', 'Young'"),
        ("image_id,tone\n0.jpg,a\n1.jpg,a,b\n", "Expected 2 fields in line 3, saw 3"),
        ("image_id,t\n0.jpg,a\n1.jpg,b\n0.jpg,a\n", "names 0.jpg twice"),
        ("image_id,t\n0.png,a\n", "none of the images that were predicted, but 0.png"),
        (
            "image_id,t\n"
            + "".join(f"{number}.jpg,{number}\n" for number in range(51)),
            "column 't' has 51 different values",
        ),
        (b"image_id,t\n\xff,a\n", "cannot be read: .*utf-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_invalid_external_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "tone.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(message) as caught:
        groups.read_group_csv(path, _twelve()[:2])
    assert caught.value.cause.startswith(str(path))


@pytest.fixture
def run_dir(tmp_path):
    predictions = _many()
    predictions.to_csv(tmp_path / "predictions.csv", index=False)
    (tmp_path / "run.json").write_text(json.dumps({"attribute": "Male"}))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics.evaluate(predictions)))
    return tmp_path


def test_program(run_dir, capsys):
    (run_dir / "tone.csv").write_text("image_id,tone\n0000.jpg,dark\n0001.jpg,pale\n")
    words = [f"--run_dir={run_dir}", "--slices=Young,Male*Eyeglasses"]
    program.main(["subgroups", *words, f"--group_csv={run_dir / 'tone.csv'}"])
    out = capsys.readouterr().out
    assert "Lowest accuracy of the others: Wearing Hat, " in out
    assert "tone: 298 of 300 images have no value" in out
    assert "noisy themselves: part of a gap can be theirs." in out
    external = groups.read_group_csv(run_dir / "tone.csv", _many())
    slices = ["Young", "Male*Eyeglasses"]
    expected = subgroups.evaluate(_many(), "Male", slices, external)
    pd.testing.assert_frame_equal(subgroups.read(run_dir), expected, check_exact=True)
    table = pd.read_csv(run_dir / "subgroups.csv", dtype=str, keep_default_na=False)
    assert list(table)[:8] == [
        *("group", "n", "people", "small"),
        *("accuracy", "accuracy_low", "accuracy_high", "accuracy_n"),
    ]
    assert list(table["group"]) == list(expected["group"])
    table, expected = table.set_index("group"), expected.set_index("group")
    row, hat = table.loc["Wearing_Hat=1"], expected.loc["Wearing_Hat=1"]
    assert float(row["accuracy_gap_low"]) == hat["accuracy_gap_low"]
    assert row["accuracy_gap_survives"] == "1"
    assert table["false_positive_rate"]["Male=1*Eyeglasses=1"] == ""
    assert table["kind"]["all"] == "overall"


def test_tables_of_other_predictions_are_next_to_them(run_dir, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (run_dir / "predictions.csv").rename(there / "predictions.csv")
    words = [f"--run_dir={run_dir}", f"--predictions={there / 'predictions.csv'}"]
    program.main(["subgroups", *words])
    assert subgroups.read(there) is not None
    assert subgroups.read(run_dir) is None


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Young", "2", r"predictions\.csv:4 Young is '2'"),
        ("probability", "", r"predictions\.csv:4 probability is ''"),
        ("label", "yes", r"predictions\.csv:4 label is 'yes'"),
        ("Male", None, r"predictions\.csv:1 has no column Male"),
    ],
)
def test_invalid_predictions_are_refused(run_dir, column, value, message):
    predictions = _many().astype(str)
    predictions.loc[2, column] = value
    if value is None:
        predictions = predictions.drop(columns=column)
    predictions.to_csv(run_dir / "predictions.csv", index=False)
    with refused(message):
        program.main(["subgroups", f"--run_dir={run_dir}"])


def test_missing_run_is_refused(run_dir):
    with pytest.raises(UserError, match="--run_dir is missing"):
        program.main(["subgroups"])
    (run_dir / "run.json").unlink()
    with pytest.raises(UserError, match="no run.json"):
        program.main(["subgroups", f"--run_dir={run_dir}"])


@pytest.mark.parametrize(
    "change", [lambda rows: rows[1:], lambda rows: [rows[0] | {"accuracy": np.inf}]]
)
def test_subgroups_of_no_image_or_infinite_rates_are_refused(tmp_path, change):
    subgroups.write(tmp_path, subgroups.evaluate(_many(), "Male", draws=10))
    path = tmp_path / "subgroups.json"
    edit(path, groups=change(json.loads(path.read_text())["groups"]))
    with refused("not a complete table of subgroups"):
        subgroups.read(tmp_path)
