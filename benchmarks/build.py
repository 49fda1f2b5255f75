"""Images per second of the build at the size of CelebA, from a folder and from a zip.

    python -m benchmarks.build --annotations_dir=FOLDER --write

draws faces, copies them until there are as many as the annotation files name, builds
all of them, every image checked, and measures from the start of the program to the
published manifest. Beside it, in turns: a hand-written loop that only reads, decodes
and writes, and the writers of other libraries, if `--peers_python` has them.
"""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from absl import flags

from beam_pipelines.synthesize import QUALITY
from benchmarks import harness, input_peers, processes
from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest
from support import command
from support.errors import usage_error
from support.images import resize

_DRAWN = 2000  # faces; the other files are copies of them
#: Case -> what `processes.run` found of it, of the last round.
Facts = dict[str, dict[str, float]]

#: Case -> the module that must be installed.
_PEERS = {
    "webdataset": "webdataset",
    "litdata": "litdata",
    "streaming": "mosaic_streaming",
    "tfds": "tensorflow_datasets",
}
_TEXTS = (celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE, celeba.IDENTITY_FILE)


@dataclasses.dataclass(frozen=True)
class BuildBenchmarkConfig:
    """What to measure."""

    annotations_dir: str = command.option(
        "", "Folder of CelebA's annotation files; empty = those of the drawn faces."
    )
    images_dir: str = command.option(
        "", "Folder of JPEGs to copy, enlarged to CelebA's size; empty = drawn faces."
    )
    num_images: int = command.option(202_599, "Images to build.")
    smaller: tuple[int, ...] = command.option(
        (2000, 20_000), "Other numbers of images, to see how the cost grows."
    )
    work_dir: str = command.option(
        "data/benchmark", "Folder for the images, 3 GB at full size; kept."
    )
    peers_python: str = command.option(
        "", "A Python that has benchmarks/requirements-peers.txt; empty = no peers."
    )
    rounds: int = command.option(3, "Measured rounds; one more warms up.")
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if self.rounds < 1 or min((self.num_images, *self.smaller)) < 100:
            raise usage_error(
                f"--rounds={self.rounds}, --num_images={self.num_images} or --smaller "
                "is too few.",
                "Use 1 round and 100 images or more.",
            )


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(BuildBenchmarkConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(BuildBenchmarkConfig, values)
    work = Path(config.work_dir)
    folder = make_images(config, config.num_images)
    facts: Facts = {}
    cases = list(_cases(config, work, folder, facts))
    measurements = [
        dataclasses.replace(measurement, facts=facts.get(measurement.name, {}))
        for measurement in harness.measure(cases, config.rounds)
    ]
    settings = {
        "num_images": config.num_images,
        "official_annotations": bool(config.annotations_dir),
        "drawn_faces": not config.images_dir,
        "bytes_per_image": _bytes_per_image(folder),
    }
    name = f"build-{config.num_images}"
    result = harness.document(name, "images", measurements, settings)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def make_images(config: BuildBenchmarkConfig, count: int) -> Path:
    """A CelebA folder of `count` files, made once; returns its path."""
    work = Path(config.work_dir)
    folder = work / f"celeba-{count}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    drawn = work / "drawn"
    words = [f"--output_dir={drawn}", f"--num_examples={_DRAWN}"]
    processes.run([sys.executable, "-m", "beam_pipelines.synthesize", *words])
    images = folder / celeba.IMAGE_FOLDER
    images.mkdir(parents=True)
    sources = Path(config.images_dir or drawn / celeba.IMAGE_FOLDER)
    faces = [_full_size(path.read_bytes()) for path in sorted(sources.iterdir())]
    for index in range(count):
        (images / f"{index + 1:06d}.jpg").write_bytes(faces[index % len(faces)])
    for name in _TEXTS:
        lines = (
            (Path(config.annotations_dir or drawn) / name).read_bytes().split(b"\r\n")
        )
        (folder / name).write_bytes(_repeat(lines, count, header="attr" in name))
    (folder / "complete").touch()
    return folder


def _cases(
    config: BuildBenchmarkConfig, work: Path, folder: Path, facts: Facts
) -> Iterator[harness.Case]:
    count = config.num_images
    build = functools.partial(_build, output=work / "tfrecords", facts=facts)
    yield _case(f"build, folder, {count:,}", build, folder, count)
    zipped = _zipped(work, folder)
    yield _case(f"build, zip, {count:,}", build, zipped, count)
    images = str(folder / celeba.IMAGE_FOLDER)
    output = str(work / "other")
    yield harness.Case(
        f"hand-written loop, {count:,}",
        lambda: _write_otherwise(["-m", "benchmarks.hand_loop", images, output]),
    )
    for number in config.smaller:
        part = make_images(config, number)
        yield _case(f"build, folder, {number:,}", build, part, number)
    for name, module in _PEERS.items() if config.peers_python else ():
        if not input_peers.installed(config.peers_python, module):
            print(f"skipped {name}: {config.peers_python} cannot import {module}")
            continue
        script = Path(__file__).parent / "peers" / f"{name}_writer.py"
        words = [str(script), images, output]
        yield harness.Case(
            f"{name}, unchecked, {count:,}",
            functools.partial(_write_otherwise, words, config.peers_python),
        )


def _case(name: str, build: Callable, folder: Path, count: int) -> harness.Case:
    def do() -> harness.Timed:
        timed = build(name, folder)
        if timed.units != count:
            raise ValueError(f"{name} wrote {timed.units} of {count} images")
        return timed

    return harness.Case(name, do)


def _build(name: str, folder: Path, output: Path, facts: Facts) -> harness.Timed:
    """Builds everything in a program of its own and notes what that took.

    Timed until the manifest is there; the report is drawn after that.
    """
    words = [
        "--runner=DirectRunner",
        "--balance=none",
        f"--celeba_dir={folder}",
        f"--output_dir={output}",
        "--overwrite",
    ]
    started = time.time()
    facts[name] = processes.run([sys.executable, "-m", "beam_pipelines.build", *words])
    seconds = (output / FILE_NAME).stat().st_mtime - started
    manifest = Manifest.from_json((output / FILE_NAME).read_text())
    return harness.Timed(sum(shard.records for shard in manifest.shards), seconds)


def _write_otherwise(words: Sequence[str], python: str = sys.executable) -> int:
    output = Path(words[-1])
    shutil.rmtree(output, ignore_errors=True)
    done = subprocess.run(
        [python, *words],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return int(done.stdout.split()[-1])


def _zipped(work: Path, folder: Path) -> Path:
    """The same folder with its images in a zip file, stored as in the official one."""
    target = work / f"{folder.name}-zip"
    if (target / "complete").exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in _TEXTS:
        shutil.copy(folder / name, target)
    with zipfile.ZipFile(target / f"{celeba.IMAGE_FOLDER}.zip", "w") as archive:
        for path in sorted((folder / celeba.IMAGE_FOLDER).iterdir()):
            archive.write(path, f"{celeba.IMAGE_FOLDER}/{path.name}")
    (target / "complete").touch()
    return target


def _full_size(jpeg: bytes) -> bytes:
    """The image in the size of CelebA's, with files about as large as those."""
    pixels = simplejpeg.decode_jpeg(jpeg)
    if pixels.shape[:2] == celeba.ALIGNED_SIZE:
        return jpeg
    pixels = np.ascontiguousarray(resize(pixels, celeba.ALIGNED_SIZE))
    return simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="420")


def _repeat(lines: Sequence[bytes], count: int, header: bool) -> bytes:
    """An annotation file of `count` rows; rows are used again under other names."""
    top = [str(count).encode(), lines[1]] if header else []
    rows = [line for line in lines[2 if header else 0 :] if line]
    values = [row.split(None, 1)[1] for row in rows]
    body = [
        f"{index + 1:06d}.jpg ".encode() + values[index % len(values)]
        for index in range(count)
    ]
    return b"\r\n".join([*top, *body, b""])


def _bytes_per_image(folder: Path) -> int:
    with os.scandir(folder / celeba.IMAGE_FOLDER) as entries:
        sizes = [entry.stat().st_size for entry in entries]
    return round(sum(sizes) / len(sizes))


if __name__ == "__main__":
    command.run(main)
