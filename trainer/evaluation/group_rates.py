"""Rates of groups and their gaps to all others, with intervals and tests.

All intervals come from the same bootstrap draws of people as those of
`evaluation.metrics`: within a draw a group is compared with its own complement, so that
what they share (the people drawn) cancels. A draw counts each person's images as often
as the person was drawn; all draws of all groups are one matrix product.
"""

import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class Side:
    """Groups, or the complement of each within its partition.

    Attributes:
      counts: (groups, 4) float64, images that are tn, fp, fn, tp.
      people: (groups, 3) int, people with an image in the denominator of each rate.
      samples: (draws, groups, 3) float64, the rates of every draw, NaN if undefined.
    """

    counts: np.ndarray
    people: np.ndarray
    samples: np.ndarray

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(groups, 3): the images in the denominator of each rate."""
        return _sizes(self.counts)

    @functools.cached_property
    def rates(self) -> np.ndarray:
        """(groups, 3), NaN where undefined."""
        return _rates(self.counts)

    @functools.cached_property
    def small(self) -> np.ndarray:
        """(groups, 3) bool: too few people or images to judge by."""
        return (self.people < MIN_PEOPLE) | (self.sizes < MIN_IMAGES)

    @functools.cached_property
    def intervals(self) -> np.ndarray:
        """(2, groups, 3), see `bootstrap.interval` and `bootstrap.opened`."""
        bounds = bootstrap.interval(self.samples)
        return bootstrap.opened(self.rates, bounds, self.people)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The groups of all partitions, and their complements."""

    group: Side
    rest: Side

    @functools.cached_property
    def gaps(self) -> np.ndarray:
        """(groups, 3): group minus rest, NaN where undefined."""
        return self.group.rates - self.rest.rates

    @functools.cached_property
    def gap_intervals(self) -> np.ndarray:
        """(2, groups, 3): percentile intervals, from the same draws on both sides.

        Where one side is all correct or all wrong its draws do not vary, and the sides'
        own intervals are joined instead (Newcombe, "Interval estimation for the
        difference between independent proportions", 1998, method 10).
        """
        low, high = bootstrap.interval(self.group.samples - self.rest.samples)
        group, rest = self.group.rates, self.rest.rates
        group_low, group_high = self.group.intervals
        rest_low, rest_high = self.rest.intervals
        below = self.gaps - np.hypot(group - group_low, rest_high - rest)
        above = self.gaps + np.hypot(group_high - group, rest - rest_low)
        constant = np.isin(group, (0, 1)) | np.isin(rest, (0, 1))
        joined = constant & ~np.isnan(low)
        return np.stack(
            [
                np.where(joined, np.maximum(-1, below), low),
                np.where(joined, np.minimum(1, above), high),
            ]
        )


def measure(
    partitions: Sequence[Partition],
    cell: np.ndarray,
    person: np.ndarray,
    draws: int,
    seed: int,
) -> Measured:
    """Counts every group and its complement, in the data and in every draw.

    Args:
      partitions: see `evaluation.groups`, none without groups; images of code -1
        belong to neither side.
      cell: (n,) int, 0 tn, 1 fp, 2 fn, 3 tp.
      person: (n,) numbers 0..people-1, see `evaluation.bootstrap.clusters`.
      draws: number of draws.
      seed: seed of the draws.
    """
    parts = [_sums_by_person(part, cell, person) for part in partitions]
    sums = np.concatenate(parts, axis=1)
    drawn = bootstrap.resample(sums.reshape(len(sums), -1), draws, seed)
    drawn = drawn.reshape(draws, -1, _CELLS)
    sizes = [len(part.names) for part in partitions]

    def rest(counts: np.ndarray) -> np.ndarray:
        """(n, groups, 4) -> the same of everything else in each group's partition."""
        totals = np.add.reduceat(counts, np.cumsum([0, *sizes[:-1]]), axis=1)
        return np.repeat(totals, sizes, axis=1) - counts

    return Measured(_side(sums, drawn), _side(rest(sums), rest(drawn)))


