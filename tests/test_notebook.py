"""The notebook of docs/: committed without outputs, and run from its first cell on."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

PATH = Path(__file__).parent.parent / "docs/quickstart.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, cell.id


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_its_text_promises(notebook, tmp_path):
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
    cells = {cell.id: cell for cell in notebook.cells}

    def shown(cell, kind="text/plain"):
        outputs = cells[cell].outputs
        assert not [one for one in outputs if one.get("name") == "stderr"], outputs
        data = [one.data[kind] for one in outputs if kind in one.get("data", {})]
        return "".join([one.get("text", "") for one in outputs] + data)

    leakage = re.search(r"([\d.]+)% of the test images show a person", shown("build"))
    assert float(leakage[1]) > 50
    assert shown("batch", "image/png") and shown("predict", "image/png")
    assert "test accuracy" in shown("train")
    assert "better than chance: yes" in shown("result")
    assert float(re.search(r"accuracy +([\d.]+)", shown("result"))[1]) > 0.65
    page = (tmp_path / "quickstart/run/report.html").read_text()
    assert len(shown("report", "text/html")) > len(page)
    assert len(re.findall(r"\d{6}\.jpg +0\.\d", shown("predict"))) == 6
