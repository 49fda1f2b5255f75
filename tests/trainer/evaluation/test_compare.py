"""Run folders made by hand: groups, intervals, ranks, words, refusals, the page."""

import csv
import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from support import command
from support.errors import ExitCode, UserError
from tests.trainer.evaluation import run_folder
from tests.trainer.evaluation.run_folder import refused
from trainer import compare
from trainer.config import TrainConfig
from trainer.evaluation import bootstrap, comparison, group_rates
from trainer.reporting import comparison_page

PEOPLE, IMAGES = 20, 60


def write_run(folder, wrong=(), record=None, first_image=0, **options):
    """Writes a finished run whose predictions of the images `wrong` are wrong."""
    config = TrainConfig(run_dir=str(folder), **{"model": "googlenet"} | options)
    table = run_folder.predictions(IMAGES).drop(columns="logit")
    table["image_id"] = [f"{number + first_image:06d}.jpg" for number in table.index]
    predicted = table["label"] ^ table.index.isin(list(wrong))
    table["probability"] = 0.8 * predicted + 0.1
    # Shuffled: what counts is the image id, not the order.
    table = table.sample(frac=1, random_state=len(wrong))
    run = {key: getattr(config, key) for key in ("model", "regime", "seed")}
    run |= {"parameters": 1_000_000, "images_per_second": 100.0}
    run |= {"inference_images_per_second": 250.0} | (record or {})
    return run_folder.write(folder, table, command.flags_text(config), **run)


def write_runs(folder, wrongs):
    """A run per (model, seed) with these images wrong."""
    return [
        write_run(folder / f"{model}-{seed}", wrong, model=model, seed=seed)
        for (model, seed), wrong in wrongs.items()
    ]


@pytest.fixture
def runs(tmp_path):
    """GoogLeNet and VGG16 nearly alike, with two seeds each; ResNet50 much worse."""
    wrongs = {
        ("googlenet", 0): [0, 7],
        ("googlenet", 1): [0, 7, 13, 22],
        ("vgg16", 0): [1, 8, 14],
        ("vgg16", 1): [1, 8, 14, 23, 31],
        ("resnet50", 0): range(0, 60, 2),
    }
    return write_runs(tmp_path, wrongs)


def compared(folders):
    return comparison.compare(comparison.load(folders))


def test_groups_are_runs_that_differ_in_the_seed_only(tmp_path):
    made = {
        "a": {"seed": 3},
        "b": {"seed": 1, "data_dir": "elsewhere", "report_images": False},
        "c": {"seed": 1, "ema": 0.5},
        "d": {"model": "vgg16"},
        "e": {"seed": 2, "regime": "finetune", "weights": "imagenet"},
    }
    folders = [write_run(tmp_path / name, **one) for name, one in made.items()]
    # An older run, from before there was an option: it had what is now its default.
    old = folders[1] / "flags.txt"
    old.write_text(re.sub("--mixup=.*\n", "", old.read_text()))
    groups = comparison.load(folders)
    assert [(group.name, group.seeds) for group in groups] == [
        ("GoogLeNet, scratch, ema=0.99", [1, 3]),
        ("GoogLeNet, scratch, ema=0.5", [1]),
        ("VGG16", [0]),
        ("GoogLeNet, finetune", [2]),
    ]
    assert comparison.differing_options(groups) == {"ema": ["0.99", "0.5"]}


def test_effective_options_separate_groups(tmp_path):
    folders = [
        write_run(tmp_path / "a", record={"precision": "float32"}),
        write_run(tmp_path / "b", record={"precision": "bfloat16"}),
    ]
    names = [group.name for group in comparison.load(folders)]
    assert names == ["GoogLeNet, precision=float32", "GoogLeNet, precision=bfloat16"]


def test_draws_equal_a_loop_over_people_and_seeds():
    rng = np.random.default_rng(5)
    person = rng.permutation(np.arange(30) % 8)
    correct = [rng.integers(0, 2, (seeds, 30)).astype(float) for seeds in (3, 1, 2)]
    drawn = comparison.draw_accuracies(correct, person, draws=6, seed=4)
    people = np.random.default_rng(4).integers(0, 8, size=(6, 8))
    of_seeds = np.random.default_rng([4, 1])
    weights = {
        seeds: of_seeds.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=6)
        for seeds in (3, 2)
    }
    for draw in range(6):
        images = np.concatenate([np.flatnonzero(person == one) for one in people[draw]])
        expected = [
            np.repeat(correct[0], weights[3][draw], axis=0)[:, images].mean(),
            correct[1][0, images].mean(),
            np.repeat(correct[2], weights[2][draw], axis=0)[:, images].mean(),
        ]
        np.testing.assert_allclose(drawn[draw], expected, rtol=1e-12)


