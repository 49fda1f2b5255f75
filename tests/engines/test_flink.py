"""The build on Flink, on this machine: the same bytes, whatever is killed."""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.errors import ExitCode
from tests.engines import job_server

pytestmark = pytest.mark.engine
job_server.require("flink")

FLINK = ("--runner=FlinkRunner", "--flink_master=[local]", "--parallelism=2")

RESTARTS = """
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 2
restart-strategy.fixed-delay.delay: 1 s
"""


@pytest.fixture
def case(tmp_path):
    return job_server.make_case(tmp_path)


def test_flink_writes_the_same_bytes(case):
    assert "FlinkRunner" in case.run(*FLINK)
    case.check()


@pytest.fixture
def worker_pool():
    """Starts Beam's pool of worker processes; yields its process and address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    module = "apache_beam.runners.worker.worker_pool_main"
    # The pool starts workers with the first `python` that it finds.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    pool = subprocess.Popen(
        [sys.executable, "-m", module, f"--service_port={port}"],
        env={**os.environ, "PATH": path},
        stderr=subprocess.DEVNULL,
    )
    yield pool, f"localhost:{port}"
    pool.kill()
    pool.wait()


class Trap:
    """A pipe in place of an image: its reader waits, and can be found and killed."""

    def __init__(self, path):
        self.path, self.data = path, path.read_bytes()
        os.mkfifo(path.with_suffix(".pipe"))
        path.with_suffix(".pipe").replace(path)
        self.file = None

    def has_reader(self):
        try:
            self.file = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def open(self):
        """Puts the image back, and gives it to a reader that still waits."""
        self.path.with_suffix(".back").write_bytes(self.data)
        self.path.with_suffix(".back").replace(self.path)
        with contextlib.suppress(BrokenPipeError):
            os.write(self.file, self.data)
        os.close(self.file)


def children(process):
    return [child.pid for child in psutil.Process(process.pid).children()]


@pytest.mark.parametrize(
    "victim, restarts", [("worker", False), ("worker", True), ("job server", False)]
)
def test_a_kill_in_a_shard_changes_no_byte(case, worker_pool, victim, restarts):
    pool, address = worker_pool
    flags = [*FLINK, "--environment_type=EXTERNAL", f"--environment_config={address}"]
    if restarts:
        (case.output.parent / "flink-conf.yaml").write_text(RESTARTS)
        flags.append(f"--flink_conf_dir={case.output.parent}")
    process = case.start(*flags)
    plans = functools.partial(case.output.parent.glob, "*.building-*/plan.*")
    job_server.wait_for(lambda: any(plans()))
    trap = Trap(case.small.image(20))
    job_server.wait_for(trap.has_reader)
    for child in children(pool if victim == "worker" else process):
        os.kill(child, signal.SIGKILL)
    trap.open()
    out, err = process.communicate(timeout=200)
    if restarts:
        assert process.returncode == ExitCode.OK, err
    else:
        assert process.returncode == ExitCode.OUTPUT, err
        assert len(err.splitlines()) == 2 and "run the same command again" in err
        case.run()  # any runner resumes
    case.check()
