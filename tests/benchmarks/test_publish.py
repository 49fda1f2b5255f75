"""The README says what the newest results say; rows and figures of made-up results."""

import datetime
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks import harness, plots, publish, published
from benchmarks.harness import Measurement
from support.errors import ExitCode, UserError

ROOT = Path(__file__).parent.parent.parent
README = f"# Top\n\n{publish.BEGIN}\nold\n{publish.END}\n\nbelow\n"


def test_the_readme_is_what_the_newest_results_give():
    publish.check(ROOT)


def made_up(benchmark, cases, settings=None, day=1, gpu=""):
    """A result: case -> its rates, or its rates and facts."""
    measured = [
        Measurement(name, *(given if isinstance(given, tuple) else (given, {})))
        for name, given in cases.items()
    ]
    measured = [Measurement(m.name, tuple(m.samples), m.facts) for m in measured]
    result = harness.document(benchmark, "images", measured, settings or {})
    result["hardware"] = {
        "gpu": gpu,
        "cpu": "CPU",
        "cores": 4,
        "memory_gib": 8.0,
        "system": "Linux",
    }
    date = datetime.datetime(2026, 1, day, tzinfo=datetime.UTC)
    return result | {"date": date.isoformat(timespec="seconds")}


WARP = {"width": 178, "height": 218, "size": 224, "backend": "tensorflow"}


def input_result():
    """Two numbers of cores; ours, noise of 10 %, two peers, limits."""
    cases = {}
    for workers, suffix in ((1, ", workers=1"), (4, "")):
        rates = {
            "trainer, streaming": [1000, 2000, 2000],
            "trainer, streaming, again": [1100, 1800, 2000],
            "tf.data, loose files": [1000, 1900, 1900],
            "WebDataset": [500, 1000, 100],
            "decode only": [4000, 4000, 4000],
        }
        for name, samples in rates.items():
            samples = [workers * float(rate) for rate in samples]
            cases[name + suffix] = samples, {"workers": workers}
    return made_up("input", cases, {"workers": 4, "image_shape": [218, 178, 3]})


def step_result():
    rates = {"ours": 60.0, "stock": 50.0, "pytorch": 30.0}
    return made_up(
        "step-all-128",
        {
            f"{model} 128 {precision} batch {batch}, {case}": [
                rate * factor * (2 if precision == "bfloat16" else 1) * batch**0.2
            ]
            for model, factor in (("vgg16", 0.3), ("resnet50", 0.9), ("googlenet", 2))
            for precision in ("bfloat16", "float32")
            for batch in (16, 32, 64)
            for case, rate in rates.items()
        },
    )


def ladder_result():
    rungs = {
        "read shards": (90_000, 210_000),
        "read shards, cold": (30_000, 40_000),
        "parse": (60_000, 900_000),
        "decode": (8_000, 9_000),
        "read, parse, decode, batch": (7_000, 9_000),
        "warp": (2_600, 40_000),
        "model forward": (300, 420),
        "train step": (50, 90),
        "train, decoded images": (49.5, 50),
        "train, shards in page cache": (48, 50),
        "train, shards on disk": (45, 50),
        "evaluation": (240, 300),
        "train step, again": (51, 0),
    }
    return made_up(
        "ladder-googlenet-96",
        {
            name: ([float(rate)], {"limit": limit, "share of limit": rate / limit})
            if limit
            else [float(rate)]
            for name, (rate, limit) in rungs.items()
        },
    )


def build_result(largest):
    cases = {f"build, zip, {largest:,}": [5500.0], f"tfds, unchecked, {largest:,}": [4]}
    for count, rate in ((2000, 700.0), (20_000, 2700.0), (200_000, 7000.0)):
        if count <= largest:
            cases[f"build, folder, {count:,}"] = [rate]
    return made_up(f"build-{largest}", cases, {"num_images": largest})


def test_ratios_are_medians_of_rounds_and_noise_is_marked():
    one, four = published.rows(input_result())
    assert (one.what, four.what) == (
        "read, decode, batch 178×218 on 1 core",
        "read, decode, batch 178×218 on 4 cores",
    )
    assert four.rate == 8000
    others = {"tf.data, loose files": 2 / 1.9, "WebDataset": 2}
    assert four.ratios == pytest.approx(others)
    assert four.noise == pytest.approx(1 - 1 / 1.1)
    line = published._row_line(four)
    assert line.endswith("| 8,000 | tf.data, loose files ≈ 1.1×, WebDataset 2.0× |")


def test_without_a_second_run_the_rounds_show_the_noise():
    cases = {"warp": [100.0, 108.0, 90.0], "Keras layers": [100.0, 100.0, 100.0]}
    (row,) = published.rows(made_up("warp-tensorflow", cases, WARP))
    assert row.noise == pytest.approx(0.1)
    assert published._row_line(row).endswith("Keras layers ≈ 1.0× |")


def test_one_wild_round_shows_in_the_noise():
    cases = {"warp": [100.0, 101.0, 130.0], "Keras layers": [100.0, 100.0, 100.0]}
    (row,) = published.rows(made_up("warp-tensorflow", cases, WARP))
    assert row.noise == pytest.approx(1.3 / 1.01 - 1)


def test_the_step_s_noise_is_that_of_a_second_process():
    cases = {"ours": [60.0, 60, 60], "stock": [50.0, 30, 57]}
    named = {f"vgg16 64 float32 batch 8, {name}": cases[name] for name in cases}
    (row,) = published.rows(made_up("step-vgg16-64", named))
    assert row.noise == pytest.approx(2 / 1.2 - 1)
    named["vgg16 64 float32 batch 8, again"] = [61.0, 57.0, 59.0]
    (row,) = published.rows(made_up("step-vgg16-64", named))
    assert row.noise == pytest.approx(60 / 59 - 1)
    assert row.ratios == pytest.approx({"its own layers unfused": 1.2})


