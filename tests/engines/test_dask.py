"""The build on Dask: the same bytes, whatever is killed, and few lines.

`make engine-dask` runs these tests alone.
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support.errors import ExitCode
from tests.beam_pipelines.golden import GOLDEN, GOLDEN_FLAGS, digest, make_golden

pytest.importorskip("distributed")

#: Workers load it: each image takes a while, so that there is a middle of a shard.
SLOW = """
import time
from beam_pipelines.writing import shards
from support.images import prepare_jpeg

def slow(*arguments):
    time.sleep(0.03)
    return prepare_jpeg(*arguments)

shards.prepare_jpeg = slow
"""


class Cluster:
    """`dask scheduler` and two `dask worker`s, as a user starts them."""

    def __init__(self, folder: Path):
        self.log, self._file = folder / "scheduler.log", folder / "scheduler.json"
        (folder / "slow.py").write_text(SLOW)
        self.scheduler = self._start(
            "scheduler",
            "--host=127.0.0.1",
            "--port=0",
            f"--scheduler-file={self._file}",
        )
        while not self._file.exists():
            assert self.scheduler.poll() is None, self.log.read_text()
            time.sleep(0.05)
        options = ("--no-nanny", "--nthreads=1", f"--preload={folder / 'slow.py'}")
        self.workers = [self._start("worker", self.address, *options) for _ in range(2)]

    @property
    def address(self) -> str:
        return json.loads(self._file.read_text())["address"]

    def _start(self, program: str, *options: str) -> subprocess.Popen:
        module = f"distributed.cli.dask_{program}"
        with open(self.log, "a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, "--no-dashboard", *options],
                stdout=log,
                stderr=log,
                cwd=self.log.parent,  # not the folder of the build
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        self._file.unlink()


@pytest.fixture
def golden(tmp_path):
    return make_golden(tmp_path)


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.stop()


def start_build(golden, *flags):
    own = [f"--celeba_dir={golden.celeba_dir}", f"--output_dir={golden.output}"]
    line = [sys.executable, "-m", "beam_pipelines.build", "--runner=DaskRunner"]
    return subprocess.Popen(
        [*line, *own, *GOLDEN_FLAGS, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(golden, pattern, count=1):
    """Names of files in the staging folder, once there are so many."""
    while len(found := list(golden.output.parent.glob(f"out.building-*/{pattern}"))) < (
        count
    ):
        time.sleep(0.01)
    return [path.name for path in found]


def running(group):
    """The processes of a group that still do something."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and os.getpgid(process.pid) == group:
                yield process


def names(folder):
    return {path.name for path in folder.iterdir()}


def stray(folder):
    """Files of no use to readers: half shards, reports on shards, the plan."""
    wrong = re.compile(r"\..*|.*tfrecord.*\.json|retries\.json|plan\..*")
    return [name for name in names(folder) if wrong.fullmatch(name)]


def test_a_local_cluster_writes_the_same_bytes_and_few_lines(golden):
    build = start_build(golden)
    out, _ = build.communicate(timeout=120)
    assert build.returncode == ExitCode.OK, out
    assert digest(golden.output) == GOLDEN
    assert len(out.splitlines()) <= 20 and "(DaskRunner)" in out
    end = time.monotonic() + 20  # Python's resource tracker ends after the program
    while left := list(running(build.pid)):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_two_passes_have_one_client(golden, cluster):
    golden.celeba_dir.joinpath("img_align_celeba", "000001.jpg").write_bytes(b"")
    flags = (*GOLDEN_FLAGS, "--num_examples=0", "--max_bad_fraction=0.2")
    assert golden(*flags) == ExitCode.OK
    local = digest(golden.output)
    engine = ("--runner=dask", f"--dask_client_address={cluster.address}")
    assert golden(*flags, *engine, "--overwrite") == ExitCode.OK
    assert digest(golden.output) == local
    facts = json.loads((golden.output / "build.json").read_text())
    assert facts["rounds"] == 2
    log = cluster.log.read_text()
    assert log.count("Receive client connection") == 1
    assert log.count("Close client connection") == 1


