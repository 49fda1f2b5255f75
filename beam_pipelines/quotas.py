"""How many examples each split and class gets, and the errors when too few exist."""

from collections.abc import Sequence

import numpy as np

from beam_pipelines.config import BuildConfig
from schemas import celeba
from support.errors import ExitCode, UserError


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
      (splits, 2) int64, nowhere more than `available`.

    Raises:
      UserError: exit 3, if a split stays empty, or lacks a class that must be there,
        or too few images exist.
    """
    check_no_split_is_empty(available, config, people_known)
    if config.balance == "exact":
        _check_both_classes(available, config, people_known)
    if config.num_examples:
        wanted = _share(config.num_examples, available, config)
        if (wanted > available).any():
            raise _too_many(available, config)
    elif config.balance == "exact":
        wanted = np.repeat(available.min(axis=1, keepdims=True), 2, axis=1)
    else:
        wanted = available
    check_no_split_is_empty(wanted, config, people_known)
    return wanted.astype(np.int64)


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
    if config.split == "official":
        remedy = _own_splits(people_known)
    elif config.num_examples:
        remedy = "Raise --num_examples."
    raise UserError(
        f"--split={config.split} with --balance={config.balance} leaves "
        f"{' and '.join(empty)} without any example.",
        remedy,
        ExitCode.INPUT_DATA,
    )


def _own_splits(people_known: bool) -> str:
    if people_known:
        return "Use --split=identity, which makes its own splits by person."
    return "Use --split=random, which may put a person into two splits."


def _check_both_classes(
    available: np.ndarray, config: BuildConfig, people_known: bool
) -> None:
    """Raises exit 3 for the first split that has no image of a class."""
    for split, label in np.argwhere(available == 0):
        remedy = "Use --balance=none or more images."
        if config.split == "official":
            remedy = _own_splits(people_known)
        raise UserError(
            f"No image {'with' if label else 'without'} {config.attribute} is in "
            f"{celeba.SPLITS[split]}, and --balance=exact takes as many of both.",
            remedy,
            ExitCode.INPUT_DATA,
        )


def ran_out(config: BuildConfig, split: str, label: int, rejected: int) -> UserError:
    """The error for a pool whose last replacement was unusable too."""
    sign = "with" if label else "without"
    return UserError(
        f"--num_examples={config.num_examples}: after {rejected:,} unusable images no "
        f"image {sign} {config.attribute} is left to replace them in {split}.",
        "Lower --num_examples, or use 0 to take what there is.",
        ExitCode.INPUT_DATA,
    )


def _share(total: int, available: np.ndarray, config: BuildConfig) -> np.ndarray:
    """Shares a total among splits, then among the classes of each."""
    if config.split == "official":
        weights = available.sum(axis=1)
    else:
        weights = np.asarray(config.split_fractions)
    if config.balance == "exact":
        return np.repeat(largest_remainder(total // 2, weights)[:, None], 2, axis=1)
    shares = largest_remainder(total, weights)
    return np.array(
        [
            largest_remainder(share, count)
            for share, count in zip(shares, available, strict=True)
        ]
    )


def _too_many(available: np.ndarray, config: BuildConfig) -> UserError:
    """Says how many examples could be had: found by bisection."""
    step = 2 if config.balance == "exact" else 1
    low, high = 0, config.num_examples // step  # low is possible, high is not
    while high - low > 1:
        middle = (low + high) // 2
        fits = (_share(middle * step, available, config) <= available).all()
        low, high = (middle, high) if fits else (low, middle)
    zeros, ones = available.sum(axis=0)
    # A number that would leave a split empty is none that helps.
    possible = _share(low * step, available, config).sum(axis=1).all()
    offer = f"{low * step}, or 0" if possible else "0"
    return UserError(
        f"--num_examples={config.num_examples} with --balance={config.balance} and "
        f"--split={config.split} is more than there is: {ones:,} images with and "
        f"{zeros:,} without {config.attribute} allow {low * step:,}.",
        f"Use --num_examples={offer} to take what there is.",
        ExitCode.INPUT_DATA,
    )