def by_batch_result():
    cases = {
        f"googlenet 96 float32 batch {batch}, {case}": [20.0 + batch / 8]
        for batch in (8, 16, 32, 64)
        for case in ("ours", "again")
    }
    return made_up("step-googlenet-96", cases)


def test_rates_by_batch_size_are_a_figure_and_no_row():
    (panel,) = plots._batch_panels(by_batch_result())
    axes = Figure().subplots()
    panel(axes)
    assert [line.get_label() for line in axes.get_lines()] == ["googlenet"]
    assert list(axes.get_lines()[0].get_xdata()) == [8, 16, 32, 64]
    both = {"a.json": step_result(), "b.json": by_batch_result()}
    assert list(plots.pictures(list(both.values()))) == ["batch-size.png"]
    text = published.short(both, [], "results")
    assert text.count("| train step, ") == 3 and "b.json" not in text
    assert "googlenet 96 float32 batch 64, ours" in published.full(both, [])


def test_rows_are_found_by_name_and_what_is_missing_is_left_out():
    cases = {"warp": [300.0], "Keras layers": [10.0], "not known": [1.0]}
    (row,) = published.rows(made_up("warp-tensorflow", cases, WARP))
    assert row.ratios == {"Keras layers": 30}
    (row,) = published.rows(build_result(20_000))
    assert row.what == "build of 20,000 images, each one checked"
    assert row.ratios == {"TensorFlow Datasets'": 675}
    assert published.rows(made_up("warp-tensorflow", {"warp": [1.0]}, WARP)) == []
    assert published.rows(ladder_result()) == []


def test_the_readme_has_each_model_at_its_fastest():
    rows = published.rows(step_result())
    assert len(rows) == 3 * 2 * 3
    best = published._fastest(rows)
    assert [row.what for row in best] == [
        f"train step, {model} at 128, bfloat16, batch 64, TensorFlow"
        for model in ("vgg16", "resnet50", "googlenet")
    ]
    assert best[0].ratios == pytest.approx(
        {"its own layers unfused": 1.2, "PyTorch": 2}
    )
    # Results from before the batch size was in the name.
    old = made_up(
        "step-vgg16-64",
        {"vgg16 64 float32, ours": [2.0], "vgg16 64 float32, keras": [1.0]},
    )
    (row,) = published.rows(old)
    assert row.what == "train step, vgg16 at 64, float32, TensorFlow"


def project(tmp_path, *results):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (tmp_path / "README.md").write_text(README)
    for result in results:
        harness.write(result, folder)
    return folder


def test_publish_writes_what_check_asks_for(tmp_path):
    results = [ladder_result(), input_result(), step_result(), build_result(200_000)]
    old = made_up("ladder-googlenet-96", {"decode": [1.0]}, day=1)
    old["date"] = "2025-12-31T00:00:00+00:00"
    folder = project(tmp_path, *results, build_result(20_000), old)
    with pytest.raises(UserError, match="README.md, .*results/README.md") as raised:
        publish.check(tmp_path)
    assert raised.value.exit_code == ExitCode.INTEGRITY
    publish.write(tmp_path)
    publish.check(tmp_path)
    names = {path.name for path in folder.glob("*.png")}
    expected = ("ladder-googlenet-96", "batch-size", "workers", "cost")
    assert names == {f"{name}.png" for name in expected}
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Top\n") and text.endswith("\nbelow\n")
    assert "benchmarks/results/input-2026-01-01.json" in text
    assert "old" not in text
    full = (folder / "README.md").read_text()
    assert "| decode | 8,000 | ±0% | 9,000 |" in full

    newer = made_up("ladder-googlenet-96", {"decode": ([1.0], {"limit": 2.0})}, day=2)
    harness.write(newer, folder)
    with pytest.raises(UserError, match="results/README.md"):
        publish.check(tmp_path)
    for path in folder.glob("input-*.json"):
        path.unlink()
    publish.write(tmp_path)
    assert not (folder / "workers.png").exists()


def test_a_gpu_s_results_stand_beside_those_without(tmp_path):
    cases = {"warp": [300.0], "Keras layers": [10.0]}
    on_gpu = made_up("warp-tensorflow", cases, WARP, day=2, gpu="H200")
    folder = project(tmp_path, made_up("warp-tensorflow", cases, WARP), on_gpu)
    assert len(publish.newest(folder)) == 2
    text = publish.pages(tmp_path).texts[tmp_path / "README.md"]
    assert "On CPU, 4 cores, 8 GiB, Linux:" in text
    assert "On H200 with CPU, 4 cores, 8 GiB, Linux:" in text


def test_what_is_no_result_or_has_no_marks_is_refused(tmp_path):
    folder = project(tmp_path, input_result())
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="has not one <!-- benchmarks:begin"):
        publish.write(tmp_path)
    (folder / "x.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(UserError, match="x.json is not a result"):
        publish.newest(folder)


def test_figures_need_more_than_one_point():
    assert plots.pictures([build_result(2000)]) == {}
    one = {"resnet50 64 float32 batch 8, ours": [1.0]}
    assert plots.pictures([made_up("step-resnet50-64", one)]) == {}


def test_a_figure_is_small_enough_to_keep():
    (picture,) = plots.pictures([ladder_result()]).values()
    assert 5_000 < len(picture.png()) < publish._LARGEST
