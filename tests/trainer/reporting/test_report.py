"""The report of a run folder made by hand."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from support.errors import ExitCode, UserError
from tests.trainer.evaluation import run_folder
from tests.trainer.evaluation.run_folder import edit, refused
from tests.trainer.running import without_charts
from trainer import report as command
from trainer.evaluation import subgroups
from trainer.reporting import gallery, report, template


@pytest.fixture
def no_charts():
    with without_charts():
        yield


def _write_run(run_dir, **how):
    return run_folder.write(
        run_dir,
        run_folder.predictions(60, **how).drop(columns="logit"),
        "--model=resnet50\n--data_dir=<here>\n",
        xla=False,
        devices=["CPU:0"],
        data=run_folder.data(
            config={"balance": "exact", "split_fractions": [0.6, 0.4]},
            sources={"a <file>": {"rows": 60}},
        ),
    )


@pytest.fixture
def run_dir(tmp_path):
    return _write_run(tmp_path / "run", mean=3.0)


def test_report_is_one_offline_page_and_four_figures(run_dir):
    path = report.write_report(run_dir)
    html = path.read_text()
    assert path == run_dir / "report.html"
    for name in ("curves", "confusion_matrix", "roc", "precision_recall"):
        assert (run_dir / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "<img" not in html and "<script" not in html
    assert set(re.findall(r'(?:src|href)="([^#]+?)"', html)) == set()
    assert html.count("<svg") == 8
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert "perceived attribute: Male" in html
    assert "non-commercial research" in html
    assert "<dd>exact</dd>" in html and "<dd>0.6,0.4</dd>" in html
    assert "&lt;here&gt;" in html and "a &lt;file&gt;" in html
    files = {file.name: file.read_bytes() for file in run_dir.iterdir()}
    report.write_report(run_dir)
    assert files == {file.name: file.read_bytes() for file in run_dir.iterdir()}


@pytest.mark.parametrize("key", ["model", "attribute"])
def test_report_escapes_names(run_dir, key):
    edit(run_dir / "run.json", **{key: "<script>$x</script>"})
    html = report.write_report(run_dir).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_report_refuses_results_of_another_model_or_images(
    run_dir, no_charts, tmp_path
):
    results = tmp_path / "results"
    results.mkdir()
    for name in ("metrics.json", "predictions.csv"):
        shutil.copy(run_dir / name, results)
    record = edit(run_dir / "run.json")
    evaluation = {"data": record["data"], "notes": []}
    evaluation |= {"manifest_digest": "1" * 64, "model_sha256": "2" * 64}
    edit(results / "metrics.json", evaluation=evaluation)
    with refused("results is no evaluation of the", ExitCode.INTEGRITY):
        report.write_report(run_dir, None, results)
    predictions = report.load_run(run_dir).predictions.assign(Young=[0, 1] * 30)
    subgroups.write(run_dir, subgroups.evaluate(predictions[:40], "Male", draws=20))
    with pytest.raises(UserError, match="about 40 images, not the 60 here"):
        report.write_report(run_dir)


def test_summary_sentences(run_dir):
    run = report.load_run(run_dir)
    (tn, fp), (fn, tp) = run.metrics["confusion_matrix"]
    value = f"{100 * (tn + tp) / 60:.1f}"
    low, high = (f"{100 * x:.1f}" for x in run.metrics["accuracy"]["interval"])
    sentences = template.lines("summary.txt", run=run)
    assert sentences == [
        f"ResNet50 classifies {value} % of 60 images of 20 people of the test split "
        f"correctly (95 % interval {low}–{high} %, resampling people).",
        "Always giving the more frequent label would be correct for 50.0 %.",
        f"It misses {fn} of 30 images labeled Male and classifies {fp} of the 30 "
        "others as Male.",
    ]


def test_summary_without_mistakes_has_an_interval_with_a_width(tmp_path):
    run = report.load_run(_write_run(tmp_path / "run", mean=9.0, spread=0.1))
    assert "interval 85.0–100.0" in template.lines("summary.txt", run=run)[0]


def test_gallery_chooses_confident_and_uncertain_images(run_dir):
    predictions = report.load_run(run_dir).predictions
    groups = gallery.choose(predictions)
    right, wrong, uncertain = groups.values()
    assert right["label"].tolist() == [1] * 4 + [0] * 4
    assert right["probability"].iloc[0] == predictions["probability"].max()
    assert ((wrong["probability"] >= 0.5) != (wrong["label"] == 1)).all()
    unsure = (uncertain["probability"] - 0.5).abs()
    assert unsure.tolist() == sorted((predictions["probability"] - 0.5).abs())[:8]
    ids = gallery.image_ids(predictions)
    assert len(ids) == len(set(ids))
    assert set(ids) == {name for rows in groups.values() for name in rows["image_id"]}


def test_report_embeds_images(run_dir, no_charts):
    picture = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    ids = gallery.image_ids(report.load_run(run_dir).predictions)
    jpegs = dict.fromkeys(ids, picture)
    html = report.write_report(run_dir, gallery.Images(jpegs)).read_text()
    assert set(re.findall(r'alt="([^"]+)"', html)) == set(ids)
    assert html.count('src="data:image/jpeg;base64,') == html.count("<img")
    assert "heat map" not in html
    overlay = simplejpeg.encode_jpeg(np.full((8, 8, 3), 255, np.uint8))
    images = gallery.Images(jpegs, dict.fromkeys(ids, overlay), (3, 2))
    html = report.write_report(run_dir, images).read_text()
    named = [f"heat map of {image_id}" for image_id in ids]
    assert set(re.findall(r'alt="([^"]+)"', html)) == {*ids, *named}
    assert "no proof of a cause" in html and "coarse, 3 × 2 cells" in html


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "flags.txt"])
def test_report_names_missing_files(run_dir, name):
    (run_dir / name).unlink()
    with refused(f"holds no {name}"):
        report.write_report(run_dir)
    shutil.rmtree(run_dir)
    with refused("run is not a run folder"):
        report.write_report(run_dir)


def test_report_command(run_dir, no_charts, tmp_path, capsys):
    command.main(["report", f"--run_dir={run_dir}"])
    assert capsys.readouterr().out == f"{run_dir / 'report.html'}\n"
    with pytest.raises(UserError, match="--run_dir is missing"):
        command.main(["report"])
    elsewhere = tmp_path / "evaluation"
    elsewhere.mkdir()
    for name in ("metrics.json", "predictions.csv", "report.html"):
        (run_dir / name).rename(elsewhere / name)
    before = (elsewhere / "report.html").read_bytes()
    command.main(["report", f"--run_dir={run_dir}", f"--results_dir={elsewhere}"])
    assert capsys.readouterr().out == f"{elsewhere / 'report.html'}\n"
    assert (elsewhere / "report.html").read_bytes() == before
    assert not (run_dir / "report.html").exists()


def test_report_shows_computed_subgroups(run_dir):
    with without_charts():
        html = report.write_report(run_dir).read_text()
    assert "Accuracy by subgroup" not in html
    predictions = report.load_run(run_dir).predictions.assign(Young=[0, 1] * 30)
    external = pd.DataFrame(
        {"<b>$x$": ["<script>", "_^{"] * 30}, index=predictions["image_id"]
    )
    table = subgroups.evaluate(predictions, "Male", groups=external, draws=20)
    subgroups.write(run_dir, table)
    html = report.write_report(run_dir).read_text()
    assert "Accuracy by subgroup" in html and "not Young" in html
    assert "<script" not in html and "<b>" not in html
    assert "&lt;b&gt;$x$: &lt;script&gt;" in html
    assert html.count('<tr class="grey">') == table["small"].sum()
    assert html.count("<svg") == 9
