"""A small CelebA in the official format, made of noise, and a way to build from it."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from beam_pipelines import build
from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest
from support import command

_MALE = celeba.ATTRIBUTES.index("Male")


@dataclasses.dataclass
class SmallCelebA:
    """A CelebA folder; people hold three images each, men every other person."""

    folder: Path
    images: int

    @property
    def attributes(self) -> Path:
        return self.folder / celeba.ATTRIBUTES_FILE

    @property
    def partition(self) -> Path:
        return self.folder / celeba.PARTITION_FILE

    @property
    def identity(self) -> Path:
        return self.folder / celeba.IDENTITY_FILE

    def image(self, number: int) -> Path:
        return self.folder / celeba.IMAGE_FOLDER / f"{number:06d}.jpg"

    def edit(self, path: Path, old: str, new: str) -> None:
        """Replaces the first occurrence, which must exist, in a text file."""
        text = path.read_bytes().decode()
        assert old in text
        path.write_bytes(text.replace(old, new, 1).encode())


def jpeg(seed: int, height: int = 24, width: int = 20, **options) -> bytes:
    """A JPEG of a random slope of colors."""
    corners = np.random.default_rng(seed).uniform(0, 255, (2, 2, 3))
    down, across = np.linspace(0, 1, height), np.linspace(0, 1, width)
    rows = corners[0] + (corners[1] - corners[0]) * down[:, None, None]
    pixels = rows[:, :1] + (rows[:, 1:] - rows[:, :1]) * across[None, :, None]
    return simplejpeg.encode_jpeg(pixels.astype(np.uint8), quality=90, **options)


def make_celeba(folder: Path, images: int = 60) -> SmallCelebA:
    """Writes images and the three annotation files."""
    small = SmallCelebA(folder, images)
    (folder / celeba.IMAGE_FOLDER).mkdir(parents=True)
    values = np.random.default_rng(0).choice([-1, 1], (images, len(celeba.ATTRIBUTES)))
    rows, splits, people = [], [], []
    for index in range(images):
        name = f"{index + 1:06d}.jpg"
        small.image(index + 1).write_bytes(jpeg(index))
        values[index, _MALE] = 1 if index // 3 % 2 else -1
        rows.append(f"{name} {' '.join(f'{value:2d}' for value in values[index])}\n")
        splits.append(f"{name} {0 if index < 36 else 1 if index < 48 else 2}\n")
        people.append(f"{name} {1000 + index // 3}\n")
    header = f"{images}\n{' '.join(celeba.ATTRIBUTES)} \n"
    small.attributes.write_text(header + "".join(rows))
    small.partition.write_text("".join(splits))
    small.identity.write_text("".join(people))
    return small


@pytest.fixture
def small_celeba(tmp_path) -> SmallCelebA:
    return make_celeba(tmp_path / "celeba")


@dataclasses.dataclass
class Builder:
    """Runs the build program in this process, into one output folder.

    Charts are drawn only on demand: they would take most of the time.
    """

    celeba_dir: Path
    output: Path
    charts: bool = False

    def __call__(self, *flags: str) -> int:
        """Runs it with more flags and returns its exit code."""
        own = [f"--celeba_dir={self.celeba_dir}", f"--output_dir={self.output}"]
        with pytest.MonkeyPatch.context() as patch:
            if not self.charts:
                patch.setitem(sys.modules, "matplotlib", None)
            return command.guard(build.main, ["build", *own, *flags])

    @property
    def manifest(self) -> Manifest:
        return Manifest.from_json((self.output / FILE_NAME).read_text())


@pytest.fixture
def builder(small_celeba, tmp_path) -> Builder:
    return Builder(small_celeba.folder, tmp_path / "out")


_SLOW_BUILD = """
import sys, time
from beam_pipelines import build
from beam_pipelines.writing import shards
from support import command
from support.images import prepare_jpeg

def slow(*arguments):
    time.sleep(PAUSE)
    return prepare_jpeg(*arguments)

shards.prepare_jpeg = slow
if __name__ == "__main__":
    command.run(build.main, ["build", *sys.argv[1:]])
"""


def start_slow_build(builder: Builder, pause: float, *flags: str) -> subprocess.Popen:
    """Starts the build as a program whose workers take some seconds per image."""
    # A file, not `-c`: worker processes import it, too.
    path = builder.output.parent.with_suffix(".py")
    path.write_text(_SLOW_BUILD.replace("PAUSE", str(pause)))
    own = [f"--celeba_dir={builder.celeba_dir}", f"--output_dir={builder.output}"]
    return subprocess.Popen(
        [sys.executable, path, *own, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
