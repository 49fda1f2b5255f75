"""Hashes that decide order and choice: the same on every platform, for ever."""

import numpy as np


def seeded(keys: np.ndarray, seed: int) -> np.ndarray:
    """A 64-bit hash of each key: other keys, other hashes; (keys,) uint64."""
    return _mix(keys ^ _mix(np.array([seed], np.uint64)))


def name_keys(names: np.ndarray) -> np.ndarray:
    """A 64-bit key per name, the same on every platform and for any array width."""
    width = -(-names.dtype.itemsize // 8) * 8
    words = names.astype(f"S{width}").view("<u8").reshape(len(names), width // 8)
    keys = np.zeros(len(names), np.uint64)
    for word in words.T:
        # Zero words are the padding of the longest name's width: they do not count.
        keys = np.where(word != 0, _mix(keys ^ word), keys)
    return keys


def _mix(keys: np.ndarray) -> np.ndarray:
    """splitmix64, a bijection of 64-bit numbers without visible structure.

    Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
    OOPSLA 2014.
    """
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
