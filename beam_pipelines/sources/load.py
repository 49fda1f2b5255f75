"""Everything that a build reads before it touches a pixel: found, parsed, joined."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from beam_pipelines.config import BuildConfig
from beam_pipelines.sources import annotations, layout
from beam_pipelines.sources.annotations import Table
from beam_pipelines.sources.images import ImageSource, Listing, RenamedSource
from beam_pipelines.sources.layout import Layout
from beam_pipelines.sources.parquet import ParquetSource
from beam_pipelines.sources.rows import Rows, join
from schemas import celeba
from schemas.dataset import DataSet
from support.documents import Document, DocumentError, parse_json
from support.errors import UserError, input_error

#: Endings under which a JPEG may be there, whatever the annotation files say.
_ENDINGS = (b".jpg", b".jpeg", b"")


class _Sample(Document):
    format: Literal[celeba.SAMPLE_FORMAT]


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

    rows: Rows
    images: ImageSource
    fingerprints: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    split: str


def load(
    config: BuildConfig, expect: Callable[[int], None] = lambda _: None
) -> Sources:
    """Finds and reads the annotation files and lists the images.

    Args:
      config: the build's options.
      expect: called with the number of annotated images as soon as it is known.

    Raises:
      UserError: exit 3, if something is missing, unreadable or wrong.
    """
    found = layout.find_layout(config.celeba_dir, config.data_set)
    split = _choose_split(config, found)
    attributes = _read_attributes(found, config)
    expect(len(attributes))
    tables = {
        "attributes": attributes,
        "partition": _read_partition(found) if split == "official" else None,
        "identity": _read_identities(found),
    }
    images, listing = found.images, found.images.list()
    rows = join(*tables.values(), listing)
    if not len(rows):
        images = _renamed(rows.missing, listing, found, config.data_set)
        rows = join(*tables.values(), images.list())
    _check_complete(rows, split, found)
    fingerprints = {name: table.fingerprint for name, table in tables.items() if table}
    described = [_describe(table) for table in tables.values() if table]
    parquet = isinstance(images, ParquetSource)
    fingerprints["images"] = images.fingerprint() if parquet else _fingerprint(rows)
    fingerprints |= _sample(found)
    described.append(_describe_images(rows, listing, images))
    notes = list(_notes(config, split, fingerprints))
    notes += images.notes() if parquet else ()
    notes += _contradictions(tables["partition"])
    if found.unused and len(rows.missing):
        notes.append(f"{found.unused} is not read, because there is a directory.")
    return Sources(rows, images, fingerprints, (*described, *notes), split)


def _read_attributes(found: Layout, config: BuildConfig) -> Table:
    place, data_set = found.attributes, config.data_set
    if isinstance(place, ParquetSource):
        return place.read_attributes(data_set)
    return annotations.read_attributes(place, data_set, config.allow_wrong_count)


def _read_partition(found: Layout) -> Table | None:
    place = found.partition
    if isinstance(place, ParquetSource):
        return place.read_partition()
    return place and annotations.read_numbers(place, len(celeba.SPLITS) - 1)


def _read_identities(found: Layout) -> Table | None:
    place = found.identity
    if isinstance(place, ParquetSource):
        return place.read_identities()
    return place and annotations.read_numbers(place)


def _choose_split(config: BuildConfig, found: Layout) -> str:
    """Falls back from identity to official; refuses what no file supports."""
    if config.split == "identity" and found.identity is None:
        if found.partition:
            return "official"
        raise _no_file(config, "identity")
    if config.split == "official" and found.partition is None:
        raise _no_file(config, "partition")
    return config.split


def _notes(
    config: BuildConfig, split: str, fingerprints: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """What was done otherwise than the flags say."""
    if split != config.split:
        missing = config.data_set.missing("identity", config.celeba_dir)
        note = f"{missing}: the official split is used"
        whole = fingerprints["partition"]["official"]
        yield note + (", in which nobody is in two splits either." if whole else ".")
    if split == "official" and config.split_fractions != BuildConfig.split_fractions:
        yield "The official split has its own shares: --split_fractions is not used."


def _contradictions(partition: Table | None) -> Iterator[str]:
    """Says in how many rows a partition of all of CelebA is not the official one."""
    if partition is None or len(partition) != celeba.IMAGE_COUNT:
        return
    if partition.fingerprint["official"]:
        return
    official = np.searchsorted(celeba.SPLIT_ENDS, np.arange(len(partition)), "right")
    wrong = (partition.values[np.argsort(partition.names)] != official).sum()
    if wrong:
        name = partition.fingerprint["file"]
        yield f"{name}: {wrong:,} rows contradict CelebA's official partition."


def _check_complete(rows: Rows, split: str, found: Layout):
    """Refuses a split by a file that does not name every image."""
    path, column, other = {
        "identity": (found.identity, rows.identities, found.partition and "official"),
        "official": (found.partition, rows.official, found.identity and "identity"),
        "random": (None, np.zeros(1), None),
    }[split]
    unknown = np.flatnonzero(column < 0)
    if len(unknown):
        remedy = f"Download the complete file, or use --split={other or 'random'}"
        raise input_error(
            f"{path} names only {len(rows) - len(unknown):,} of the {len(rows):,} "
            f"images; {rows.names[unknown[0]].decode()} is not in it.",
            remedy + ("." if other else ", which may put a person into two splits."),
        )


def _renamed(
    wanted: np.ndarray, listing: Listing, found: Layout, data_set: DataSet
) -> RenamedSource:
    """Finds the images under another ending, such as .JPG for .jpg.

    Args:
      wanted: (any,) bytes strings: images of which none is there.
      listing: what is there.
      found: where all that was looked for.
      data_set: what was looked for.

    Raises:
      UserError: exit 3, saying what is there instead.
    """
    stems = dict(map(os.path.splitext, wanted.tolist()))
    names = sorted(listing.names.tolist())
    alike = (name for name in names if os.path.splitext(name)[0] in stems)
    name = next(alike, b"")
    stem, own = os.path.splitext(name)
    parquet = isinstance(found.images, ParquetSource)
    if name and own.lower() in _ENDINGS and not parquet:
        return RenamedSource(found.images, stems[stem].decode(), own.decode())
    shown = ", ".join(name.decode(errors="replace") for name in names[:3]) or "no file"
    nested = next((name.decode() for name in names if name.endswith(b".zip")), "")
    remedy = f"Put {data_set.image_folder}/ or {data_set.image_archive} there."
    if name:
        remedy = f"Only JPEG is read: get {data_set.image_archive}, or convert them."
    elif found.unused:
        remedy = f"Remove that directory, and {found.unused} will be read."
    elif nested:
        remedy = (
            f"Take {nested} out of it, next to {data_set.attributes_file}, and give it "
            "as --celeba_dir."
        )
    raise input_error(
        f"{found.images} contains none of the {len(wanted):,} images that "
        f"{found.attributes} names, such as {wanted[0].decode()}, but {shown}"
        f"{', ...' if len(names) > 3 else ''} (subfolders are not searched).",
        remedy,
    )


def _no_file(config: BuildConfig, kind: str) -> UserError:
    return input_error(
        f"--split={config.split}: {config.data_set.missing(kind, config.celeba_dir)}.",
        "Use --split=random, which may put a person into two splits, or add the file.",
    )


def _describe(table: Table) -> str:
    official = "official " if table.fingerprint["official"] else ""
    spelling = f" ({table.spelling})" if table.spelling else ""
    return f"{official}{table.fingerprint['file']}{spelling}, {len(table):,} rows"


def _describe_images(rows: Rows, listing: Listing, images: ImageSource) -> str:
    """How many images there are, and whether their archive is the official one."""
    same = (len(rows), listing.archive_bytes)
    official = same == (celeba.IMAGE_COUNT, celeba.IMAGE_ARCHIVE_BYTES)
    return (
        f"{len(rows):,} images in {images}"
        + (", official size" if official else "")
        + (f", {len(rows.missing):,} missing" if len(rows.missing) else "")
    )


def _sample(found: Layout) -> dict[str, dict[str, Any]]:
    """What says that the faces are drawn, as a source; nothing if nothing does."""
    if found.sample is None:
        return {}
    content = found.sample.read_bytes()
    try:
        parse_json(content, _Sample)
    except DocumentError:
        return {}
    digest = hashlib.sha256(content).hexdigest()
    return {celeba.SAMPLE: {"format": celeba.SAMPLE_FORMAT, "sha256": digest}}


def _fingerprint(rows: Rows) -> dict[str, Any]:
    """Identifies the images by sorted names and sizes: directory and zip agree."""
    order = np.argsort(rows.names, kind="stable")
    digest = hashlib.sha256(b"\n".join(rows.names[order].tolist()))
    digest.update(rows.sizes[order].astype("<i8").tobytes())
    return {
        "count": len(rows),
        "bytes": int(rows.sizes.sum()),
        "sha256": digest.hexdigest(),
    }
