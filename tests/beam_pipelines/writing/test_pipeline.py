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
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines.sources.images import FolderSource
from beam_pipelines.writing import pipeline, runner, shards
from beam_pipelines.writing.stores import LocalStore
from support.errors import ExitCode, UserError


def make_task():
    return shards.Task(FolderSource("images"), LocalStore(Path("out")), None)


def test_the_graph_holds_no_names_and_no_data():
    graph = beam.Pipeline(runner=runner.FnApiRunner())
    pipeline.write_shards(graph, make_task())
    assert len(graph.to_runner_api().SerializeToString()) < 20_000


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
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_shard", fail)
    assert builder() == ExitCode.OUTPUT
    assert "is full" in capsys.readouterr().err
    assert not builder.output.exists()


@pytest.mark.slow
def test_a_killed_worker_is_noticed():
    options = PipelineOptions(["--direct_num_workers=2"])

    def graph(root):
        return root | beam.Create([3]) | beam.Reshuffle() | beam.Map(os._exit)

    with pytest.raises(UserError, match="worker process was killed or") as caught:
        runner.run(graph, options, images=1)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


@pytest.mark.slow
def test_workers_that_cannot_start_are_noticed(monkeypatch):
    def fail(_):
        raise EOFError

    monkeypatch.setattr(runner.worker, "start", fail)
    options = PipelineOptions(["--direct_num_workers=2"])
    with pytest.raises(UserError, match="could not start") as caught:
        runner.run(lambda root: root | beam.Create([3]), options, images=1)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_a_worker_ends_with_its_build():
    build = (
        "import os, time; from beam_pipelines.writing import worker\n"
        "address = 'url: \"localhost:1\"'\n"
        "process = worker.start({'CONTROL_API_SERVICE_DESCRIPTOR': address})\n"
        "print(process.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", build], stdout=subprocess.PIPE, text=True
    )
    pid = int(process.stdout.readline())
    os.kill(pid, 0)
    process.kill()
    process.communicate()
    until = time.monotonic() + 30
    while time.monotonic() < until and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_raises_is_one_line(workers):
    def fail(_):
        raise ZeroDivisionError("by nothing")

    def exhaust(_):
        raise MemoryError

    options = PipelineOptions([f"--direct_num_workers={workers}"])
    with pytest.raises((ZeroDivisionError, RuntimeError)) as raised:
        runner.run(lambda root: root | beam.Create([3]) | beam.Map(fail), options, 1)
    text = f"{type(raised.value).__name__}: {raised.value}"
    assert "ZeroDivisionError: by nothing" in text and len(text.splitlines()) == 1
    with pytest.raises(UserError, match="ran out of memory") as caught:
        runner.run(lambda root: root | beam.Create([3]) | beam.Map(exhaust), options, 1)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.STOPPED)],
)
def test_signals_stop_a_build_in_this_process(builder, number, code):
    script = (
        "import signal, sys, time\n"
        "from beam_pipelines import build\n"
        "from beam_pipelines.writing import shards\n"
        "from support import command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "prepare = shards.prepare_jpeg\n"
        "def slow(*arguments):\n"
        "    print('working', flush=True)\n"
        "    time.sleep(0.2)\n"
        "    return prepare(*arguments)\n"
        "shards.prepare_jpeg = slow\n"
        "command.run(build.main, ['build', *sys.argv[1:]])\n"
    )
    flags = [f"--celeba_dir={builder.celeba_dir}", f"--output_dir={builder.output}"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "working" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Stopped by" in error and len(error.splitlines()) == 2
    assert not builder.output.exists()


def test_options_are_parsed_once_and_completely():
    words = ["--runner", "DirectRunner", "--direct_num_workers=3", "--job_name", "a b"]
    options = runner.parse_options(words, ["seed"]).get_all_options()
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
