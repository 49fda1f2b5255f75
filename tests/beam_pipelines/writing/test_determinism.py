"""The same bytes in every shard, whoever writes them, however often killed."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from support.errors import ExitCode
from tests.beam_pipelines.conftest import start_slow_build
from tests.beam_pipelines.golden import GOLDEN, GOLDEN_FLAGS, digest, make_golden


@pytest.fixture
def golden(tmp_path):
    return make_golden(tmp_path)


def test_the_shards_of_a_small_sample_are_pinned(golden):
    assert golden(*GOLDEN_FLAGS) == ExitCode.OK
    assert digest(golden.output) == GOLDEN


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_runners_write_the_same_bytes(golden, mode, workers):
    flags = (f"--direct_running_mode={mode}", f"--direct_num_workers={workers}")
    assert golden(*GOLDEN_FLAGS, *flags) == ExitCode.OK
    assert digest(golden.output) == GOLDEN


@pytest.mark.engine
def test_the_portable_runner_writes_the_same_bytes(golden):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service = subprocess.Popen(
        [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main"]
        + ["--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while "Listening" not in service.stderr.readline():
            assert service.poll() is None
        flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}"]
        code = golden(*GOLDEN_FLAGS, *flags, "--environment_type=LOOPBACK")
    finally:
        service.kill()
        service.communicate()
    assert code == ExitCode.OK
    assert digest(golden.output) == GOLDEN


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_finishes(golden):
    assert golden("--num_examples=30") == ExitCode.OK
    before = digest(golden.output)
    rng = np.random.default_rng(0)
    kills = 0
    for pause in rng.uniform(0.0, 0.9, 8):
        process = start_slow_build(golden, 0.01, *GOLDEN_FLAGS, "--overwrite")
        staging = golden.output.parent.glob("out.building-*")
        while process.poll() is None and not any(staging):
            staging = golden.output.parent.glob("out.building-*")
            time.sleep(0.01)
        time.sleep(pause)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        # Either the old dataset or, if the kill came late, the new one; nothing else.
        assert digest(golden.output) in (before, GOLDEN)
    assert kills >= 2
    assert golden(*GOLDEN_FLAGS, "--overwrite") == ExitCode.OK
    assert digest(golden.output) == GOLDEN
    assert sorted(path.name for path in golden.output.parent.iterdir()) == [
        "celeba",
        "out",
    ]
