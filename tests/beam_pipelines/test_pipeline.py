"""The graph is small and picklable; what ends its workers becomes a plain error."""

import errno
import os
import pickle
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import pipeline, runner, shards
from support.errors import ExitCode, UserError
from support.images import open_source


def make_task():
    return shards.Task(open_source("images"), Path("out"), None)


def test_the_graph_holds_no_names_and_no_data():
    graph = beam.Pipeline(runner=runner.FnApiRunner())
    pipeline.write_shards(graph, Path("plan.npz"), make_task())
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

    with pytest.raises(UserError, match="worker process was killed") as caught:
        runner.run(graph, options, images=1)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_options_are_parsed_once_and_completely():
    words = ["--runner", "DirectRunner", "--direct_num_workers=3", "--job_name", "a b"]
    options = runner.parse_options(words, ["seed"]).get_all_options()
    assert options["runner"] == "DirectRunner"
    assert options["direct_num_workers"] == 3 and options["job_name"] == "a b"