def test_variance_of_few_seeds_is_unbiased():
    """Drawing S - 1 of S seeds gives their mean the unbiased variance s² / S."""
    rates = np.array([0.0, 0.4, 1.0])
    correct = np.repeat(rates[:, None], 5, axis=1)
    drawn = comparison.draw_accuracies([correct], np.arange(5), draws=20_000, seed=0)
    assert drawn.var() == pytest.approx(rates.var(ddof=1) / 3, rel=0.03)
    assert drawn.mean() == pytest.approx(rates.mean(), abs=0.01)


def test_simultaneous_intervals_equal_a_loop():
    rng = np.random.default_rng(1)
    drawn = rng.normal([0.9, 0.8, 0.8], [0.02, 0.05, 0.01], (40, 3))
    accuracy = np.array([0.9, 0.8, 0.81])
    pairs = [(0, 1), (0, 2), (1, 2)]
    error = {(a, b): np.std(drawn[:, a] - drawn[:, b], ddof=1) for a, b in pairs}
    largest = [
        max(
            abs(row[a] - row[b] - (accuracy[a] - accuracy[b])) / error[a, b]
            for a, b in pairs
        )
        for row in drawn
    ]
    critical = np.quantile(largest, 0.95)
    radius = comparison.simultaneous_radius(accuracy, drawn)
    for a, b in pairs:
        assert radius[a, b] == radius[b, a] == pytest.approx(critical * error[a, b])
    assert critical > np.quantile(np.abs(rng.normal(size=10_000)), 0.95)
    assert comparison.simultaneous_radius(accuracy[:1], drawn[:, :1]).tolist() == [[0]]


def test_differences_and_ranks(runs):
    result = compared(runs)
    assert [group.name for group in result.groups] == ["GoogLeNet", "VGG16", "ResNet50"]
    np.testing.assert_allclose(result.accuracy, [1 - 3 / 60, 1 - 4 / 60, 0.5])
    np.testing.assert_allclose(result.difference[0], [0, 1 / 60, 0.45])
    low, high = result.bounds[0, 2]
    assert low + high == pytest.approx(2 * 0.45)
    assert result.ranks.tolist() == [[1, 2], [1, 2], [3, 3]]
    assert (result.images, result.people) == (IMAGES, PEOPLE)
    assert result.intervals[0][0] < 0.95 < result.intervals[0][1]
    # The same draws for all, in any order of the runs.
    again = compared(runs[::-1])
    np.testing.assert_array_equal(again.radius, result.radius)


def named(folders, identity):
    """Other people in runs that are there."""
    for folder in folders:
        table = pd.read_csv(folder / "predictions.csv").sort_values("image_id")
        table.assign(identity=identity).to_csv(folder / "predictions.csv", index=False)
    return folders


def words(result):
    return " ".join(comparison_page.sentences(result))


def test_perfect_accuracy_has_an_interval_with_a_width(tmp_path):
    wrongs = {("vgg16", 0): [], ("vgg16", 1): [], ("vgg19", 0): range(IMAGES)}
    wrongs |= {("resnet50", 0): [3], ("resnet50", 1): []}
    result = compared(write_runs(tmp_path, wrongs))
    assert [group.name for group in result.groups] == ["VGG16", "ResNet50", "VGG19"]
    assert result.intervals[0].tolist() == [1 - 3 / PEOPLE, 1.0]
    assert result.intervals[2].tolist() == [0.0, 3 / PEOPLE]
    correct = [one.correct for one in result.groups]
    person = np.arange(IMAGES) // 3
    drawn = comparison.draw_accuracies(correct, person, comparison.DRAWS, 0)
    assert result.intervals[1] == pytest.approx(bootstrap.interval(drawn[:, 1]))


