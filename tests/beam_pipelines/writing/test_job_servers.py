"""Job servers that cannot be had: two lines, before anything is written."""

import os
import socket
import stat
import subprocess
import sys

import pytest

from support.errors import ExitCode

FLINK = ("--runner=FlinkRunner", "--flink_master=[local]")
SPARK = ("--runner=spark", "--spark_master_url=local[2]")


@pytest.fixture
def java(tmp_path):
    """A program in place of Java, which says what it was asked and fails."""
    path = tmp_path / "java"
    path.write_text('#!/bin/sh\necho "Unrecognized option: $1"\nexit 1\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("flags", [FLINK, SPARK])
def test_there_is_no_java(builder, capsys, flags):
    flags += ("--job_server_java_launcher=no-java-here",)
    assert builder(*flags) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "Runner needs Java" in error and len(error.splitlines()) == 2


@pytest.mark.parametrize("engine, flags", [("flink", FLINK), ("spark", SPARK)])
def test_the_jar_does_not_exist(builder, capsys, java, engine, flags):
    flags += (f"--{engine}_job_server_jar=no.jar", f"--job_server_java_launcher={java}")
    assert builder(*flags) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert f"--{engine}_job_server_jar=no.jar does not exist" in error
    assert f"make engine-{engine}" in error and len(error.splitlines()) == 2


@pytest.mark.slow
def test_a_job_server_that_does_not_start(builder, java):
    jar = f"--flink_job_server_jar={java}"
    flags = (jar, f"--job_server_java_launcher={java}", "--job_server_jvm_property=-Xx")
    places = (f"--celeba_dir={builder.celeba_dir}", f"--output_dir={builder.output}")
    line = [sys.executable, "-m", "beam_pipelines.build", *FLINK, *flags, *places]
    env = {**os.environ, "TMPDIR": str(java.parent)}  # the log stays there
    done = subprocess.run(line, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == ExitCode.USAGE
    assert "does not start: Unrecognized option: -Xx" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_no_job_service_answers(builder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
        flags = (f"--job_endpoint=localhost:{port}", "--job_server_timeout=1")
        assert builder("--runner=PortableRunner", *flags) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "No job service answers" in error and len(error.splitlines()) == 2


def test_an_option_that_no_job_server_knows(builder, capsys):
    flags = ("--runner=PortableRunner", "--job_endpoint=embed", "--num_shard=3")
    assert builder(*flags) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "no flag --num_shard, nor" in error and "Did you mean --num_shards" in error
