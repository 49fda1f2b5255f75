"""Draws a sample dataset in CelebA's layout: synthetic faces that follow their labels.

File names, sizes and formats are the official ones. The same seed and number of
examples give the same bytes, however many processes draw.
"""

import dataclasses
import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

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
_SPLIT_SHARES = np.array([0.8, 0.1, 0.1])  # of `celeba.SPLITS`, as CelebA's
_ANNOTATIONS = [celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE, celeba.IDENTITY_FILE]
_PEOPLE_STREAM, _IMAGE_STREAM, _PLAN_STREAM = range(3)


@dataclasses.dataclass(frozen=True)
class SynthesizeConfig:
    """Options of this program; see `--help`."""

    output_dir: str = option("data/sample", "Folder to make; it must not exist yet.")
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


class Plan(NamedTuple):
    """The person and the split of each image, in the order of their numbers."""

    identities: np.ndarray  # (num_examples,) int, from 1
    splits: np.ndarray  # (num_examples,) int, of `celeba.SPLITS`, ascending


def main(argv: list[str]) -> None:
    synthesize(command.parse_config(SynthesizeConfig, argv))


def synthesize(config: SynthesizeConfig) -> None:
    """Makes the sample, complete or not at all, and prints a line about it.

    Raises:
      UserError: the folder holds something else, is being written, or the disk is full
        (exit 4).
    """
    folder = Path(os.path.abspath(config.output_dir))
    with files.FolderLock(folder):
        if _is_there(folder, config):
            print(f"{config.output_dir} is already there, made by this very command.")
            return
        # The lock is ours: what lies here was left by a killed run.
        building = folder.with_name(f".{folder.name}.celeba-drawing")
        shutil.rmtree(building, ignore_errors=True)
        started = time.perf_counter()
        with files.output_errors(folder.parent):
            try:
                plan = make_plan(config.seed, config.num_examples)
                labels = _draw_all(building, plan, config)
                _write_annotations(building, plan, labels)
                document = json.dumps(_parameters(config), indent=1)
                (building / celeba.SAMPLE_FILE).write_text(document + "\n")
                if folder.exists():  # empty, or a sample of another version
                    files.exchange(building, folder)
                else:
                    os.rename(building, folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        seconds = time.perf_counter() - started
    male = labels[:, celeba.ATTRIBUTES.index("Male")].mean()
    print(
        f"Drew {config.num_examples:,} images of {plan.identities.max():,} people, "
        f"{male:.0%} Male, into {config.output_dir} "
        f"({config.num_examples / seconds:,.0f} images/s)."
    )


def make_plan(seed: int, num_examples: int) -> Plan:
    """Draws people and their numbers of images, and splits by people.

    Within each value of `Male`, people go one by one to the split that is furthest
    below its share, so that small samples have both in every split.
    """
    rng = np.random.default_rng((seed, _PLAN_STREAM))
    low, high = people.IMAGES_PER_PERSON
    counts = rng.integers(low, high + 1, size=num_examples)
    counts = counts[: int(np.searchsorted(np.cumsum(counts), num_examples)) + 1]
    counts[-1] -= counts.sum() - num_examples
    missing = np.zeros((2, len(_SPLIT_SHARES)))
    splits = []
    for identity, count in enumerate(counts, start=1):
        row = missing[int(people.is_male(identity))]
        row += count * _SPLIT_SHARES
        splits.append(int(row.argmax()))
        row[splits[-1]] -= count
    identities = np.repeat(np.arange(1, len(counts) + 1), counts)
    image_splits = np.repeat(splits, counts)
    order = np.lexsort((rng.random(num_examples), image_splits))
    return Plan(identities[order], image_splits[order])


def draw_image(seed: int, index: int, identity: int) -> tuple[bytes, list[int]]:
    """Draws image `index` (from 1): its JPEG file and its 40 labels, 0 or 1."""
    rng = np.random.default_rng((seed, _PEOPLE_STREAM, identity))
    person = people.draw_person(identity, rng)
    rng = np.random.default_rng((seed, _IMAGE_STREAM, index))
    has = people.draw_attributes(person, rng)
    pixels = faces.draw_face(person, has, rng)
    jpeg = simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="420")
    return jpeg, [int(name in has) for name in celeba.ATTRIBUTES]