def test_rounding_is_no_difference(tmp_path, monkeypatch):
    # The mean of three equal accuracies of 57 by 60 is rounded to another number.
    third = 57 / 60
    assert np.mean([third] * 3) != third
    runs = [("vgg16", 0), ("vgg16", 1), ("vgg16", 2), ("vgg19", 0)]
    monkeypatch.setattr(group_rates, "MIN_PEOPLE", 2)
    result = compared(write_runs(tmp_path, dict.fromkeys(runs, [3, 20, 41])))
    assert 0 < np.abs(result.difference).max() < 1e-15
    assert result.radius.max() == 0
    assert not result.better.any() and set(result.best) == {"VGG16", "VGG19"}
    half_an_image = np.array([[0, 0.5], [-0.5, 0]]) / IMAGES
    apart = dataclasses.replace(result, difference=half_an_image)
    assert apart.better.tolist() == [[False, True], [False, False]]
    assert apart.best == result.best[:1]


def test_equal_best_groups_are_named_together(tmp_path):
    wrongs = {("googlenet", 0): [1, 2], ("vgg16", 0): [3, 40], ("vgg19", 0): [5, 9]}
    folders = write_runs(tmp_path, wrongs)
    assert words(compared(folders)).startswith(
        "Highest accuracy: GoogLeNet; VGG16; VGG19, 96.7 % of"
    )
    worse = write_run(tmp_path / "worse", range(9), model="resnet50")
    text = words(compared([*folders[:2], worse]))
    assert text.startswith("Highest accuracy: GoogLeNet; VGG16, ")
    assert "Cannot be told apart from it: ResNet50. " in text


def test_differences_of_few_people_have_no_interval(tmp_path, monkeypatch):
    wrongs = {("vgg16", 0): [], ("vgg19", 0): range(IMAGES)}
    folders = write_runs(tmp_path, wrongs)
    result = compared(named(folders, np.arange(IMAGES) % 2))
    assert result.people == 2 and result.difference[0, 1] == 1
    assert not result.better.any() and np.isnan(result.bounds[0, 1]).all()
    assert result.ranks.tolist() == [[1, 2]] * 2
    assert "told apart from it: VGG19." in comparison_page.terminal(result)
    assert "too narrow; these images show 2." in words(result)
    # Thirty people are enough to say so.
    result = compared(named(folders, np.arange(IMAGES) % group_rates.MIN_PEOPLE))
    assert result.better[0, 1] and (result.bounds[0, 1] == 1).all()
    assert "too narrow" not in words(result)


@pytest.mark.parametrize(
    ("split", "noted"), [("random", True), ("official", False), (None, False)]
)
def test_random_split_is_noted(tmp_path, split, noted):
    record = {"data": run_folder.data(split=split)}
    folder = write_run(tmp_path / "run", [1], record)
    note = "random: the same person can be in training and test, which flatters"
    assert (note in words(compared([folder]))) == noted


def test_equal_predictions_or_one_person_are_no_evidence(tmp_path, monkeypatch):
    folders = write_runs(tmp_path, {("vgg16", 0): [5, 9], ("vgg19", 0): [5, 9]})
    monkeypatch.setattr(group_rates, "MIN_PEOPLE", PEOPLE)
    result = compared(folders)
    assert (result.bounds[0, 1] == 0).all()
    assert not result.better.any()
    alone = compared(named(folders, 1))
    assert np.isnan(alone.intervals).all() and np.isnan(alone.bounds[0, 1]).all()
    assert "these images show 1." in comparison_page.terminal(alone)


def test_sentences_and_limits(runs):
    assert comparison_page.sentences(compared(runs)) == [
        "Highest accuracy: GoogLeNet, 95.0 % of 60 test images of 20 people.",
        "Cannot be told apart from it: VGG16.",
        "One seed only: ResNet50. The randomness of training is not in these "
        "intervals.",
        "Intervals that resample fewer than 30 people are too narrow; these images "
        "show 20.",
    ]
    assert "told apart" not in words(compared(runs[:1]))


