"""Subgroups against hand-computed rates, a loop over the draws, and known traps."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from schemas import celeba
from support.errors import ExitCode, UserError
from trainer import subgroups
from trainer.evaluation import group_rates, groups, metrics, subgroup_table
from trainer.reporting import subgroup_section


def _twelve() -> pd.DataFrame:
    """Nine of twelve right; everybody without eyeglasses is."""
    glasses = [1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]
    label = [1] * 6 + [0] * 6
    said = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    return pd.DataFrame(
        {
            "image_id": [f"{number}.jpg" for number in range(12)],
            "identity": -1,
            "label": label,
            "probability": np.where(said, 0.5, 0.4),
            "Eyeglasses": glasses,
            "Male": label,
            "Young": 1,
        }
    )


def _many(n: int = 300, people: int = 60, seed: int = 0) -> pd.DataFrame:
    """Random attributes; people with a hat are often taken for the other label."""
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


def _by_name(table: subgroup_table.Table) -> dict[str, subgroup_table.Group]:
    return {group.name: group for group in table.groups}


def _values(group, field="value"):
    return [getattr(getattr(group, name), field) for name in group_rates.RATES]


@pytest.fixture
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(group_rates, "MIN_PEOPLE", 2)
    monkeypatch.setattr(group_rates, "MIN_IMAGES", 2)


def test_rates_gaps_and_equalized_odds_by_hand(nothing_is_small):
    table = subgroups.evaluate(_twelve(), "Male")
    assert _values(table.overall) == [9 / 12, 1 / 6, 2 / 6]
    found = _by_name(table)
    assert list(found) == ["Eyeglasses=0", "Eyeglasses=1", "Young=0", "Young=1"]
    glasses = found["Eyeglasses=1"]
    assert (glasses.title, glasses.n, glasses.people) == ("Eyeglasses", 5, 5)
    assert _values(glasses) == [2 / 5, 1 / 2, 2 / 3]
    assert _values(glasses, "n") == [5, 2, 3]
    assert _values(glasses, "gap") == pytest.approx([-3 / 5, 1 / 2, 2 / 3])
    others = found["Eyeglasses=0"]
    assert others.title == "not Eyeglasses"
    assert _values(others) == [1, 0, 0]
    assert _values(others, "gap") == pytest.approx([3 / 5, -1 / 2, -2 / 3])
    # Seven of seven right: the rule of three, not an interval without width.
    assert others.accuracy.interval == (pytest.approx(1 - 3 / 7), 1.0)
    odds = {part.name: part.equalized_odds_difference for part in table.groupings}
    assert odds == {"Eyeglasses": pytest.approx(2 / 3), "Young": None}
    assert table.worst == "Eyeglasses=1"


def test_an_empty_group_and_its_complement_have_no_gap():
    found = _by_name(subgroups.evaluate(_twelve(), "Male"))
    nobody, everybody = found["Young=0"], found["Young=1"]
    assert (nobody.n, nobody.people, nobody.small) == (0, 0, True)
    assert _values(nobody) == _values(nobody, "interval") == [None] * 3
    assert _values(nobody, "gap") == _values(everybody, "gap") == [None] * 3
    assert _values(everybody) == [9 / 12, 1 / 6, 2 / 6]


def test_crossed_slices_also_with_the_label():
    slices = ["Young", "Male*Eyeglasses"]
    table = subgroups.evaluate(_twelve(), "Male", slices)
    chosen = {part.name: part.chosen for part in table.groupings}
    assert chosen == {"Eyeglasses": False, "Young": True, "Male*Eyeglasses": True}
    crossed = table.groupings[-1]
    assert [(group.name, group.title, group.n) for group in crossed.groups] == [
        ("Male=0*Eyeglasses=0", "not Male × not Eyeglasses", 4),
        ("Male=0*Eyeglasses=1", "not Male × Eyeglasses", 2),
        ("Male=1*Eyeglasses=0", "Male × not Eyeglasses", 3),
        ("Male=1*Eyeglasses=1", "Male × Eyeglasses", 3),
    ]
    values = [_values(group) for group in crossed.groups]
    assert values == [
        [1, 0, None],
        [0.5, 0.5, None],
        [1, None, 0],
        [1 / 3, None, 2 / 3],
    ]
    gaps = _values(crossed.groups[1], "gap")
    assert gaps == [pytest.approx(0.5 - 8 / 10), pytest.approx(0.5), None]
    assert crossed.equalized_odds_difference == pytest.approx(2 / 3)


def _loop(predictions, draws, seed):
    """Per group and draw the three rates of group and rest, one image at a time."""
    person, people = metrics.clusters(predictions["identity"].to_numpy())
    n = len(predictions)
    weights = np.concatenate(list(metrics.person_weights(people, n, draws, seed)))
    label = predictions["label"].to_numpy()
    right = (predictions["probability"] >= 0.5).to_numpy() == label
    samples = {}
    for name in set(celeba.ATTRIBUTES) - {"Male"}:
        inside = predictions[name].to_numpy() == 1
        for side, members in ((1, inside), (0, ~inside)):
            rows = []
            for draw in weights:
                w = draw[person] * members
                wrong = w * ~right
                rows.append(
                    [
                        1 - wrong.sum() / w.sum(),
                        wrong[label == 0].sum() / w[label == 0].sum(),
                        wrong[label == 1].sum() / w[label == 1].sum(),
                    ]
                )
            samples[name, side] = np.array(rows)
    return samples


def test_intervals_and_p_values_equal_a_loop_over_the_draws(nothing_is_small):
    predictions = _many(600, 120)
    table = subgroups.evaluate(predictions, "Male", draws=30, seed=5)
    found = _by_name(table)
    samples = _loop(predictions, 30, 5)
    highest, statistics = np.zeros(30), {}
    for name in celeba.ATTRIBUTES:
        if name == "Male":
            continue
        gaps = samples[name, 1] - samples[name, 0]
        group = found[f"{name}=1"]
        for column, rate in enumerate(_rates(group)):
            expected = metrics.interval(samples[name, 1][:, column])
            assert rate.interval == pytest.approx(expected)
            expected = metrics.interval(gaps[:, column])
            assert rate.gap_interval == pytest.approx(expected)
            error = gaps[:, column].std()
            highest = np.maximum(highest, np.abs(gaps[:, column] - rate.gap) / error)
            statistics[name, column] = abs(rate.gap) / max(
                error, _pooled_error(predictions, name, column)
            )
        odds = np.abs(gaps[:, 1:]).max(axis=1)
        part = next(part for part in table.groupings if part.name == name)
        assert part.interval == pytest.approx(metrics.interval(odds))
    for (name, column), statistic in statistics.items():
        p = (1 + np.count_nonzero(highest >= statistic)) / 31
        assert _rates(found[f"{name}=1"])[column].p == pytest.approx(p)
    assert table.tested == len(statistics) == 39 * 3


def _rates(group):
    return [getattr(group, name) for name in group_rates.RATES]


def _pooled_error(predictions, name, column):
    of = {0: [0, 1], 1: [0], 2: [1]}[column]
    rows = predictions[predictions["label"].isin(of)]
    pooled = ((rows["probability"] >= 0.5) != (rows["label"] == 1)).mean()
    n = rows[name].value_counts()
    return np.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))


def test_a_real_gap_survives_and_chance_does_not():
    table = subgroups.evaluate(_many(1500, 400), "Male")
    survivors = {(group.name, name) for group, name in subgroups.survivors(table)}
    assert survivors == {("Wearing_Hat=1", name) for name in group_rates.RATES}
    assert table.worst == "Wearing_Hat=1"
    # Some intervals exclude zero by chance all the same.
    alone = [
        group.name
        for group in table.groups
        if group.name.endswith("=1")
        and np.prod(np.sign(group.accuracy.gap_interval)) > 0
    ]
    assert len(alone) > 1
    shown = subgroups.telling(table, 15)
    assert shown[0].name == "Wearing_Hat=1" and len(shown) == 15


def test_few_people_make_a_small_group():
    predictions = _many(1500, 400)
    # Many images of 29 people; nothing they say is right.
    few = predictions["identity"].unique()[:29]
    predictions["Bald"] = predictions["identity"].isin(few).astype(int)
    bald = predictions["Bald"] == 1
    predictions.loc[bald, "probability"] = 1.0 - predictions["label"][bald]
    table = subgroups.evaluate(predictions, "Male")
    found = _by_name(table)
    assert found["Bald=1"].people == 29 and found["Bald=1"].n >= 50
    assert found["Bald=1"].small and not found["Bald=0"].small
    assert _values(found["Bald=1"], "p") == _values(found["Bald=0"], "p") == [None] * 3
    assert table.worst == "Wearing_Hat=1"
    part = next(part for part in table.groupings if part.name == "Bald")
    assert part.small and part.equalized_odds_difference > 0.5


def test_no_mistake_in_a_group_is_no_proof(nothing_is_small):
    predictions = _many(400, 400)
    wrong = predictions.index < 20
    predictions["identity"] = -1
    predictions["probability"] = abs(predictions["label"] - wrong).astype(float)
    predictions["Bald"] = (predictions.index >= 380).astype(int)
    rate = _by_name(subgroups.evaluate(predictions, "Male"))["Bald=1"].accuracy
    # The group's own draws never vary: taken alone, 5 % would be four errors away.
    assert rate.value == 1 and rate.interval == (pytest.approx(0.85), 1.0)
    assert rate.gap_interval[0] < 0 < rate.gap_interval[1]
    assert not rate.survives and rate.p > 0.5


def test_blocks_of_groups_meet_the_same_draws(monkeypatch):
    predictions = _many()
    whole = subgroups.evaluate(predictions, "Male", ["Male*Young"], draws=20)
    monkeypatch.setattr(group_rates, "_BLOCK", 1000)
    assert subgroups.evaluate(predictions, "Male", ["Male*Young"], draws=20) == whole


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
def test_slices_that_cannot_be(text, message):
    with pytest.raises(UserError, match=message) as caught:
        subgroups.SubgroupsConfig(run_dir="run", slices=("Young", text))
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_outside_table_makes_groups(tmp_path):
    path = tmp_path / "tone.csv"
    path.write_text(
        "image_id,tone,light\n0.jpg,dark,\n\n1.jpg,pale,in\n4.jpg,dark,in\n99.jpg,x,x\n"
    )
    predictions = _twelve()
    outside = groups.read_group_csv(path, predictions["image_id"])
    table = subgroups.evaluate(predictions, "Male", groups=outside)
    tone, light = table.groupings[-2:]
    assert (tone.kind, tone.missing, light.missing) == ("table", 9, 10)
    assert [(g.name, g.title, g.n) for g in tone.groups] == [
        ("tone=dark", "tone: dark", 2),
        ("tone=pale", "tone: pale", 1),
    ]
    # The rest are the other images of the table, not those it says nothing of.
    assert tone.groups[0].accuracy.gap == pytest.approx(0.5 - 1)
    assert tone.groups[0].false_positive_rate.value is None
    assert [group.accuracy.value for group in light.groups] == [0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1 has no column image_id"),
        ("id,tone\n0.jpg,a\n", ":1 has no column image_id"),
        ("image_id\n0.jpg\n", ":1 has no column of categories"),
        ("image_id,tone,tone\n", ":1 column 3 has no name of its own"),
        ("image_id,Young\n", ":1 column 'Young' has the name of a CelebA attribute"),
        ("image_id,tone\n0.jpg,a\n1.jpg,a,b\n", ":3 has 3 fields, the header has 2"),
        (
            "image_id,t\n0.jpg,a\n1.jpg,b\n0.jpg,a\n",
            ":4 names 0.jpg again, after line 2",
        ),
        ('image_id,t\n0.jpg,"a\n', ":2 unexpected end of data"),
        (
            "image_id,t\n0.png,a\n",
            "names none of the images that were predicted, but 0",
        ),
        (
            "image_id,t\n"
            + "".join(f"{number}.jpg,{number}\n" for number in range(51)),
            ":1 column 't' has 51 different values",
        ),
    ],
)
def test_outside_tables_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "tone.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        groups.read_group_csv(path, ["0.jpg", "1.jpg"])
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    assert caught.value.cause.startswith(str(path))


def test_an_outside_table_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        groups.read_group_csv(tmp_path / "tone.csv", ["0.jpg"])
    (tmp_path / "tone.csv").write_bytes(b"image_id,t\n\xff,a\n")
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        groups.read_group_csv(tmp_path / "tone.csv", ["0.jpg"])


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
    subgroups.main(["subgroups", *words, f"--group_csv={run_dir / 'tone.csv'}"])
    out = capsys.readouterr().out
    assert "lowest accuracy is that of Wearing Hat" in out
    assert "tone: 298 images have no value" in out
    assert subgroups.NOTE in out
    table = subgroup_table.read(run_dir)
    outside = groups.read_group_csv(run_dir / "tone.csv", ["0000.jpg"])
    slices = ["Young", "Male*Eyeglasses"]
    assert table == subgroups.evaluate(_many(), "Male", slices, outside)
    with open(run_dir / "subgroups.csv") as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["all", *_by_name(table)]
    hat, row = _by_name(table)["Wearing_Hat=1"], rows["Wearing_Hat=1"]
    assert float(row["accuracy_gap_low"]) == hat.accuracy.gap_interval[0]
    assert row["accuracy_gap_survives"] == str(int(hat.accuracy.survives))
    assert rows["Male=1*Eyeglasses=1"]["false_positive_rate"] == ""


def test_tables_of_other_predictions_lie_beside_them(run_dir, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (run_dir / "predictions.csv").rename(there / "predictions.csv")
    words = [f"--run_dir={run_dir}", f"--predictions={there / 'predictions.csv'}"]
    subgroups.main(["subgroups", *words])
    assert subgroup_table.read(there) is not None
    assert not (run_dir / "subgroups.json").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Young", "2", r"predictions\.csv:4 Young is '2'"),
        ("probability", "", r"predictions\.csv:4 probability is ''"),
        ("label", "yes", r"predictions\.csv:4 label is 'yes'"),
        ("Bald", None, r"predictions\.csv:1 has no column Bald"),
    ],
)
def test_predictions_that_cannot_be(run_dir, column, value, message):
    predictions = _many().astype(str)
    predictions.loc[2, column] = value
    if value is None:
        predictions = predictions.drop(columns=column)
    predictions.to_csv(run_dir / "predictions.csv", index=False)
    with pytest.raises(UserError, match=message) as caught:
        subgroups.main(["subgroups", f"--run_dir={run_dir}"])
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_runs_that_cannot_be(run_dir):
    with pytest.raises(UserError, match="--run_dir is missing"):
        subgroups.main(["subgroups"])
    (run_dir / "subgroups.json").write_text('{"groupings": []}')
    with pytest.raises(UserError, match="not a complete table of subgroups"):
        subgroup_table.read(run_dir)
    (run_dir / "run.json").unlink()
    with pytest.raises(UserError, match="holds no run.json"):
        subgroups.main(["subgroups", f"--run_dir={run_dir}"])


def test_the_section_escapes_names_and_greys_small_groups():
    predictions = _many()
    outside = pd.DataFrame(
        {"<b>$x$": ["<script>"] + ["_^{"] * 299}, index=predictions["image_id"]
    )
    table = subgroups.evaluate(predictions, "Male", groups=outside, draws=50)
    html = subgroup_section.section(table)
    assert "<script" not in html and "<b>" not in html
    assert "&lt;b&gt;$x$: &lt;script&gt;" in html
    assert html.count('<tr class="grey"><th') == sum(
        group.small for group in table.groups
    ) + sum(part.small for part in table.groupings)
    assert html.count("<svg") == 1
    assert html == subgroup_section.section(table)
