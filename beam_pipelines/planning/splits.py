"""Rules that give every image a split, whether it is selected later or not."""

import numpy as np

from beam_pipelines.planning import hashing, quotas


def at_random(
    labels: np.ndarray, rank: np.ndarray, fractions: tuple[float, ...]
) -> np.ndarray:
    """Cuts each class, in rank order, by the fractions.

    Args:
      labels: (rows,) uint8, 0 or 1.
      rank: (rows,) row numbers in hash order.
      fractions: the share of each split.

    Returns:
      (rows,) int8, the index of the split.
    """
    splits = np.empty(len(labels), np.int8)
    for label in (0, 1):
        members = rank[labels[rank] == label]
        shares = quotas.largest_remainder(len(members), fractions)
        splits[members] = np.repeat(np.arange(len(shares)), shares)
    return splits


def by_identity(
    identities: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    fractions: tuple[float, ...],
    seed: int,
) -> np.ndarray:
    """Gives every person whole to the split that is furthest below its quotas.

    People with many images come first, those with equally many in hash order: the
    small ones at the end fill the gaps, so that quotas are met within an image or so.
    An image of an unknown person is a person of its own.

    Args:
      identities: (rows,) int32, -1 unknown.
      labels: (rows,) uint8, 0 or 1.
      order: (rows,) uint64, the hash of each row.
      fractions: the share of each split.
      seed: of the order of the people.

    Returns:
      (rows,) int8, the index of the split.
    """
    if (identities < 0).any():
        alone = -2 - np.arange(len(identities))
        identities = np.where(identities >= 0, identities, alone)
    people, person = np.unique(identities, return_inverse=True)
    total = np.bincount(person)
    ones = np.bincount(person[labels == 1], minlength=len(people))
    counts = np.column_stack([total - ones, ones])
    known = people >= 0
    keys = np.empty(len(people), np.uint64)
    keys[known] = hashing.seeded(people[known].astype(np.uint64), seed)
    keys[~known] = order[-2 - people[~known]]
    turn = np.lexsort((keys, -total))
    choice = np.empty(len(people), np.int8)
    choice[turn] = _fill(counts[turn], fractions)
    return choice[person]


def _fill(counts: np.ndarray, fractions: tuple[float, ...]) -> np.ndarray:
    """The split of each person, one after another; `counts` is (people, 2)."""
    quota = np.outer(fractions, np.maximum(counts.sum(axis=0), 1))
    per_image = (1.0 / quota).tolist()
    filled = [[0.0, 0.0] for _ in per_image]
    choice = []
    for zeros, ones in zip(*counts.T.tolist(), strict=True):
        levels = [zeros * level[0] + ones * level[1] for level in filled]
        split = levels.index(min(levels))
        filled[split][0] += zeros * per_image[split][0]
        filled[split][1] += ones * per_image[split][1]
        choice.append(split)
    return np.array(choice, np.int8)
