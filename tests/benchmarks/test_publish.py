"""The README says what the newest results say; rows of made-up results."""

import datetime
import json
from pathlib import Path

import pytest

from benchmarks import harness, publish
from benchmarks.harness import Measurement
from support.errors import ExitCode, UserError

ROOT = Path(__file__).parent.parent.parent
README = f"# Top\n\n{publish.BEGIN}\nold\n{publish.END}\n\nbelow\n"


def test_the_readme_is_what_the_newest_results_give():
    publish.publish(ROOT, check=True)


def made_up(benchmark, cases, day=1, gpu=""):
    """A result: case -> its rates."""
    measured = [Measurement(name, tuple(rates)) for name, rates in cases.items()]
    result = harness.document(benchmark, "images", measured, {})
    result["hardware"] |= {"gpu": gpu, "cpu": "CPU", "cores": 4}
    date = datetime.datetime(2026, 1, day, tzinfo=datetime.UTC)
    return result | {"date": date.isoformat(timespec="seconds")}


def build_result(count, day=1):
    cases = {
        f"build, folder, {count:,}": [count / 10],
        f"hand-written loop, {count:,}": [count / 5],
        "build, folder, 2,000": [9e9],
    }
    return made_up(f"build-{count}", cases, day)


INPUT = made_up(
    "input",
    {
        "trainer, streaming, workers=1": [9e9],
        "trainer, streaming": [1000.0, 2000, 4000],
        "NVIDIA DALI": [1000.0, 1000, 1000],
        "WebDataset": [1.0, 1, 1],
    },
)
STEP = made_up(
    "step-all-128",
    {
        f"{model} 128 float32 batch {batch}, {case}": [rate * batch]
        for model in ("vgg16", "resnet50")
        for batch in (16, 32)
        for case, rate in {"ours": 6.0, "again": 6.1, "pytorch": 3.0}.items()
    },
)


def project(tmp_path, *results):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (tmp_path / "README.md").write_text(README)
    for result in results:
        harness.write(result, folder)
    return folder


def compared(tmp_path, *results):
    return publish.compare(publish.newest(project(tmp_path, *results)))


def test_rows_compare_cases_of_one_task(tmp_path):
    build, read, step = compared(
        tmp_path, INPUT, STEP, build_result(20_000), build_result(200_000)
    )
    assert build.title == "build, every image checked (200,000)"
    assert build.rate == 20_000
    assert build.others == {"hand-written loop": (40_000, 0.5)}
    assert (read.rate, read.others) == (2000, {"NVIDIA DALI": (1000, 2)})
    assert step.title == "train step (resnet50 128 float32 batch 32)"
    assert step.others == {"PyTorch": (96, 2)}


def test_publish_writes_what_check_asks_for(tmp_path):
    old = build_result(20_000) | {"date": "2025-12-31T00:00:00+00:00"}
    folder = project(tmp_path, INPUT, STEP, build_result(20_000), old)
    with pytest.raises(UserError, match="README.md, .*results/README.md") as raised:
        publish.publish(tmp_path, check=True)
    assert raised.value.exit_code == ExitCode.INTEGRITY
    publish.publish(tmp_path, check=False)
    publish.publish(tmp_path, check=True)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Top\n") and text.endswith("\nbelow\n")
    assert "[2026-01-01](benchmarks/results/input-2026-01-01.json)" in text
    assert "old" not in text and "CPU, 4 cores" in text
    assert 5_000 < (folder / publish.FIGURE).stat().st_size < 100_000
    assert "trainer, streaming, workers=1" in (folder / "README.md").read_text()

    harness.write(build_result(20_000, day=2), folder)
    with pytest.raises(UserError, match="results/README.md"):
        publish.publish(tmp_path, check=True)


def test_results_on_a_gpu_are_kept_apart(tmp_path):
    cases = {"warp": [300.0]}
    on_gpu = made_up("warp-tensorflow", cases, day=2, gpu="H200")
    folder = project(tmp_path, made_up("warp-tensorflow", cases), on_gpu)
    assert "H200, CPU, 4 cores" in publish.full(publish.newest(folder))
    assert len(publish.newest(folder)) == 2
    assert publish.compare(publish.newest(folder)) == []


def test_foreign_files_and_missing_marks_are_refused(tmp_path):
    folder = project(tmp_path, INPUT)
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="has no <!-- benchmarks:begin"):
        publish.publish(tmp_path, check=False)
    (folder / "x.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(UserError, match="x.json is not a result"):
        publish.newest(folder)
