"""A small CelebA with one broken image, built locally and on an engine."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_pipelines.writing import job_servers
from schemas.manifest import FILE_NAME
from support.errors import ExitCode
from tests.beam_pipelines.conftest import Builder, SmallCelebA, make_celeba

FLAGS = ("--balance=none", "--num_shards=3", "--seed=7")


def require(engine: str) -> None:
    """Skips the tests of a module where its job server cannot run."""
    if not shutil.which("java"):
        pytest.skip(f"{engine}: there is no Java", allow_module_level=True)
    jar = job_servers.made_jar(engine)
    if not jar.exists():
        pytest.skip(f"no {jar}: run `make engine-{engine}`", allow_module_level=True)


def wait_for(condition, seconds: float = 150.0) -> None:
    """Waits until a function returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, condition
        time.sleep(0.05)


@dataclasses.dataclass
class Case:
    """Runs builds of one dataset whose bytes are known.

    Attributes:
      small: the images.
      output: the folder to build.
      expected: sha256 of the shards and of the manifest, by name.
    """

    small: SmallCelebA
    output: Path
    expected: dict[str, str]

    def start(self, *flags: str) -> subprocess.Popen:
        """Starts a build as a program of its own."""
        line = [sys.executable, "-m", "beam_pipelines.build", *FLAGS, *flags]
        line += [f"--celeba_dir={self.small.folder}", f"--output_dir={self.output}"]
        env = {**os.environ, "TMPDIR": str(self.output.parent)}  # logs stay there
        pipe = subprocess.PIPE
        return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=env)

    def run(self, *flags: str) -> str:
        """Runs a build to its good end; returns what it printed."""
        out, err = (process := self.start(*flags)).communicate(timeout=300)
        assert process.returncode == ExitCode.OK, err
        assert not err and len(out.splitlines()) <= 20
        return out

    def check(self) -> None:
        """Asserts that the dataset has the known bytes and nothing else is left."""
        assert _digests(self.output) == self.expected
        assert not list(self.output.parent.glob("*.building-*"))


def make_case(folder: Path) -> Case:
    """Builds locally; one image is broken, so that there is a retry pass."""
    small = make_celeba(folder / "celeba", images=60)
    small.image(7).write_bytes(small.image(7).read_bytes()[:100])
    local = Builder(small.folder, folder / "local")
    assert local(*FLAGS) == ExitCode.OK
    return Case(small, folder / "out", _digests(local.output))


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if ".tfrecord-" in path.name or path.name == FILE_NAME
    }
