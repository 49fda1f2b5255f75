"""What a build's report says of a plan, as numbers: one pure function."""

import dataclasses

import numpy as np

from beam_pipelines.selection import Plan, Rows
from schemas import celeba

#: The groups of images that the report compares; the first is what was there.
GROUPS = ("all images", *celeba.SPLITS)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Counts of each group of `GROUPS`; "all images" are those annotated and there.

    Attributes:
      class_counts: (4, 2) int64, images without and with the attribute.
      prevalence: (4, 40) float64, share of the images with each attribute, 0..1; NaN
        where a group is empty.
      people: (4,) int64, known people.
      per_person: (4,) int64 arrays: how many images each known person has.
      unknown: (4,) int64, images whose person is unknown.
      missing: images that are annotated but not there.
      candidates: images that the options allow in some split.
      leaked: test images whose person is in the training split too.
    """

    class_counts: np.ndarray
    prevalence: np.ndarray
    people: np.ndarray
    per_person: tuple[np.ndarray, ...]
    unknown: np.ndarray
    missing: int
    candidates: int
    leaked: int

    @property
    def images(self) -> np.ndarray:
        """(4,) int64, images of each group."""
        return self.class_counts.sum(axis=1)

    @property
    def leakage(self) -> float | None:
        """Share of the test images of known people that leaked; None if there is none.

        0..1; an image whose person is unknown may have leaked too, unseen.
        """
        known = self.images[-1] - self.unknown[-1]
        return self.leaked / known if known else None


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
        prevalence=np.array(
            [_prevalence(rows.attributes[members]) for members in groups]
        ),
        people=np.array([len(counts) for counts in people]),
        per_person=tuple(people),
        unknown=np.array([(rows.identities[members] < 0).sum() for members in groups]),
        missing=len(rows.missing),
        candidates=sum(len(pool) for pool in plan.pools.values()),
        leaked=_leaked(rows.identities[splits[0]], rows.identities[splits[-1]]),
    )


def _people(rows: Rows, members: np.ndarray) -> np.ndarray:
    identities = rows.identities[members]
    return np.unique(identities[identities >= 0], return_counts=True)[1]


def _prevalence(packed: np.ndarray) -> np.ndarray:
    """Share of each attribute in rows of 40 bits, (40,); without a loop over rows."""
    if not len(packed):
        return np.full(len(celeba.ATTRIBUTES), np.nan)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    counts = [np.bincount(column, minlength=256) @ bits for column in packed.T]
    return np.concatenate(counts)[: len(celeba.ATTRIBUTES)] / len(packed)


def _leaked(train: np.ndarray, test: np.ndarray) -> int:
    return int(np.isin(test[test >= 0], train).sum())
