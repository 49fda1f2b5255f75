"""Images per second of the build at the size of CelebA, from a directory and a zip.

    python -m benchmarks.build --annotations_dir=DIRECTORY --write

makes synthetic faces, copies them until there are as many as the annotation files name,
builds all of them, every image checked, and measures from the start of the program to
the published manifest. Interleaved with it: a hand-written loop that only reads,
decodes and writes, and the writers of other libraries, if `--peers_python` has them.
"""

import collections
import dataclasses
import functools
import math
import shutil
import statistics
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from beam_pipelines.synthesize import QUALITY
from benchmarks import harness, programs
from benchmarks.options import POSITIVE, Options
from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest
from support import command
from support.images import resize

_FACES = 2000  # synthetic ones; the other files are copies of them
#: Writer of `peers/writers.py` -> the module that must be installed.
_PEERS = {
    "webdataset": "webdataset",
    "litdata": "litdata",
    "tfds": "tensorflow_datasets",
}
_WRITERS = Path(__file__).parent / "peers" / "writers.py"
_TEXTS = (celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE, celeba.IDENTITY_FILE)


@dataclasses.dataclass(frozen=True)
class BuildBenchmarkConfig(Options):
    """Images to build, and where they come from."""

    annotations_dir: str = command.option(
        "", "Directory of CelebA's annotation files; empty = the synthetic faces'."
    )
    images_dir: str = command.option(
        "", "Directory of JPEGs to copy, resized to CelebA's; empty = synthetic faces."
    )
    num_images: int = command.option(202_599, "Images to build.", (100, math.inf))
    smaller: tuple[int, ...] = command.option(
        (2000, 20_000), "Other numbers of images, to see how the cost grows."
    )
    work_dir: str = command.option(
        "data/benchmark", "Directory for the images, 3 GB at full size; kept."
    )
    peers_python: str = command.option(
        "", "A Python that has benchmarks/requirements-peers.txt; empty = no peers."
    )
    rounds: int = command.option(3, "Measured rounds; one more warms up.", POSITIVE)


def main(argv: list[str]) -> None:
    config = command.parse_config(BuildBenchmarkConfig, argv)
    folder = make_images(config, config.num_images)
    facts: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    measurements = [
        dataclasses.replace(one, facts=_medians(facts[one.name][-config.rounds :]))
        for one in harness.measure(list(_cases(config, folder, facts)), config.rounds)
    ]
    sizes = [path.stat().st_size for path in (folder / celeba.IMAGE_FOLDER).iterdir()]
    settings = {
        "num_images": config.num_images,
        "official_annotations": bool(config.annotations_dir),
        "drawn_faces": not config.images_dir,
        "bytes_per_image": round(sum(sizes) / len(sizes)),
    }
    name = f"build-{config.num_images}"
    harness.report(name, "images", measurements, settings, config.write)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {
        fact: round(statistics.median(one[fact] for one in rounds), 1)
        for fact in rounds[0]
    }


def make_images(config: BuildBenchmarkConfig, count: int) -> Path:
    """A CelebA directory of `count` files, made once; returns its path.

    Copies of an image differ in a comment, so that no two files are equal.
    """
    work = Path(config.work_dir)
    folder, faces = work / f"celeba-{count}", work / "faces"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    programs.synthesize(faces, _FACES)
    images = folder / celeba.IMAGE_FOLDER
    images.mkdir(parents=True)
    sources = Path(config.images_dir or faces / celeba.IMAGE_FOLDER)
    jpegs = [_full_size(path.read_bytes()) for path in sorted(sources.iterdir())]
    for index in range(count):
        comment = b"\xff\xfe\x00\x0a%08d" % index
        start, rest = jpegs[index % len(jpegs)][:2], jpegs[index % len(jpegs)][2:]
        (images / f"{index + 1:06d}.jpg").write_bytes(start + comment + rest)
    for name in _TEXTS:
        text = (Path(config.annotations_dir or faces) / name).read_bytes()
        (folder / name).write_bytes(_repeat(text, count, header="attr" in name))
    (folder / "complete").touch()
    return folder


def _cases(
    config: BuildBenchmarkConfig, folder: Path, facts: dict[str, list[dict[str, float]]]
) -> Iterator[harness.Case]:
    """The builds and the others; what else is known of each round goes to `facts`."""
    work, count = Path(config.work_dir), config.num_images
    builds = {
        f"build, folder, {count:,}": (folder, count),
        f"build, zip, {count:,}": (_zipped(folder), count),
    }
    for number in config.smaller:
        part = make_images(config, number)
        builds[f"build, folder, {number:,}"] = (part, number)

    def build(name: str) -> harness.Timed:
        timed, known = _build(*builds[name], work / "tfrecords")
        facts[name].append(known)
        return timed

    for name in builds:
        yield harness.Case(name, functools.partial(build, name))
    images, output = folder / celeba.IMAGE_FOLDER, work / "other"
    others = {"hand-written loop": [sys.executable, "-m", "benchmarks.hand_loop"]}
    for name, module in _PEERS.items() if config.peers_python else ():
        if programs.can_import(name, config.peers_python, module):
            words = [config.peers_python, str(_WRITERS), name]
            others[f"{name}, unchecked"] = words

    def write(name: str, words: Sequence[str]) -> int:
        shutil.rmtree(output, ignore_errors=True)
        started = time.time()
        written = int(programs.run([*words, str(images), str(output)]).split()[-1])
        facts[name].append(_between_shards(output.glob("0*"), started, written))
        return written

    for name, words in others.items():
        name = f"{name}, {count:,}"
        yield harness.Case(name, functools.partial(write, name, words))


def _build(
    folder: Path, count: int, output: Path
) -> tuple[harness.Timed, dict[str, float]]:
    """Builds everything in a program of its own.

    Timed until the manifest is there; the report comes after that.

    Raises:
      ValueError: not all images were written.
    """
    started = time.time()
    facts = programs.run_watched(programs.build(folder, output, "--overwrite"))
    seconds = (output / FILE_NAME).stat().st_mtime - started
    manifest = Manifest.from_json((output / FILE_NAME).read_text())
    written = sum(shard.records for shard in manifest.shards)
    if written != count:
        raise ValueError(f"{folder}: {written} of {count} images were written")
    shards = [output / shard.name for shard in manifest.shards]
    return harness.Timed(count, seconds), facts | _between_shards(
        shards, started, count
    )


def _between_shards(
    shards: Iterable[Path], started: float, images: int
) -> dict[str, float]:
    """When the first shard was written, and the rate from then to the last one.

    Args:
      shards: files of about equally many images.
      started: when the program did, as `time.time`.
      images: in all shards.
    """
    ends = sorted(path.stat().st_mtime for path in shards)
    if len(ends) < 2:
        return {}
    share = (len(ends) - 1) / len(ends)
    return {
        "first shard, s": ends[0] - started,
        "first to last shard, images/s": images * share / (ends[-1] - ends[0]),
    }


def _zipped(folder: Path) -> Path:
    """The same directory with its images in a zip, stored as in the official one."""
    target = folder.with_name(f"{folder.name}-zip")
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


def _repeat(text: bytes, count: int, header: bool) -> bytes:
    """An annotation file of `count` rows; rows are used again under other names."""
    lines = text.split(b"\r\n")
    top = [str(count).encode(), lines[1]] if header else []
    values = [line.split(None, 1)[1] for line in lines[len(top) :] if line]
    body = [
        f"{index + 1:06d}.jpg ".encode() + values[index % len(values)]
        for index in range(count)
    ]
    return b"\r\n".join([*top, *body, b""])


if __name__ == "__main__":
    command.run(main)
