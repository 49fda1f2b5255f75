"""Intervals that resample people, not images.

Images of one person resemble each other, so resampling images makes intervals too
narrow. Each draw takes as many people as there are, with replacement, and weights every
image by how often its person was drawn (the cluster bootstrap; Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, section 3.8).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas import celeba

LEVEL = 0.95

#: A metric that more than this fraction of the draws leaves undefined has no interval.
_UNDEFINED_DRAWS = 0.05
#: Weights in memory at once, draws times examples: 3 MB per array, about a cache.
_CHUNK = 400_000


def clusters(identity: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the people 0, 1, ...; each example of an unknown person is its own.

    Args:
      identity: (n,) int, -1 = unknown.

    Returns:
      (n,) int64 person numbers, and how many there are.
    """
    known = identity != celeba.UNKNOWN_IDENTITY
    names, numbers = np.unique(identity[known], return_inverse=True)
    person = np.empty(len(identity), np.int64)
    person[known] = numbers
    person[~known] = len(names) + np.arange(np.count_nonzero(~known))
    return person, len(names) + int(np.count_nonzero(~known))


def unit(identity: np.ndarray) -> str:
    """What is resampled: "people", or "images" where nobody's identity is known."""
    unknown = (identity == celeba.UNKNOWN_IDENTITY).all()
    return "images" if unknown else "people"


def person_weights(
    people: int, examples: int, draws: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields (chunk, people) float64: how often each draw took each person."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(draws, _CHUNK // max(people, examples)))
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        taken = rng.integers(0, people, size=(rows, people))
        taken += np.arange(rows)[:, None] * people
        counts = np.bincount(taken.ravel(), minlength=rows * people)
        yield counts.reshape(rows, people).astype(np.float64)


def resample(sums: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Sums over the people of each draw, counted as often as they were drawn.

    Args:
      sums: (people, columns) over each person's examples.
      draws: number of draws.
      seed: seed of the draws.

    Returns:
      (draws, columns) float64.
    """
    people = len(sums)
    drawn = [weights @ sums for weights in person_weights(people, 0, draws, seed)]
    return np.concatenate(drawn)


def interval(samples: np.ndarray) -> np.ndarray:
    """The percentile interval of (draws, ...) samples.

    Returns:
      (2, ...) float64, low and high; NaN where too many draws are undefined.
    """
    undefined = np.mean(np.isnan(samples), axis=0) > _UNDEFINED_DRAWS
    tail = (1 - LEVEL) / 2
    defined = np.where(undefined, 0, samples)
    bounds = np.nanquantile(defined, [tail, 1 - tail], axis=0)
    return np.where(undefined, np.nan, bounds)


def opened(value: Any, bounds: np.ndarray, people: Any) -> np.ndarray:
    """The interval of a proportion, its far end opened if that is exactly 0 or 1.

    Then every draw is the same, for resampling cannot see what did not occur. The rule
    of three can (Hanley and Lippman-Hand, "If Nothing Goes Wrong, Is Everything All
    Right?", JAMA 249, 1983): the far end is 3 by the number of people away.

    Args:
      value: (...) the proportion; NaN if undefined.
      bounds: (2, ...) its percentile interval, NaN if unknown.
      people: (...) people with an example in the denominator.

    Returns:
      (2, ...) float64.
    """
    low, high = bounds
    reach = np.minimum(1.0, 3 / np.maximum(people, 1))
    return np.stack(
        [
            np.where(np.equal(value, 1), np.minimum(low, 1 - reach), low),
            np.where(np.equal(value, 0), np.maximum(high, reach), high),
        ]
    )


def ratio(
    part: np.ndarray,
    total: np.ndarray,
    identity: np.ndarray,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """A sum over examples as a fraction of another, for example errors of predictions.

    Args:
      part: (n,) numerator of each example, 0..total.
      total: (n,) denominator of each example.
      identity: (n,) int, -1 = unknown: a cluster of its own.
      draws: bootstrap draws.
      seed: seed of the draws.

    Returns:
      See `estimate`; the interval of exactly 0 or 1 is that of `opened`.
    """
    person, people = clusters(identity)
    sums = np.stack([np.bincount(person, part), np.bincount(person, total)], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.divide(*sums.sum(axis=0))
        if people < 2:
            return estimate(value)
        parts, totals = resample(sums, draws, seed).T
        bounds = interval(parts / totals)
    return estimate(value, opened(value, bounds, np.count_nonzero(sums[:, 1])))


def estimate(value: float, bounds: np.ndarray | None = None) -> dict[str, Any]:
    """{"value": float or None, "interval": [low, high] or None}, None for NaN."""
    if not math.isfinite(value):
        return {"value": None, "interval": None}
    known = bounds is not None and np.isfinite(bounds).all()
    return {
        "value": float(value),
        "interval": np.asarray(bounds).tolist() if known else None,
    }
