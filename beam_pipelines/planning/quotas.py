"""How many examples each split and class gets, and the errors when too few exist."""

from collections.abc import Sequence

import numpy as np

from beam_pipelines.config import BuildConfig
from schemas import celeba
from support.errors import UserError, input_error


def largest_remainder(total: int, weights: Sequence[float]) -> np.ndarray:
    """Shares `total` in proportion to `weights`: whole numbers that add up to it.

    Source: the method of Hamilton, as used to apportion seats. Ties go to the first.
    """
    exact = total * np.asarray(weights, np.float64) / np.sum(weights)
    # 0.2 * 5000 must give 1000 and no remainder, whatever its last bit says.
    shares = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: total - shares.sum()]] += 1
    return shares


def per_class(
    available: np.ndarray, config: BuildConfig, people_known: bool
) -> np.ndarray:
    """The number of examples to select of each split and class.

    Args:
      available: (splits, 2) images that exist.
      config: the build's options.
      people_known: whether a split by identity is possible.

    Returns:
      (splits, 2) int64, nowhere more than `available`. Splits get their shares of
      `num_examples`, except that what one of them cannot hold goes to the others.

    Raises:
      UserError: exit 3, if a split stays empty, or lacks a class that must be there,
        or too few images exist.
    """
    check_no_split_is_empty(available, config, people_known)
    room, unit = available.sum(axis=1), 1
    if config.is_balanced:
        _check_both_classes(available, config, people_known)
        room, unit = available.min(axis=1), 2  # in pairs
    total = room.sum()
    if config.num_examples:
        if config.is_number_due and config.num_examples > total * unit:
            raise _too_many(available, total * unit, config)
        total = min(total, config.num_examples // unit)
    official = config.split == "official"
    weights = available.sum(axis=1) if official else np.array(config.split_fractions)
    shares = _fill(total, weights, room)
    if config.is_balanced:
        wanted = np.repeat(shares[:, None], 2, axis=1)
    else:
        each = zip(shares, available, strict=True)
        wanted = np.array([largest_remainder(share, there) for share, there in each])
    check_no_split_is_empty(wanted, config, people_known)
    return wanted


def check_no_split_is_empty(
    counts: np.ndarray, config: BuildConfig, people_known: bool
) -> None:
    """Raises exit 3 if a split has no example; `counts` is (splits, 2)."""
    empty = [
        name
        for name, count in zip(celeba.SPLITS, counts, strict=True)
        if not count.sum()
    ]
    if not empty:
        return
    remedy = "Use more images, or other --split_fractions."
    if config.narrowing:
        remedy = f"Leave out less than {config.narrowing}."
    if config.split == "official":
        remedy = _own_splits(people_known)
    elif config.num_examples:
        remedy = "Raise --num_examples."
    raise input_error(
        f"--split={config.split} with --balance={config.balance} leaves "
        f"{' and '.join(empty)} without any example.",
        remedy,
    )


def _own_splits(people_known: bool) -> str:
    if people_known:
        return "Use --split=identity, which makes its own splits by person."
    return "Use --split=random, which may put a person into two splits."


def _check_both_classes(
    available: np.ndarray, config: BuildConfig, people_known: bool
) -> None:
    """Raises exit 3 for the first split that has no image of a class."""
    left = f" under {config.narrowing}" if config.narrowing else ""
    for split, label in np.argwhere(available == 0):
        remedy = "Use --balance=none or more images."
        if config.split == "official":
            remedy = _own_splits(people_known)
        raise input_error(
            f"No image {'with' if label else 'without'} {config.attribute} is in "
            f"{celeba.SPLITS[split]}{left}, and --balance={config.balance} takes as "
            "many of both.",
            remedy,
        )


def ran_out(config: BuildConfig, split: str, label: int, rejected: int) -> UserError:
    """The error for a pool whose last replacement was unusable too."""
    sign = "with" if label else "without"
    other = "--balance=undersample" if config.is_balanced else "0"
    return input_error(
        f"--num_examples={config.num_examples}: after {rejected:,} excluded images no "
        f"image {sign} {config.attribute} is left to replace them in {split}.",
        f"Lower --num_examples, or use {other} to take what there is.",
    )


def _fill(total: int, weights: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Shares `total` by weights, and what does not fit among those with room left."""
    shares = np.zeros(len(room), np.int64)
    while rest := total - shares.sum():
        free = np.where(shares < room, weights, 0)
        shares = np.minimum(shares + largest_remainder(rest, free), room)
    return shares


def _too_many(available: np.ndarray, possible: int, config: BuildConfig) -> UserError:
    zeros, ones = available.sum(axis=0)
    left = f" under {config.narrowing}" if config.narrowing else ""
    return input_error(
        f"--num_examples={config.num_examples} with --balance={config.balance} and "
        f"--split={config.split} is more than there is: {ones:,} images with and "
        f"{zeros:,} without {config.attribute}{left} allow {possible:,}.",
        f"Use --num_examples={possible}, or 0 to take what there is.",
    )