def wait_for_second_shard(golden):
    """The process that writes its second shard, and the name of its first."""
    written: dict[int, list[str]] = {}
    while True:
        for name in wait_for(golden, ".celeba-*-of-00002.*.tmp"):
            shard, process = name[1:].split("-of-")[0], int(name.split(".")[-2])
            if shard not in written.setdefault(process, []):
                written[process].append(shard)
            if len(written[process]) == 2:
                return process, f"{written[process][0]}-of-00002"


def test_a_worker_killed_in_the_middle_of_a_shard(golden, cluster):
    """What it wrote before is executed again, elsewhere, and found to be right."""
    build = start_build(golden, f"--dask_client_address={cluster.address}")
    process, first = wait_for_second_shard(golden)
    (staging,) = golden.output.parent.glob("out.building-*")
    written = (staging / first).stat().st_mtime_ns
    os.kill(process, signal.SIGKILL)
    out, _ = build.communicate(timeout=120)
    assert build.returncode == ExitCode.OK, out
    assert sorted(worker.poll() is None for worker in cluster.workers) == [False, True]
    assert digest(golden.output) == GOLDEN
    assert written == (golden.output / first).stat().st_mtime_ns
    assert not stray(golden.output)
    assert names(golden.output.parent) == {"celeba", "cluster", "out"}


def test_a_lost_scheduler_is_two_lines_and_the_same_command_resumes(golden, cluster):
    build = start_build(golden, f"--dask_client_address={cluster.address}")
    wait_for(golden, "*.json")
    cluster.scheduler.kill()
    out, _ = build.communicate(timeout=120)
    assert build.returncode == ExitCode.STOPPED, out
    cause, remedy = out.splitlines()[-2:]
    assert cause == "error: The connection to Dask's scheduler was lost."
    assert "run the same command again to resume" in remedy
    assert not golden.output.exists()
    assert golden(*GOLDEN_FLAGS) == ExitCode.OK
    assert digest(golden.output) == GOLDEN
    assert not stray(golden.output)


@pytest.mark.engine
@pytest.mark.parametrize("pause", [0.0, 2.0, 4.0])
def test_ctrl_c_is_two_lines(golden, pause):
    build = start_build(golden)
    lines = [build.stdout.readline() for _ in range(6)]  # the plan
    time.sleep(pause)
    os.killpg(build.pid, signal.SIGINT)  # as a terminal does
    out, _ = build.communicate(timeout=60)
    if build.returncode != ExitCode.OK:  # it may have been finished already
        assert build.returncode == ExitCode.INTERRUPTED
        assert out.startswith("error: Stopped by Ctrl-C"), (lines, out)
        assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--runner=DaskRuner"], "Did you mean DaskRunner"),
        (["--dask_client_address=tcp://x:1"], "needs --runner=DaskRunner"),
        (
            ["--runner=DaskRunner", "--dask_client_adress=x"],
            "Did you mean --dask_client_address",
        ),
        (
            ["--runner=DaskRunner", "--dask_client_address=tcp://127.0.0.1:1"]
            + ["--dask_connection_timeout=1"],
            "No Dask scheduler answers at tcp://127.0.0.1:1",
        ),
        (
            ["--runner=DaskRunner", "--dask_scheduler_file=/no/such.json"],
            "--dask_scheduler_file=/no/such.json does not exist",
        ),
    ],
)
def test_a_cluster_that_is_not_there_is_two_lines(golden, capsys, flags, words):
    assert golden(*flags) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 2
    assert names(golden.output.parent) == {"celeba"}


def test_without_dask_the_remedy_installs_it(golden, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "distributed" else find(name, *rest),
    )
    assert golden("--runner=DaskRunner") == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "pip install -e '.[dask]'" in error and len(error.splitlines()) == 2