def test_program(runs, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    words = [f"--output_dir={out}", *map(str, runs)]
    assert command.guard(compare.main, ["compare", *words]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[1].split()
        == ["1–2", "GoogLeNet", "0", "1", "95.0", "%"] + (lines[1].split()[6:])
    )
    assert lines[1].split()[-2:] == ["100", "4"]
    assert lines[-1] == f"comparison: {out / 'comparison.html'}"
    with open(out / "leaderboard.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["googlenet", "vgg16", "resnet50"]
    first, last = rows[0], rows[2]
    assert (first["seeds"], first["best_rank"], first["worst_rank"]) == (
        "0 1",
        "1",
        "2",
    )
    assert float(first["lowest_seed_accuracy"]) == pytest.approx(56 / 60)
    assert float(first["highest_seed_accuracy"]) == pytest.approx(58 / 60)
    assert float(last["difference"]) == pytest.approx(-0.45)
    assert float(last["difference_high"]) < 0
    assert float(last["inference_ms_per_image"]) == 4
    charts = "forest differences train-rate parameters train-time inference".split()
    names = {f"comparison-{name}.png" for name in charts}
    assert {path.name for path in out.glob("*.png")} == names
    html = (out / "comparison.html").read_text()
    rows = re.findall(r"<td>(better|cannot be told apart)</td>", html)
    assert rows == ["cannot be told apart", "better", "better"]
    assert html.count("<svg") == 6 and "<img" not in html and "<script" not in html
    assert set(re.findall(r'(?:src|href)="([^#]+?)"', html)) == set()
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert "a &lt;processor&gt;" in html
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    compare.main(["compare", *words])
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_names_are_escaped_and_missing_numbers_are_dashes(tmp_path):
    record = {"regime": "<b>$x$</b>", "inference_images_per_second": None}
    evil = {"model": "<script>$y", "images_per_second": None, "train_seconds": None}
    folders = [
        write_run(tmp_path / "<i>", [3], record | evil, model="vgg16"),
        write_run(tmp_path / "b", [4], record, model="vgg19"),
    ]
    compare.compare_runs(folders, tmp_path / "out")
    html = (tmp_path / "out" / "comparison.html").read_text()
    assert "<script" not in html and "<b>" not in html and "<i>" not in html
    assert "&lt;script&gt;$y" in html
    row = re.search(r"<tr><th>&lt;script.*?</tr>", html[html.index("Cost") :], re.S)[0]
    assert re.findall(r'number">(.*?)</td>', row) == ["1,000,000", "–", "–", "–"]
    assert "not recorded" in html
    compare.compare_runs(folders[:1], tmp_path / "alone")
    assert "Comparison of 1 model<" in (tmp_path / "alone/comparison.html").read_text()


@pytest.mark.parametrize(
    ("record", "first_image", "message"),
    [
        ({"attribute": "Young"}, 0, "predict other attributes: Male, Young"),
        ({"manifest_digest": "b" * 64}, 0, "tested on other data .manifests abababab"),
        ({}, 1, "were tested on other images"),
    ],
)
def test_other_data_is_refused(tmp_path, record, first_image, message):
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", (), record, first_image, model="vgg16")
    with refused(f"one and .*two .*{message}", ExitCode.USAGE):
        comparison.load([one, two])


def test_one_run_twice_is_refused(tmp_path):
    one = write_run(tmp_path / "one", seed=7)
    two = write_run(tmp_path / "two", seed=7)
    with refused("one run twice: the same .* seed 7", ExitCode.USAGE):
        comparison.load([one, two])


def test_unfinished_and_damaged_runs_are_named(tmp_path):
    good = write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad", model="vgg16")
    record = json.loads((bad / "run.json").read_text())
    table = pd.read_csv(bad / "predictions.csv")
    flipped = table.assign(probability=1 - table["probability"])
    twice = pd.concat([table, table.head(1)])
    without = {key: value for key, value in record.items() if key != "seed"}
    for name, content, message in (
        ("run.json", json.dumps(record | {"status": "running"}), "no finished run"),
        ("run.json", "{", "no finished run, or its run.json is damaged"),
        ("run.json", json.dumps(without), "run.json has no 'seed'"),
        ("predictions.csv", flipped.to_csv(index=False), "contradict each other"),
        ("predictions.csv", table.head(0).to_csv(index=False), "predictions.csv"),
        ("predictions.csv", twice.to_csv(index=False), "has an image twice"),
    ):
        before = (bad / name).read_text()
        (bad / name).write_text(content)
        with refused(message) as caught:
            comparison.load([good, bad])
        assert "bad" in caught.value.cause
        (bad / name).write_text(before)
    with pytest.raises(UserError, match="nowhere is not a run folder"):
        comparison.load([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="No run is named"):
        compare.main(["compare"])


def test_compare_and_sweep_start_without_tensorflow():
    program = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
        "import trainer.compare, trainer.sweep"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
