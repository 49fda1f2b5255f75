import json
import re
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Case, Measurement


def test_cases_are_interleaved_and_warmed_up():
    calls = []

    def case(name):
        return Case(name, lambda: calls.append(name) or 10)

    measured = harness.measure([case("a"), case("b")], rounds=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert [len(measurement.samples) for measurement in measured] == [2, 2]


def test_median_and_spread():
    measurement = Measurement("a", (10.0, 20.0, 30.0, 40.0, 50.0))
    assert measurement.median == 30
    assert measurement.spread == pytest.approx(1 / 3)
    assert Measurement("a", (5.0,)).spread == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ([Case("a", lambda: 1)], 0),
        ([Case("a", lambda: 1)] * 2, 1),
        ([Case("a", lambda: 0)], 1),
    ],
)
def test_a_benchmark_that_measures_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match="."):
        harness.measure(*arguments)


def result():
    measured = [Measurement("a", (1.0, 2.0, 4.0)), Measurement("b", (10.0,))]
    return harness.document("demo", "images", measured, {"size": 96})


def test_results_are_written_and_checked(tmp_path):
    path = harness.write(result(), tmp_path)
    assert re.fullmatch(r"demo-\d{4}-\d\d-\d\d\.json", path.name)
    harness.check(json.loads(path.read_text()))
    settings = {"size": 1, "data_dir": "/home/me", "write": True}
    assert harness.document("demo", "rows", [], settings)["settings"] == {"size": 1}


def test_facts_are_columns_of_the_table(tmp_path):
    measured = [Measurement("a", (2.0,), {"bytes/row": 88}), Measurement("b", (4.0,))]
    made = harness.document("demo", "rows", measured, {})
    harness.check(json.loads(harness.write(made, tmp_path).read_text()))
    assert harness.table(made).splitlines() == [
        "| case | rows/s | spread | bytes/row |",
        "| ---- | -----: | -----: | --------: |",
        "| a    |    2.0 |    ±0% |        88 |",
        "| b    |    4.0 |    ±0% |           |",
    ]


def test_an_edited_result_is_noticed():
    edited = result()
    edited["cases"]["a"]["median"] = 3.0
    with pytest.raises(ValueError, match="median is not that of its samples"):
        harness.check(edited)
    with pytest.raises(ValueError, match="schema None"):
        harness.check({})


def test_committed_results_are_of_the_schema():
    paths = sorted(Path(harness.RESULTS).glob("*.json"))
    assert paths
    for path in paths:
        harness.check(json.loads(path.read_text()))


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 1), (0.8, 1), (4.0, 5)])
def test_every_work_is_measured_within_the_time(monkeypatch, seconds, rounds):
    now = [0.0]
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])

    def work(pace):
        def do(units):
            now[0] += pace * units
            return harness.Timed(units, pace * units)

        return do

    works = {"quick": work(0.01), "slow": work(0.1)}
    measured, done = harness.measure_within(works, seconds)
    assert done == rounds == len(measured["slow"].samples)
    assert measured["quick"].median == pytest.approx(100)
    assert measured["slow"].median == pytest.approx(10)
    assert now[0] == pytest.approx(max(seconds, 0.8), abs=0.2)
