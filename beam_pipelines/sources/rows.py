"""The annotated images, one row each: annotation files and image listing joined."""

import dataclasses

import numpy as np

from beam_pipelines.sources.annotations import Table
from beam_pipelines.sources.images import Listing


@dataclasses.dataclass(frozen=True)
class Rows:
    """The annotated images that exist, one row each.

    Attributes:
      names: (rows,) bytes strings.
      sizes: (rows,) int64, bytes.
      identities: (rows,) int32, -1 unknown.
      attributes: (rows, bytes) uint8, one bit for each attribute of the data set.
      official: (rows,) int8 index into `celeba.SPLITS`, -1 unknown.
      missing: (any,) bytes strings: images that are annotated but not there.
    """

    names: np.ndarray
    sizes: np.ndarray
    identities: np.ndarray
    attributes: np.ndarray
    official: np.ndarray
    missing: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def join(
    attributes: Table,
    partition: Table | None,
    identity: Table | None,
    listing: Listing,
) -> Rows:
    """Brings the annotation files and the listing of the images together."""
    found = match(attributes.names, listing.names)
    there = found >= 0
    names = attributes.names[there]
    return Rows(
        names=names,
        sizes=listing.sizes[found[there]],
        identities=_look_up(identity, names, np.int32),
        attributes=attributes.values[there],
        official=_look_up(partition, names, np.int8),
        missing=attributes.names[~there],
    )


def match(names: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The place of each name in `others`, -1 if it is not there; (names,) int64."""
    if len(names) == len(others) and (names == others).all():
        return np.arange(len(names))
    if not len(others):
        return np.full(len(names), -1)
    order = np.argsort(others, kind="stable")
    place = np.searchsorted(others, names, sorter=order)
    place = order[np.minimum(place, len(others) - 1)]
    return np.where(others[place] == names, place, -1)


def _look_up(table: Table | None, names: np.ndarray, kind: type) -> np.ndarray:
    """The table's value of each name, -1 where it has none."""
    if table is None:
        return np.full(len(names), -1, kind)
    found = match(names, table.names)
    return np.where(found >= 0, table.values[found], -1).astype(kind)
