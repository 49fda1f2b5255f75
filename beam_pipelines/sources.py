"""Everything that a build reads before it touches a pixel: found, parsed, joined."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from beam_pipelines import annotations, selection
from beam_pipelines.annotations import Table
from beam_pipelines.config import BuildConfig
from schemas import celeba
from support.errors import ExitCode, UserError
from support.files import input_errors
from support.images import ImageSource, open_source


@dataclasses.dataclass(frozen=True)
class Sources:
    """What was found.

    Attributes:
      rows: the annotated images that exist.
      images: where their bytes come from.
      fingerprints: per source what identifies its content, for the manifest.
      notes: lines that tell the user what was recognised.
      split: the rule that the splits go by, which the sources may have changed.
    """

    rows: selection.Rows
    images: ImageSource
    fingerprints: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    split: str


def load(config: BuildConfig) -> Sources:
    """Finds and reads the annotation files and lists the images.

    Raises:
      UserError: exit 3, if something is missing, unreadable or wrong.
    """
    with input_errors(config.celeba_dir):
        return _load(config)


def _load(config: BuildConfig) -> Sources:
    layout = annotations.find_layout(Path(config.celeba_dir))
    split = _choose_split(config, layout)
    highest = len(celeba.SPLITS) - 1
    tables = {
        "attributes": annotations.read_attributes(layout.attributes),
        "partition": annotations.read_numbers(layout.partition, highest)
        if split == "official" and layout.partition
        else None,
        "identity": annotations.read_numbers(layout.identity)
        if layout.identity
        else None,
    }
    images = open_source(layout.images)
    rows = selection.join(*tables.values(), images.list())
    if not len(rows):
        raise UserError(
            f"{layout.images} holds none of the {len(rows.missing):,} images that "
            f"{layout.attributes} names, such as {rows.missing[0].decode()}.",
            f"Unpack {celeba.IMAGE_FOLDER}.zip into {layout.images.parent}.",
            ExitCode.INPUT_DATA,
        )
    _check_complete(rows, split, layout)
    fingerprints = {name: table.fingerprint for name, table in tables.items() if table}
    described = [_describe(table) for table in tables.values() if table]
    fingerprints["images"] = _fingerprint(rows)
    described.append(
        f"{len(rows):,} images in {layout.images}"
        + (f", {len(rows.missing):,} missing" if len(rows.missing) else "")
    )
    notes = _notes(config, split, fingerprints)
    return Sources(rows, images, fingerprints, (*described, *notes), split)


def _choose_split(config: BuildConfig, layout: annotations.Layout) -> str:
    """Falls back from identity to official; refuses what no file supports."""
    if config.split == "identity" and layout.identity is None:
        if layout.partition:
            return "official"
        raise _no_file(config, celeba.IDENTITY_FILE)
    if config.split == "official" and layout.partition is None:
        raise _no_file(config, celeba.PARTITION_FILE)
    return config.split


def _notes(
    config: BuildConfig, split: str, fingerprints: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """What was done otherwise than the flags say."""
    if split != config.split:
        note = f"There is no {celeba.IDENTITY_FILE}: the official split is used"
        whole = fingerprints["partition"]["official"]
        yield note + (", in which nobody is in two splits either." if whole else ".")
    if split == "official" and config.split_fractions != BuildConfig.split_fractions:
        yield "The official split has its own shares: --split_fractions is not used."


def _check_complete(rows: selection.Rows, split: str, layout: annotations.Layout):
    """Refuses a split by a file that does not name every image."""
    path, column, other = {
        "identity": (layout.identity, rows.identities, layout.partition and "official"),
        "official": (layout.partition, rows.official, layout.identity and "identity"),
        "random": (None, np.zeros(1), None),
    }[split]
    unknown = np.flatnonzero(column < 0)
    if len(unknown):
        remedy = f"Download the complete file, or use --split={other or 'random'}"
        raise UserError(
            f"{path} names only {len(rows) - len(unknown):,} of the {len(rows):,} "
            f"images; {rows.names[unknown[0]].decode()} is not in it.",
            remedy + ("." if other else ", which may put a person into two splits."),
            ExitCode.INPUT_DATA,
        )


def _no_file(config: BuildConfig, name: str) -> UserError:
    return UserError(
        f"--split={config.split} needs {name}, which is not in {config.celeba_dir}.",
        "Put it there, or use --split=random, which may put a person into two splits.",
        ExitCode.INPUT_DATA,
    )


def _describe(table: Table) -> str:
    official = "official " if table.fingerprint["official"] else ""
    return f"{official}{table.fingerprint['file']}, {len(table):,} rows"


def _fingerprint(rows: selection.Rows) -> dict[str, Any]:
    """Identifies the images by sorted names and sizes: folder and zip agree."""
    order = np.argsort(rows.names, kind="stable")
    digest = hashlib.sha256(b"\n".join(rows.names[order].tolist()))
    digest.update(rows.sizes[order].astype("<i8").tobytes())
    return {
        "count": len(rows),
        "bytes": int(rows.sizes.sum()),
        "sha256": digest.hexdigest(),
    }
