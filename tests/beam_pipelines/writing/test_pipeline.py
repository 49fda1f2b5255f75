"""The graph is small and picklable; what ends its workers becomes a plain error."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest

from beam_pipelines.sources.images import FolderSource
from beam_pipelines.writing import options as beam_options
from beam_pipelines.writing import pipeline, runner, shards
from beam_pipelines.writing.store import Store
from support.errors import ExitCode, UserError
from tests.beam_pipelines.conftest import start_slow_build

TWO_WORKERS = ("--direct_num_workers=2", "--num_shards=12")


def make_task():
    return shards.Task(FolderSource("images"), Store("out"), None, 40)


#: The shards of 202,599 and of 20 million rows, and the most that flags can ask for.
@pytest.mark.parametrize("count", [130, 1_223, 299_997])
def test_a_job_is_small_however_many_shards_it_writes(count):
    graph = beam.Pipeline(runner="FnApiRunner")
    pipeline.write_shards(graph, 1, make_task(), count)
    assert len(graph.to_runner_api().SerializeToString()) < 50_000


def test_stages_pickle():
    stage = pickle.loads(pickle.dumps(pipeline.WriteShard(make_task())))
    assert stage.task == make_task()


def test_errors_survive_the_way_through_beam():
    error = UserError('A "quoted" [cause].', "A <<remedy>>.", ExitCode.OUTPUT)
    text = f"Traceback\n{runner.to_text(error)} [while running 'WriteShard']"
    found = runner.from_text(text)
    assert (found.cause, found.remedy) == (error.cause, error.remedy)
    assert found.exit_code == ExitCode.OUTPUT
    assert runner.from_text("something else") is None


def test_a_full_disk_is_one_line(builder, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_shard", fail)
    assert builder() == ExitCode.OUTPUT
    assert "is full" in capsys.readouterr().err
    assert not builder.output.exists()


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
@pytest.mark.parametrize(
    "raised, text, code",
    [
        (ZeroDivisionError("by nothing"), "ZeroDivisionError: by nothing", 1),
        (MemoryError(), "A worker ran out of memory", ExitCode.OUT_OF_MEMORY),
    ],
)
def test_error_of_a_worker_is_one_line(
    builder, monkeypatch, capsys, mode, raised, text, code
):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(shards, "write_shard", fail)
    assert builder(f"--direct_running_mode={mode}") == code
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 2


@pytest.mark.slow
def test_killed_worker_is_noticed(builder):
    """A process that is killed while it writes ends the build, which can resume."""
    process = start_slow_build(
        builder, 0.2, "--direct_num_workers=2", "--num_shards=12"
    )
    workers = wait_for_workers(process)
    os.kill(workers[0], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OUT_OF_MEMORY
    assert "worker process was killed" in error and len(error.splitlines()) == 2
    assert builder() == ExitCode.OK


@pytest.mark.slow
def test_workers_end_with_a_killed_build(builder):
    process = start_slow_build(
        builder, 0.2, "--direct_num_workers=2", "--num_shards=12"
    )
    workers = wait_for_workers(process)
    process.kill()
    process.communicate()
    until = time.monotonic() + 30
    while time.monotonic() < until and any(map(is_running, workers)):
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def wait_for_workers(process):
    """The process ids of a build's workers, once they write."""
    staging = Path(process.args[3].removeprefix("--output_dir=")).parent
    while not list(staging.glob("out.building-*/.celeba-*")):
        assert process.poll() is None
        time.sleep(0.01)
    # Temporary names carry the id of the process that writes.
    names = [path.name for path in staging.glob("out.building-*/.celeba-*")]
    return [int(name.split(".")[-2]) for name in names]


def is_running(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.STOPPED)],
)
@pytest.mark.parametrize(
    "flag",
    [
        "--direct_running_mode=in_memory",
        "--direct_running_mode=multi_threading",
        "--direct_num_workers=2",
    ],
)
def test_signals_stop_a_build_at_once(builder, number, code, flag):
    process = start_slow_build(builder, 0.2, flag)
    wait_for_workers(process)
    sent = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal does
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Stopped by" in error and len(error.splitlines()) == 2, error
    assert time.monotonic() - sent < 5  # a shard takes longer
    assert not builder.output.exists()


def test_options_are_parsed_once_and_completely():
    words = ["--runner", "DirectRunner", "--direct_num_workers=3", "--job_name", "a b"]
    options = beam_options.parse(words, ["seed"]).get_all_options()
    assert options["runner"] == "DirectRunner"
    assert options["direct_num_workers"] == 3 and options["job_name"] == "a b"


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.4, 0.8, 1.2, 1.6])
def test_ctrl_c_with_worker_processes_is_two_lines(builder, pause):
    words = [f"--celeba_dir={builder.celeba_dir}", f"--output_dir={builder.output}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "beam_pipelines.build", "--direct_num_workers=2"]
        + words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process.stdout.readline()  # from now on the program handles signals
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    if process.returncode != ExitCode.OK:  # it may have been finished already
        assert process.returncode == ExitCode.INTERRUPTED
        assert "Stopped by Ctrl-C" in error and len(error.splitlines()) == 2


@pytest.mark.parametrize(
    "words, text",
    [
        (["--direct_num_workers=-3"], "is negative"),
        (["--runner=PortableRunner"], "needs --job_endpoint"),
        (["--runner=foo.Bar"], "--runner=foo.Bar cannot be loaded"),
        (["--flagfile"], "names no file"),
        (["--runner=apache_beam.runners.dataflow.DataflowRunner"], "needs --project"),
    ],
)
def test_impossible_options_are_refused(builder, capsys, words, text):
    assert builder(*words) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 2