def _is_there(folder: Path, config: SynthesizeConfig) -> bool:
    """Whether this very sample exists; refuses a folder that contains anything else.

    A sample that only another version drew is as good as absent.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / celeba.SAMPLE_FILE).read_text())
        is_sample = found["format"] == celeba.SAMPLE_FORMAT
    except (OSError, ValueError, LookupError, TypeError):
        is_sample = False
    wanted = _parameters(config)
    if not is_sample:
        cause = "exists and is no drawn sample"
    elif different := [key for key in wanted if found.get(key) != wanted[key]]:
        ours = {celeba.IMAGE_FOLDER, celeba.SAMPLE_FILE, *_ANNOTATIONS}
        if (
            different == ["version"]
            and {path.name for path in folder.iterdir()} <= ours
        ):
            return False  # the same sample, drawn by another version: it is replaced
        key = different[0]
        cause = f"holds a sample with {key} {found.get(key)}, not {wanted[key]}"
    else:
        images = [_image(index) for index in range(1, config.num_examples + 1)]
        lost = [name for name in images + _ANNOTATIONS if not (folder / name).is_file()]
        if not lost:
            return True
        cause = f"has lost {len(lost)} of its files, such as {lost[0]}"
    raise output_error(
        f"{config.output_dir} {cause}.",
        "Choose another --output_dir, or delete this one.",
    )


def _parameters(config: SynthesizeConfig) -> dict[str, int | str]:
    sample = {"format": celeba.SAMPLE_FORMAT, "version": faces.VERSION}
    return {**sample, "num_examples": config.num_examples, "seed": config.seed}


def _draw_all(building: Path, plan: Plan, config: SynthesizeConfig) -> np.ndarray:
    """Writes every image; returns the labels, (num_examples, 40) int8, 0 or 1."""
    (building / celeba.IMAGE_FOLDER).mkdir(parents=True)
    draw = functools.partial(_draw_chunk, building, config.seed)
    starts = range(0, len(plan.identities), _CHUNK)
    chunks = [plan.identities[start : start + _CHUNK].tolist() for start in starts]
    workers = min(config.num_workers or pool.cores(), len(chunks))
    with pool.process_map(workers, draw, starts, chunks) as labels:
        return np.concatenate(list(labels))


def _draw_chunk(folder: Path, seed: int, start: int, identities: list[int]):
    """Draws and writes the images after `start`; returns their labels."""
    labels = []
    for index, identity in enumerate(identities, start=start + 1):
        jpeg, row = draw_image(seed, index, identity)
        (folder / _image(index)).write_bytes(jpeg)
        labels.append(row)
    return np.array(labels, np.int8)


def _write_annotations(folder: Path, plan: Plan, labels: np.ndarray) -> None:
    # The official file pads to two characters and ends its header with a blank.
    header = f"{len(labels)}\r\n{' '.join(celeba.ATTRIBUTES)} "
    numbers = np.arange(1, len(labels) + 1)
    for name, values, form, first in (
        (celeba.ATTRIBUTES_FILE, 2 * labels - 1, "%3d" * 40, header),
        (celeba.PARTITION_FILE, plan.splits, " %d", ""),
        (celeba.IDENTITY_FILE, plan.identities, " %d", ""),
    ):
        rows, form = np.column_stack([numbers, values]), "%06d.jpg" + form
        with open(folder / name, "wb") as file:
            np.savetxt(file, rows, form, newline="\r\n", header=first, comments="")


def _image(index: int) -> str:
    return f"{celeba.IMAGE_FOLDER}/{index:06d}.jpg"


if __name__ == "__main__":
    command.run(main)
