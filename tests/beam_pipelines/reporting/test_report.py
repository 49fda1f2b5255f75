"""The report of a build: its numbers, its page, its figures."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import selection
from beam_pipelines.reporting import charts, report, summary
from beam_pipelines.sources import load as sources
from schemas import celeba
from support.errors import ExitCode
from tests.beam_pipelines.conftest import Builder, make_celeba

FACTS = {
    "runner": "FnApiRunner",
    "images_read": 60,
    "images_per_second": 1234.5,
    "rounds": 1,
    "duplicates_kept": 0,
    "host": "<host>",
    "platform": "Linux",
    "python": "3.11",
    "beam": "2.77",
    "finished": "now",
    "config": {"output_dir": "a&b", "dry_run": False, "split_fractions": (0.5, 0.5)},
    "stages": {"planning": 1.0, "writing": 3.0},
}


def plan_of(folder, **options):
    config = BuildConfig(celeba_dir=str(folder), **options)
    return selection.plan(sources.load(config).rows, config)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    small = make_celeba(folder / "celeba")
    small.image(4).write_bytes(b"<html>")
    small.image(9).unlink()
    builder = Builder(small.folder, folder / "out", charts=True)
    assert builder("--max_bad_fraction=0.1", "--split=random") == ExitCode.OK
    return builder


def text_of(html):
    return re.sub(r"[ \n]+", " ", re.sub(r"<[^>]*>", " ", html))


def test_report_states_counts_and_options(built):
    html = (built.output / report.FILE_NAME).read_text()
    text = text_of(html[html.index("<body>") :])
    counts = [built.manifest.class_counts(split) for split in celeba.SPLITS]
    total = sum(map(sum, counts))
    assert f"{total} examples from 60 annotated images; 50.0\u00a0% of" in text
    for split, (zeros, ones) in zip(celeba.SPLITS, counts, strict=True):
        assert f"{split} {zeros} {ones} 50.0\u00a0% {zeros + ones}" in text
    assert "missing 1 000009.jpg" in text and "not a JPEG 1 000004.jpg" in text
    assert "show a person who is also in the training split" in text
    assert "list_attr_celeba.txt, sha256 " in text and "60 rows" in text
    assert "--max_bad_fraction 0.1" in text and "publishing" in text
    assert "perceived attribute: Male" in text and "may not be redistributed" in text


def test_report_has_figures_and_no_images(built):
    html = (built.output / report.FILE_NAME).read_text()
    assert html.count("<svg") == html.count("</svg>") == 6
    assert "<img" not in html and "<script" not in html and "base64" not in html
    body = html[html.index("<body>") :]
    ids = re.findall(r' id="([^"]+)"', body)
    assert len(ids) == len(set(ids))


def test_figures_are_written_as_png(built):
    for name in report.FILE_NAMES[1:]:
        assert (built.output / name).read_bytes().startswith(b"\x89PNG\r\n")
    # They are ours: another build may replace the folder.
    copy = shutil.copytree(built.output, built.output.with_name("copy"))
    rebuild = Builder(built.celeba_dir, copy)
    assert rebuild("--max_bad_fraction=0.1", "--overwrite") == ExitCode.OK
    assert not list(copy.glob("*.png"))


def test_report_without_matplotlib_has_tables_only(built, capsys):
    output = built.output.with_name("plain")
    assert Builder(built.celeba_dir, output)("--max_bad_fraction=0.1") == ExitCode.OK
    assert report.NO_CHARTS in capsys.readouterr().out
    assert [path.name for path in output.glob("report*")] == [report.FILE_NAME]
    html = (output / report.FILE_NAME).read_text()
    assert "<svg" not in html and "Wearing Necktie" in html


def test_report_escapes_names(built, monkeypatch):
    monkeypatch.setattr(report, "can_draw", lambda: False)
    plan = plan_of(built.celeba_dir)
    rejected = [("<b>&.jpg", "missing", ""), ("000001.jpg", "<i>odd</i>", "")]
    html = report.make(built.manifest, plan, rejected, FACTS)[report.FILE_NAME].decode()
    assert "&lt;b&gt;&amp;.jpg" in html and "&lt;i&gt;odd&lt;/i&gt;" in html
    assert "&lt;host&gt;" in html and "a&amp;b" in html
    assert "<b>" not in html and "<i>" not in html


def test_summary_counts_prevalence_and_people(small_celeba):
    plan = plan_of(small_celeba.folder)
    numbers = summary.summarize(plan)
    lines = small_celeba.attributes.read_text().splitlines()[2:]
    values = np.array([line.split()[1:] for line in lines]) == "1"
    assert np.allclose(numbers.prevalence[0], values.mean(axis=0))
    names = [line.split()[0].encode() for line in lines]
    for split, shares in enumerate(numbers.prevalence[1:]):
        members = plan.rows.names[plan.selected(split)].tolist()
        chosen = [names.index(name) for name in members]
        assert np.allclose(shares, values[chosen].mean(axis=0))
    assert numbers.people[0] == 20 and set(numbers.per_person[0]) == {3}
    assert numbers.people[1:].sum() == 20
    assert (numbers.leaked, numbers.leakage) == (0, 0.0)


def test_figures_of_one_attribute(small_celeba):
    numbers = summary.summarize(plan_of(small_celeba.folder))
    prevalence = numbers.prevalence[:, :1]
    one = dataclasses.replace(numbers, attributes=("Male",), prevalence=prevalence)
    files, elements = charts.draw(one, "Male")
    assert len(files) == 3 and len(elements["report-attributes.png"]) == 1


def test_leakage_is_a_fraction_of_known_people(small_celeba):
    plan = plan_of(small_celeba.folder, split="random")
    train, _, test = (plan.rows.identities[plan.selected(i)] for i in range(3))
    leaked = [person for person in test if person in set(train)]
    numbers = summary.summarize(plan)
    assert leaked and numbers.leaked == len(leaked)
    assert numbers.leakage == len(leaked) / len(test)


def test_report_without_identities(small_celeba, built):
    small_celeba.identity.unlink()
    plan = plan_of(small_celeba.folder, split="official")
    assert summary.summarize(plan).leakage is None
    pages = report.make(built.manifest, plan, [], FACTS)
    assert "no identity file was read" in pages[report.FILE_NAME].decode()
    assert "every image was usable" in pages[report.FILE_NAME].decode()
    assert "report-people.png" not in pages
