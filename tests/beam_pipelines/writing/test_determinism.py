"""The same bytes in every shard, whoever writes them, however often killed."""

import base64
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from schemas import celeba
from schemas.manifest import FILE_NAME
from support.errors import ExitCode
from tests.beam_pipelines.conftest import Builder

#: An 8x8 gray JPEG. Images differ in a comment, so no encoder takes part.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP////////////////////////////////////////////////"
    "//////////////////////////////////////wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAA"
    "AAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwR"
    "VS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqD"
    "hIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6e"
    "rx8vP09fb3+Pn6/9oACAEBAAA/ACv/2Q=="
)

#: sha256 over the shards and the manifest of `golden_celeba` with `GOLDEN_FLAGS`. It
#: changes only with the format or the selection: then VERSION in the manifest does too.
GOLDEN = "de0ac7a3dd2f8530e6fcded3a41d709f4f97dc7d2eb92e6fd67ee966feb7aee8"
GOLDEN_FLAGS = ("--num_examples=60", "--num_shards=2", "--seed=7")


def commented(number):
    """The JPEG with a comment that holds a number: other bytes, the same pixels."""
    text = f"image {number}".encode()
    return JPEG[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + JPEG[2:]


@pytest.fixture
def golden(tmp_path):
    """A builder on 120 images of 40 people."""
    folder = tmp_path / "celeba"
    (folder / celeba.IMAGE_FOLDER).mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, 121)]
    rows, people = [], []
    for index, name in enumerate(names):
        (folder / celeba.IMAGE_FOLDER / name).write_bytes(commented(index))
        # Fixed arithmetic, no random generator that another version may change.
        values = [
            1 if (index * 7 + column * 5) % 11 < 5 else -1 for column in range(40)
        ]
        rows.append(" ".join([name, *map(str, values)]))
        people.append(f"{name} {index // 3 + 1}")
    header = f"120\n{' '.join(celeba.ATTRIBUTES)}\n"
    (folder / celeba.ATTRIBUTES_FILE).write_text(header + "\n".join(rows))
    (folder / celeba.IDENTITY_FILE).write_text("\n".join(people))
    return Builder(folder, tmp_path / "out")


def digest(folder):
    """sha256 over names and bytes of the shards and the manifest."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if ".tfrecord-" in path.name or path.name == FILE_NAME:
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


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


def start(golden, *flags):
    """Starts the build as a program of its own, reading each image for a while."""
    slow = (
        "import sys, time\n"
        "from beam_pipelines import build\n"
        "from beam_pipelines.writing import shards\n"
        "from support import command\n"
        "prepare = shards.prepare_jpeg\n"
        "def slow(*arguments):\n"
        "    time.sleep(0.01)\n"
        "    return prepare(*arguments)\n"
        "shards.prepare_jpeg = slow\n"
        "command.run(build.main, ['build', *sys.argv[1:]])\n"
    )
    own = [f"--celeba_dir={golden.celeba_dir}", f"--output_dir={golden.output}"]
    line = [sys.executable, "-c", slow, *own, *GOLDEN_FLAGS, *flags]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_finishes(golden):
    assert golden("--num_examples=30") == ExitCode.OK
    before = digest(golden.output)
    rng = np.random.default_rng(0)
    kills = 0
    for pause in rng.uniform(0.0, 0.9, 8):
        process = start(golden, "--overwrite")
        staging = golden.output.parent.glob("out.building-*")
        while process.poll() is None and not any(staging):
            staging = golden.output.parent.glob("out.building-*")
            time.sleep(0.01)
        time.sleep(pause)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        # Either the old dataset or, if the kill came late, the new one; nothing else.
        assert digest(golden.output) in (before, GOLDEN)
    assert kills >= 2
    assert golden(*GOLDEN_FLAGS, "--overwrite") == ExitCode.OK
    assert digest(golden.output) == GOLDEN
    assert sorted(path.name for path in golden.output.parent.iterdir()) == [
        "celeba",
        "out",
    ]
