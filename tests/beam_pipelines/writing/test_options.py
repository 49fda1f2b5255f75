"""Jobs for a cluster: refused before anything is uploaded, or ready to be sent."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from apache_beam.internal import pickler

from beam_pipelines import build
from beam_pipelines.sources.images import FolderSource
from beam_pipelines.writing import pipeline, shards
from beam_pipelines.writing.store import Store
from schemas import celeba
from support import command
from support.errors import ExitCode

ROOT = Path(__file__).parents[3]
FLAGS = {
    "runner": "DataflowRunner",
    "project": "p",
    "region": "r",
    "temp_location": "gs://bucket/tmp",
    "celeba_dir": "gs://bucket/celeba",
    "output_dir": "gs://bucket/out",
    "setup_file": "./setup.py",
}


@pytest.mark.parametrize(
    "flag, value, words",
    [
        ("project", None, "needs --project"),
        ("region", None, "needs --region"),
        ("temp_location", None, "needs --temp_location"),
        ("temp_location", "/tmp/x", "--temp_location=/tmp/x is on this machine"),
        ("celeba_dir", "data/celeba", "--celeba_dir=data/celeba is on this machine"),
        ("output_dir", "data/out", "--output_dir=data/out is on this machine"),
        ("setup_file", None, "workers would not have this program"),
    ],
)
def test_a_job_that_dataflow_cannot_run_is_refused(capsys, flag, value, words):
    flags = {**FLAGS, flag: value}
    line = [f"--{name}={text}" for name, text in flags.items() if text is not None]
    assert command.guard(build.main, ["build", *line]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 2


#: What a worker does: it unpickles the stages and runs them, without our checkout.
WORKER = """
import sys
for name in ("tensorflow", "keras", "pandas", "matplotlib", "sklearn"):
    sys.modules[name] = None
from apache_beam.internal import pickler
import beam_pipelines
assert beam_pipelines.__file__.startswith(sys.argv[1]), beam_pipelines.__file__
plan, write = (pickler.loads(open(path, "rb").read()) for path in sys.argv[2:])
for shard in plan.process((0, 1)):
    print(*write.process(shard))
"""


@pytest.mark.slow
def test_a_worker_needs_nothing_but_the_wheel(small_celeba, tmp_path):
    tree = tmp_path / "tree"
    for name in ("schemas", "support", "beam_pipelines", "trainer", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    sources = [*tree.glob("*/**/*.py"), *tree.glob("*/**/*.csv")]
    modules = {path.relative_to(tree) for path in sources}
    modules = {path for path in modules if path.parent.name != "peers"}
    wheel, installed = tmp_path / "wheel", tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "-w", wheel, tree], check=True)
    (built,) = wheel.iterdir()
    subprocess.run([*pip, "install", *options, "-t", installed, built], check=True)

    found = {path.relative_to(installed) for path in installed.rglob("*.*")}
    assert modules and modules <= found

    plan = shards.ShardPlan(
        name="celeba-train.tfrecord-00000-of-00001",
        names=np.array([b"000001.jpg", b"000002.jpg"]),
        labels=np.array([0, 1], np.uint8),
        identities=np.array([3, -1], np.int32),
        attributes=np.zeros((2, 5), np.uint8),
    )
    source = FolderSource(str(small_celeba.folder / celeba.IMAGE_FOLDER))
    digests = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        store = Store(str(folder))
        shards.save_plans(store, [plan])
        task = shards.Task(source, store, None, 40)
        if folder.name == "here":
            digests.append(shards.write_shard(plan, task).sha256)
            continue
        stages = (pipeline.LoadPlans(task), pipeline.WriteShard(task))
        paths = [tmp_path / "plan.pickle", tmp_path / "write.pickle"]
        for stage, path in zip(stages, paths, strict=True):
            path.write_bytes(pickler.dumps(stage))
        subprocess.run(
            [sys.executable, "-c", WORKER, installed, *paths],
            cwd=tmp_path,
            env={"PYTHONPATH": str(installed), "PATH": ""},
            check=True,
        )
        digests.append(shards.ShardReport.load(store, plan.name).sha256)
    assert digests[0] == digests[1]
