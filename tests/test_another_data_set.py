"""A data set with three other attributes, from its table to a trained model."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from beam_pipelines import build, datasets, verify
from schemas.dataset import About
from support import command
from support.errors import ExitCode
from tests.beam_pipelines.conftest import jpeg
from trainer import main, model_card, subgroups


def _from_docs():
    """The data set that docs/extending.md describes, as it stands there."""
    text = (Path(__file__).parent.parent / "docs/extending.md").read_text()
    names = {}
    exec(re.search(r"```python\n(from schemas.*?)```", text, re.DOTALL)[1], names)
    assert list(names["DATASETS"]) == ["celeba", "shapes"]
    return names["SHAPES"]


SHAPES = _from_docs()
IMAGES = 90


@pytest.fixture
def shapes_dir(tmp_path, monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "shapes", SHAPES)
    folder = tmp_path / "shapes"
    (folder / SHAPES.image_folder).mkdir(parents=True)
    values = np.random.default_rng(0).choice((-1, 1), (IMAGES, 3))
    names = [f"{number}.jpg" for number in range(IMAGES)]
    for number, name in enumerate(names):
        data = jpeg(number, height=40, width=40)
        (folder / SHAPES.image_folder / name).write_bytes(data)
    lines = [str(IMAGES), " ".join(SHAPES.attributes)]
    lines += [
        " ".join([name, *map(str, row)])
        for name, row in zip(names, values, strict=True)
    ]
    (folder / SHAPES.attributes_file).write_text("\n".join(lines) + "\n")
    series = [f"{name} {number // 2}\n" for number, name in enumerate(names)]
    (folder / SHAPES.identity_file).write_text("".join(series))
    return folder


def run(module, *words):
    assert command.guard(module.main, [module.__name__, *words]) == 0


def test_three_attributes_build_verify_train_and_report(shapes_dir, tmp_path, capsys):
    data, run_dir = tmp_path / "records", tmp_path / "run"
    words = [f"--celeba_dir={shapes_dir}", f"--output_dir={data}", "--dataset=shapes"]
    words += ["--attribute=Striped", "--filter=Round=1", "--balance=none"]
    run(build, *words)
    run(build, *words, "--overwrite")
    run(verify, f"--dataset_dir={data}")
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["attributes"] == list(SHAPES.attributes)
    assert manifest["dataset"]["name"] == "Shapes"
    assert list(data.glob("shapes-train.tfrecord-*"))
    assert "Shapes by Striped" in (data / "report.html").read_text()
    run(
        main,
        *(f"--data_dir={data}", f"--run_dir={run_dir}", "--model=googlenet"),
        *("--input_size=32", "--epochs=1", "--batch_size=8", "--aux_attributes"),
        *("--report_images=false", "--device=cpu"),
    )
    table = pd.read_csv(run_dir / "predictions.csv")
    assert list(table.columns[4:]) == list(SHAPES.attributes)
    run(subgroups, f"--run_dir={run_dir}", "--slices=Large*Round")
    run(model_card, f"--run_dir={run_dir}")
    for page in ("report.html", "MODEL_CARD.md"):
        text = (run_dir / page).read_text()
        assert SHAPES.about.terms in text, page
        assert not re.search("CelebA|perceive|annotators|non-commercial", text), page
    capsys.readouterr()


def test_csv_without_identities_and_official_splits(shapes_dir, monkeypatch, capsys):
    plain = dataclasses.replace(SHAPES, partition_file="", identity_file="")
    monkeypatch.setitem(datasets.DATASETS, "shapes", plain)
    path = shapes_dir / SHAPES.attributes_file
    _, header, *rows = path.read_text().splitlines()
    lines = [f"image_id,{header}", *rows]
    path.write_text("\n".join(lines).replace(" ", ","))
    words = [f"--celeba_dir={shapes_dir}", "--dataset=shapes", "--attribute=Large"]
    run(build, *words, "--split=random", "--dry_run")
    for flag, kind in (
        ("--split=identity", "identity"),
        ("--split=official", "partition"),
        ("--max_per_identity=2", "identity"),
    ):
        argv = ["build", *words, "--dry_run", "--split=random", flag]
        assert command.guard(build.main, argv) == ExitCode.INPUT_DATA
        assert f"Shapes has no {kind} file." in capsys.readouterr().err
    lines[3] = lines[3].split(" ")[0] + " yes 0 1"
    path.write_text("\n".join(lines).replace(" ", ",").replace("-1", "0"))
    assert (
        command.guard(build.main, ["build", *words, "--split=random"])
        == ExitCode.INPUT_DATA
    )
    assert "txt:4: value 'yes' for Round, expected 0 or 1." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["label", "two words", ""])
def test_names_that_no_table_can_have_are_refused(name):
    with pytest.raises(ValueError, match="cannot be the name of an attribute"):
        dataclasses.replace(SHAPES, attributes=("Round", name))
    with pytest.raises(ValueError, match="is not of a-z"):
        dataclasses.replace(SHAPES, about=About("My shapes", "S", "t", "u"))
