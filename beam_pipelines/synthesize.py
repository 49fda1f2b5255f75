"""Draws a sample dataset in CelebA's layout: synthetic faces that follow their labels.

File names, sizes and formats are the official ones. The same seed and number of
examples give the same bytes, however many processes draw.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from beam_pipelines.sample import faces, people
from schemas import celeba
from support import command, files, pool
from support.command import option, outside_ranges
from support.errors import output_error, usage_error
from support.images import require_local

QUALITY = 88  # files of 5 to 10 kB, as CelebA's are
_CHUNK = 50  # images per task of a process
_FRACTIONS = np.array([0.8, 0.1, 0.1])  # of `celeba.SPLITS`, as CelebA's
_ANNOTATIONS = [celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE, celeba.IDENTITY_FILE]
_PLAN, _PERSON, _IMAGE = range(3)  # streams of random numbers


@dataclasses.dataclass(frozen=True)
class SynthesizeConfig:
    """Options of this program; see `--help`."""

    output_dir: str = option("data/sample", "Directory to make; it must not exist yet.")
    num_examples: int = option(2000, "Images to draw.", (1, 999_999))
    seed: int = option(0, "Another seed draws other people.", (0, 2**32 - 1))
    num_workers: int = option(0, "Processes that draw; 0: one per core.", (0, 999))

    def __post_init__(self):
        require_local(self.output_dir, "output_dir")
        for name, low, high in outside_ranges(self):
            raise usage_error(
                f"--{name} must be {low} to {high}, not {getattr(self, name)}.",
                f"Omit --{name} for its default.",
            )


def main(argv: list[str]) -> None:
    synthesize(command.parse_config(SynthesizeConfig, argv))


def synthesize(config: SynthesizeConfig) -> None:
    """Makes the sample, complete or not at all, and prints a line about it.

    Raises:
      UserError: the directory holds something else, is being written, or the disk is
        full (exit 4).
    """
    folder = Path(os.path.abspath(config.output_dir))
    parameters = {"format": celeba.SAMPLE_FORMAT, "version": faces.VERSION}
    parameters |= {"num_examples": config.num_examples, "seed": config.seed}
    with files.FolderLock(folder):
        if _exists(folder, parameters):
            print(f"{config.output_dir} is already there, made by this very command.")
            return
        # The lock is ours: what lies here was left by a killed run.
        building = folder.with_name(f".{folder.name}.celeba-drawing")
        shutil.rmtree(building, ignore_errors=True)
        started = time.perf_counter()
        with files.output_errors(folder.parent):
            try:
                identities, splits = make_plan(config.seed, config.num_examples)
                labels = _draw_all(building, identities, config)
                _write_annotations(building, labels, splits, identities)
                document = json.dumps(parameters, indent=1)
                (building / celeba.SAMPLE_FILE).write_text(document + "\n")
                if folder.exists():  # empty, or a sample to replace
                    files.exchange(building, folder)
                else:
                    os.rename(building, folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    rate = config.num_examples / (time.perf_counter() - started)
    male = labels[:, celeba.ATTRIBUTES.index("Male")].mean()
    print(
        f"Drew {config.num_examples:,} images of {identities.max():,} people, "
        f"{male:.0%} Male, into {config.output_dir} ({rate:,.0f} images/s)."
    )


def make_plan(seed: int, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws people and their numbers of images, and splits by people.

    Within each value of `Male`, people go one by one to the split that is furthest
    below its fraction, so that small samples have both in every split.

    Returns:
      of each image the identity, from 1, and the split's place in `celeba.SPLITS`, in
      ascending order; (num_examples,) int.
    """
    rng = np.random.default_rng((seed, _PLAN))
    low, high = people.IMAGES_PER_PERSON
    counts = rng.integers(low, high + 1, size=num_examples)
    identities = np.repeat(np.arange(1, num_examples + 1), counts)[:num_examples]
    missing = np.zeros((2, len(_FRACTIONS)))
    splits = []
    for identity, count in enumerate(np.bincount(identities)[1:], start=1):
        row = missing[int(people.is_male(identity))]
        row += count * _FRACTIONS
        splits.append(int(row.argmax()))
        row[splits[-1]] -= count
    image_splits = np.array(splits)[identities - 1]
    order = np.lexsort((rng.random(num_examples), image_splits))
    return identities[order], image_splits[order]


def _exists(folder: Path, parameters: dict[str, int | str]) -> bool:
    """Whether this very sample exists; refuses a directory of anything else.

    This sample with files lost, or drawn by another version, is as good as absent.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found: Any = None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / celeba.SAMPLE_FILE).read_text())
    ours = {celeba.IMAGE_FOLDER, celeba.SAMPLE_FILE, *_ANNOTATIONS}
    count = parameters["num_examples"]
    ours |= {f"{celeba.IMAGE_FOLDER}/{index:06d}.jpg" for index in range(1, count + 1)}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    if found == parameters and names >= ours:
        return True
    drawn = isinstance(found, dict) and found | {"version": faces.VERSION}
    if drawn == parameters and names <= ours:
        return False
    raise output_error(
        f"{folder} exists and is not the sample that these flags make.",
        "Choose another --output_dir, or delete this one.",
    )


def _draw_all(building: Path, identities: np.ndarray, config: SynthesizeConfig):
    """Writes every image; returns the labels, (num_examples, 40) int8, 0 or 1."""
    (building / celeba.IMAGE_FOLDER).mkdir(parents=True)
    draw = functools.partial(_draw_chunk, building, config.seed)
    starts = range(0, len(identities), _CHUNK)
    chunks = [identities[start : start + _CHUNK].tolist() for start in starts]
    workers = min(config.num_workers or pool.cores(), len(chunks))
    with pool.process_map(workers, draw, starts, chunks) as labels:
        return np.concatenate(list(labels))


def _draw_chunk(folder: Path, seed: int, start: int, identities: list[int]):
    """Draws and writes the images after `start`; returns their labels."""
    labels = []
    for index, identity in enumerate(identities, start=start + 1):
        rng = np.random.default_rng((seed, _PERSON, identity))
        person = people.draw_person(identity, rng)
        rng = np.random.default_rng((seed, _IMAGE, index))
        has = people.draw_attributes(person, rng)
        pixels = faces.draw_face(person, has, rng)
        jpeg = simplejpeg.encode_jpeg(pixels, QUALITY, colorsubsampling="420")
        (folder / celeba.IMAGE_FOLDER / f"{index:06d}.jpg").write_bytes(jpeg)
        labels.append([int(name in has) for name in celeba.ATTRIBUTES])
    return np.array(labels, np.int8)


def _write_annotations(folder: Path, labels, splits, identities) -> None:
    # The official file pads to two characters and ends its header with a blank.
    header = f"{len(labels)}\r\n{' '.join(celeba.ATTRIBUTES)} "
    numbers = np.arange(1, len(labels) + 1)
    forms = ("%3d" * 40, " %d", " %d")
    columns = (2 * labels - 1, splits, identities)
    for name, values, form in zip(_ANNOTATIONS, columns, forms, strict=True):
        np.savetxt(
            folder / name,
            np.column_stack([numbers, values]),
            "%06d.jpg" + form,
            newline="\r\n",
            header=header if name == celeba.ATTRIBUTES_FILE else "",
            comments="",
        )


if __name__ == "__main__":
    command.run(main)
