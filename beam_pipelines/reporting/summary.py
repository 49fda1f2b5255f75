"""The numbers of a build's report, counted from its plan."""

import dataclasses

import numpy as np

from beam_pipelines.planning import selection
from beam_pipelines.planning.selection import Plan
from beam_pipelines.sources.rows import Rows
from schemas import celeba

#: The groups of images that the report compares; the first is what was available.
GROUPS = ("all images", *celeba.SPLITS)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Counts of each group of `GROUPS`; "all images" are annotated and exist.

    Attributes:
      class_counts: (4, 2) int64, images without and with the attribute.
      attributes: names of the attributes.
      prevalence: (4, attributes) float64, fraction of the images with each
        attribute, 0..1; NaN where a group is empty.
      people: (4,) int64, known people.
      per_person: (4,) int64 arrays: how many images each known person has.
      unknown: (4,) int64, images whose person is unknown.
      missing: images that are annotated but do not exist.
      candidates: images that the options allow in some split.
      leakage: fraction of the test images whose person is in train too, see
        `selection.leakage`.
    """

    class_counts: np.ndarray
    attributes: tuple[str, ...]
    prevalence: np.ndarray
    people: np.ndarray
    per_person: tuple[np.ndarray, ...]
    unknown: np.ndarray
    missing: int
    candidates: int
    leakage: float | None

    @property
    def images(self) -> np.ndarray:
        """(4,) int64, images of each group."""
        return self.class_counts.sum(axis=1)

    @property
    def leaked(self) -> int:
        """Test images whose person is in train too, as far as people are known."""
        known = self.images[-1] - self.unknown[-1]
        return round((self.leakage or 0) * known)


def summarize(plan: Plan) -> Summary:
    """Counts what a plan selects, and what it selects from."""
    rows = plan.rows
    splits = [plan.selected(split) for split in range(len(celeba.SPLITS))]
    groups = [np.arange(len(rows)), *splits]
    people = [_people(rows, members) for members in groups]
    return Summary(
        class_counts=np.array(
            [np.bincount(plan.labels[members], minlength=2) for members in groups]
        ),
        attributes=plan.data_set.attributes,
        prevalence=np.array(
            [_prevalence(rows.attributes[members]) for members in groups]
        )[:, : len(plan.data_set.attributes)],
        people=np.array([len(counts) for counts in people]),
        per_person=tuple(people),
        unknown=np.array([(rows.identities[members] < 0).sum() for members in groups]),
        missing=len(rows.missing),
        candidates=sum(len(pool) for pool in plan.pools.values()),
        leakage=selection.leakage(plan),
    )


def _people(rows: Rows, members: np.ndarray) -> np.ndarray:
    identities = rows.identities[members]
    return np.unique(identities[identities >= 0], return_counts=True)[1]


def _prevalence(packed: np.ndarray) -> np.ndarray:
    """Fraction of each bit in packed rows, (8 bytes,)."""
    if not len(packed):
        return np.full(8 * packed.shape[1], np.nan)
    return np.unpackbits(packed, axis=1).mean(axis=0)
