"""Copies of images that workers cannot read in place, in the staging folder.

Each pass copies those of its images that no earlier one did, into a zip file of its
own. A zip has its name only when it is complete, so a build that was killed uses what
is there. No reader of the dataset gets to see them: staging removes what is no shard.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from beam_pipelines.planning.selection import Plan
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import File
from beam_pipelines.sources.images import ImageSource
from beam_pipelines.sources.parquet import Copies, ParquetSource
from beam_pipelines.writing.store import Store
from support import files
from support.errors import UserError
from support.images import ENCODING
from support.progress import Progress

_NAME = "images-{}.zip"
_LEFT = re.compile(r"\.images-\d+\.zip\..*")  # by a killed process


def bring_near(
    source: ImageSource, plan: Plan, store: Store, resized: bool
) -> ImageSource:
    """A source that workers can read: of Parquet files, copies of the plan's images.

    Args:
      source: where the images are.
      plan: says which ones are needed.
      store: where the copies go.
      resized: whether the dataset's size is unknown, because images are resized.

    Raises:
      UserError: exit 3, a file cannot be read; exit 4, the disk cannot hold the copies.
    """
    if not isinstance(source, ParquetSource):
        return source
    archives = list(_complete(source, store))
    names = _names(plan)
    for archive in archives:
        names = np.setdiff1d(names, archive.list().names)
    if len(names):
        # The dataset grows by the first ones; later ones replace others.
        grows = not archives and not resized
        _copy(source, names, store, _NAME.format(len(archives)), grows)
        archives = list(_complete(source, store))
    return Copies(tuple(archives))


def encoding(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """What was done to PNG images of a plan, as a source for the manifest; {} if none.

    Copies that the plan has excluded since do not count.
    """
    number, encoded = 0, set()
    while record := _record(store, _NAME.format(number)):
        number += 1
        encoded.update(record["encoded"])
    count = sum(name.decode() in encoded for name in _names(plan).tolist())
    if not count:
        return {}
    return {"encoded_again": {"images": count, "from": "PNG", "to": ENCODING}}


def _names(plan: Plan) -> np.ndarray:
    rows = np.concatenate([plan.selected(split) for split in range(len(plan.slots))])
    return plan.rows.names[rows]


def _complete(source: ParquetSource, store: Store) -> Iterator[ZipSource]:
    """The zip files that are complete and of these Parquet files, in order."""
    number = 0
    while (name := _NAME.format(number)) in store.sizes():
        archive = ZipSource(File(f"{store}/{name}"))
        record = _record(store, name)
        try:
            archive.list()
        except UserError:  # a disk lost a part of it
            record = {}
        if record.get("files") != source.versions():
            store.delete([name, f"{name}.json"])
            return
        yield archive
        number += 1


def _record(store: Store, name: str) -> dict[str, Any]:
    """What `_copy` noted of a zip file, {} of none."""
    try:
        return json.loads(store.read(f"{name}.json"))
    except (OSError, ValueError):
        return {}


def _copy(
    source: ParquetSource, names: np.ndarray, store: Store, name: str, grows: bool
) -> None:
    store.delete([left for left in store.sizes() if _LEFT.fullmatch(left)])
    versions = source.versions()
    expected = source.expected_bytes(names)
    needed = expected * (1 + grows)
    print(
        f"copying {len(names):,} images from Parquet files into {store}/{name}, about "
        f"{files.megabytes(expected)}"
        + (f"; {files.megabytes(needed)} with the dataset" if grows else ""),
        flush=True,
    )
    if not store.is_remote:
        files.check_free_space(store.location, needed)
    with Progress(len(names), "copying") as line, store.writer(name) as file:
        encoded = source.copy(names, file, line.update)
        # Before the zip file has its name, which says that both are there.
        record = {"encoded": encoded, "files": versions}
        store.write(f"{name}.json", json.dumps(record))