def adjusted_p_values(measured: Measured) -> np.ndarray:
    """Tests every gap against none, corrected for looking at all of them.

    The single-step maxT procedure (Westfall and Young, "Resampling-Based Multiple
    Testing", 1993): a gap by its standard error is compared with the largest such
    deviation anywhere in each draw. So with a limit of 5 % the chance of any false
    alarm in the whole table is about 5 %, and groups that overlap or mirror each other
    cost nothing extra, as they would by Bonferroni or Holm; those could also not reach
    5 % with 1,000 draws and a hundred gaps, because no p-value is below 1/1,001.

    A gap's standard error is that of the draws, but at least that of two independent
    samples of one common rate (Pearson's test): draws see too little chance in a group
    that has few mistakes or none.

    Returns:
      (groups, 3) float64, NaN where nothing is tested: an undefined gap, or too few
      people or images in the group or outside it.
    """
    deviations = measured.group.samples - measured.rest.samples - measured.gaps
    error = np.std(deviations, axis=0)
    least = np.maximum(error, _pooled_error(measured))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(least > 0, np.abs(measured.gaps) / least, 0)
    tested = ~(measured.group.small | measured.rest.small | np.isnan(error))
    varies = tested & (error > 0)
    extents = np.abs(deviations[:, varies] / error[varies])
    highest = np.sort(extents.max(axis=1, initial=0))
    reached = len(highest) - np.searchsorted(highest, statistic)
    return np.where(tested, (1 + reached) / (1 + len(highest)), np.nan)


def equalized_odds(side: Side, groups: slice) -> tuple[float, float, float, bool]:
    """Distance of a partition's groups from equal false-positive and -negative rates.

    The larger of two differences, each between the highest and the lowest rate of the
    groups: 0 is what Hardt, Price and Srebro ("Equality of Opportunity in Supervised
    Learning", 2016) call equalized odds; defined like `equalized_odds_difference` of
    the library Fairlearn, but that groups in which a rate is undefined are excluded.

    Returns:
      The difference, low and high of its interval, and whether a group has too few
      people or images for it; NaN if no rate is defined in two groups.
    """
    values, samples, small = [], [], False
    for rate in (1, 2):
        defined = np.arange(len(side.rates))[groups]
        defined = defined[~np.isnan(side.rates[defined, rate])]
        if len(defined) > 1:
            values.append(np.ptp(side.rates[defined, rate]))
            samples.append(np.ptp(side.samples[:, defined, rate], axis=1))
            small |= bool(side.small[defined, rate].any())
    if not values:
        return np.nan, np.nan, np.nan, False
    return max(values), *bootstrap.interval(np.max(samples, axis=0)), small


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


def _side(sums: np.ndarray, drawn: np.ndarray) -> Side:
    """From (people, groups, 4) and (draws, groups, 4) counts."""
    people = np.count_nonzero(_sizes(sums) > 0, axis=0)
    return Side(counts=sums.sum(axis=0), people=people, samples=_rates(drawn))


def _sizes(counts: np.ndarray) -> np.ndarray:
    """(..., 4) tn, fp, fn, tp -> (..., 3): each rate's denominator."""
    tn, fp, fn, tp = np.moveaxis(counts, -1, 0)
    return np.stack([tn + fp + fn + tp, tn + fp, fn + tp], axis=-1)


def _rates(counts: np.ndarray) -> np.ndarray:
    """(..., 4) tn, fp, fn, tp -> (..., 3), NaN where it is 0."""
    tn, fp, fn, tp = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.stack([tn + tp, fp, fn], axis=-1) / _sizes(counts)


def _pooled_error(measured: Measured) -> np.ndarray:
    """(groups, 3): standard error of a gap between samples of one common rate."""
    sizes, others = measured.group.sizes, measured.rest.sizes
    pooled = _rates(measured.group.counts + measured.rest.counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(pooled * (1 - pooled) * (1 / sizes + 1 / others))
