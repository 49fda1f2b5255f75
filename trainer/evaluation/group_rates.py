"""Rates of groups and their gaps to all others, with intervals and tests.

All intervals come from the same bootstrap draws of people as those of
`evaluation.metrics`: within a draw a group is compared with its own complement, so that
what they share (the people drawn) cancels. A draw counts each person's images as often
as the person was drawn; all draws of all groups are one matrix product.
"""

from collections.abc import Sequence

import numpy as np

from trainer.evaluation import bootstrap
from trainer.evaluation.groups import Partition

#: The rates, in the order of the last axis of every array here.
RATES = ("accuracy", "false_positive_rate", "false_negative_rate")

#: Below these a group is small. Intervals that resample fewer than about 30 clusters
#: are too narrow (Cameron, Gelbach and Miller, "Bootstrap-Based Improvements for
#: Inference with Clustered Errors", 2008), and of fewer than 50 images a single one
#: moves a rate by more than two percentage points.
MIN_PEOPLE, MIN_IMAGES = 30, 50

_CELLS = 4  # tn, fp, fn, tp


def measure(
    partitions: Sequence[Partition],
    cell: np.ndarray,
    person: np.ndarray,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Measures every group against everything else in its partition.

    Args:
      partitions: see `evaluation.groups`, none without groups; images of code -1
        belong to neither side.
      cell: (n,) int, 0 tn, 1 fp, 2 fn, 3 tp.
      person: (n,) numbers 0..people-1, see `evaluation.bootstrap.clusters`.
      draws: number of draws.
      seed: seed of the draws.

    Returns:
      By the suffixes of the columns in `evaluation.subgroups` (groups, 3), and under
      "samples" (draws, groups, 3) the rates of every draw; NaN where undefined.
    """
    parts = [_sums_by_person(part, cell, person) for part in partitions]
    sums = np.concatenate(parts, axis=1)
    drawn = bootstrap.resample(sums.reshape(len(sums), -1), draws, seed)
    sizes = [len(part.names) for part in partitions]
    # From here on a group and its complement are the last axis but two.
    sums = _with_rest(sums, sizes)
    samples = _rates(_with_rest(drawn.reshape(draws, -1, _CELLS), sizes))
    counts = sums.sum(axis=0)
    people = np.count_nonzero(_sizes(sums) > 0, axis=0)
    rates, images = _rates(counts), _sizes(counts)
    small = (people < MIN_PEOPLE) | (images < MIN_IMAGES)
    intervals = bootstrap.opened(rates, bootstrap.interval(samples), people)
    gaps, gap_samples = rates[0] - rates[1], samples[:, 0] - samples[:, 1]
    gap_low, gap_high = _gap_intervals(rates, intervals, gap_samples)
    deviations = gap_samples - gaps
    p_values = _adjusted_p_values(gaps, deviations, counts, small.any(axis=0))
    return {
        "": rates[0],
        "_low": intervals[0, 0],
        "_high": intervals[1, 0],
        "_n": images[0],
        "_people": people[0],
        "_small": small[0],
        "_gap": gaps,
        "_gap_low": gap_low,
        "_gap_high": gap_high,
        "_gap_p": p_values,
        "_gap_survives": p_values <= 1 - bootstrap.LEVEL,
        "samples": samples[:, 0],
    }


def equalized_odds(
    measured: dict[str, np.ndarray], groups: slice
) -> tuple[float, float, float, bool]:
    """Distance of a partition's groups from equal false-positive and -negative rates.

    The larger of two differences, each between the highest and the lowest rate of the
    groups: 0 is what Hardt, Price and Srebro ("Equality of Opportunity in Supervised
    Learning", 2016) call equalized odds; defined like `equalized_odds_difference` of
    the library Fairlearn, but that groups in which a rate is undefined are excluded.

    Returns:
      The difference, low and high of its interval, and whether a group has too few
      people or images for it; NaN if no rate is defined in two groups.
    """
    rates = measured[""][groups, 1:]
    defined = ~np.isnan(rates)
    defined &= np.count_nonzero(defined, axis=0) > 1
    if not defined.any():
        return np.nan, np.nan, np.nan, False

    def distance(rates: np.ndarray) -> np.ndarray:
        """(..., groups, 2) -> (...)."""
        highest = np.where(defined, rates, -np.inf).max(axis=-2)
        return (highest - np.where(defined, rates, np.inf).min(axis=-2)).max(axis=-1)

    drawn = distance(measured["samples"][:, groups, 1:])
    small = measured["_small"][groups, 1:][defined].any()
    return distance(rates), *bootstrap.interval(drawn), small


def _gap_intervals(
    rates: np.ndarray, intervals: np.ndarray, gap_samples: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals, from the same draws on both sides.

    Where one side is all correct or all wrong its draws do not vary, and the sides'
    own intervals are joined instead (Newcombe, "Interval estimation for the
    difference between independent proportions", 1998, method 10).
    """
    low, high = bootstrap.interval(gap_samples)
    below, above = rates - intervals[0], intervals[1] - rates
    joined = np.isin(rates, (0, 1)).any(axis=0) & ~np.isnan(low)
    gaps = rates[0] - rates[1]
    joined_low = np.maximum(-1, gaps - np.hypot(below[0], above[1]))
    joined_high = np.minimum(1, gaps + np.hypot(above[0], below[1]))
    return np.where(joined, joined_low, low), np.where(joined, joined_high, high)


def _adjusted_p_values(
    gaps: np.ndarray, deviations: np.ndarray, counts: np.ndarray, small: np.ndarray
) -> np.ndarray:
    """Tests every gap against none, corrected for looking at all of them.

    The single-step maxT procedure (Westfall and Young, "Resampling-Based Multiple
    Testing", 1993): a gap by its standard error is compared with the largest such
    deviation anywhere in each draw. So with a limit of 5 % the chance of any false
    alarm in the whole table is about 5 %, and groups that overlap or mirror each other
    cost nothing extra, as they would by Bonferroni or Holm; those could also not reach
    5 % with 1,000 draws and a hundred gaps, because no p-value is below 1/1,001.

    A gap's standard error is that of the draws, but at least that of two independent
    samples of one common rate (Pearson's test): draws see too little chance in a group
    that has few mistakes or none. Undefined gaps and those of small groups or rests are
    not tested: NaN.
    """
    error = np.std(deviations, axis=0)
    pooled = _rates(counts.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        independent = np.sqrt(pooled * (1 - pooled) * (1 / _sizes(counts)).sum(axis=0))
        least = np.maximum(error, independent)
        statistic = np.where(least > 0, np.abs(gaps) / least, 0)
    tested = ~(small | np.isnan(error))
    varies = tested & (error > 0)
    extents = np.abs(deviations[:, varies] / error[varies])
    highest = np.sort(extents.max(axis=1, initial=0))
    reached = len(highest) - np.searchsorted(highest, statistic)
    return np.where(tested, (1 + reached) / (1 + len(highest)), np.nan)


def _sums_by_person(
    part: Partition, cell: np.ndarray, person: np.ndarray
) -> np.ndarray:
    """(people, groups, 4) float64: images of each person, group and cell."""
    shape = (int(person.max()) + 1, len(part.names), _CELLS)
    inside = part.codes >= 0
    place = np.ravel_multi_index(
        (person[inside], part.codes[inside], cell[inside]), shape
    )
    return np.bincount(place, minlength=np.prod(shape)).reshape(shape).astype(float)


def _with_rest(counts: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """(n, groups, 4) -> (n, 2, groups, 4): and everything else in the partition."""
    totals = np.add.reduceat(counts, np.cumsum([0, *sizes[:-1]]), axis=1)
    return np.stack([counts, np.repeat(totals, sizes, axis=1) - counts], axis=1)


def _sizes(counts: np.ndarray) -> np.ndarray:
    """(..., 4) tn, fp, fn, tp -> (..., 3): each rate's denominator."""
    tn, fp, fn, tp = np.moveaxis(counts, -1, 0)
    return np.stack([tn + fp + fn + tp, tn + fp, fn + tp], axis=-1)


def _rates(counts: np.ndarray) -> np.ndarray:
    """(..., 4) tn, fp, fn, tp -> (..., 3), NaN where it is 0."""
    tn, fp, fn, tp = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.stack([tn + tp, fp, fn], axis=-1) / _sizes(counts)
