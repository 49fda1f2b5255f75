"""Tables of made-up annotations, without images."""

import dataclasses

import numpy as np

from beam_pipelines.planning import selection
from beam_pipelines.sources.rows import Rows
from schemas import celeba

_MALE, _YOUNG = (celeba.ATTRIBUTES.index(name) for name in ("Male", "Young"))


def bits(rows, name):
    """One attribute of rows, 0 or 1 each."""
    index = celeba.ATTRIBUTES.index(name)
    return selection.attribute_bits(rows.attributes, index)


def make_rows(people=300, seed=0):
    """1 to 30 images per person, two in five people with Male."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(people), rng.integers(1, 31, people))
    count = len(identities)
    bits = rng.integers(0, 2, (count, len(celeba.ATTRIBUTES)), np.uint8)
    bits[:, _MALE] = rng.random(people)[identities] < 0.4
    return Rows(
        names=np.array([f"{index:06d}.jpg" for index in range(count)], "S"),
        sizes=np.full(count, 1000),
        identities=identities.astype(np.int32),
        attributes=np.packbits(bits, axis=1),
        official=rng.choice(3, count, p=[0.8, 0.1, 0.1]).astype(np.int8),
        missing=np.array([], "S"),
    )


def make_table(rng):
    """A small table whose people, classes, gaps and names are all drawn."""
    people = int(rng.integers(30, 80))
    identities = np.repeat(np.arange(people), rng.integers(1, 12, people))
    count = len(identities)
    bits = rng.random((count, len(celeba.ATTRIBUTES))) < 0.5
    bits[:, _MALE] = rng.random(people)[identities] < rng.uniform(0.3, 0.7)
    bits[:, _YOUNG] = rng.random(count) < 0.7
    if rng.integers(2):
        identities = np.where(rng.random(count) < 0.1, -1, identities)
    names = rng.choice(10**6, count, replace=False)
    return Rows(
        names=np.array([f"{number}.jpg" for number in names], "S"),
        sizes=np.full(count, 1000),
        identities=identities.astype(np.int32),
        attributes=np.packbits(bits, axis=1),
        official=rng.choice(3, count, p=[0.6, 0.2, 0.2]).astype(np.int8),
        missing=np.array([], "S"),
    )


def turned(rows, rng):
    """The same rows, listed in another order."""
    turn = rng.permutation(len(rows))
    columns = {
        field.name: getattr(rows, field.name)[turn]
        for field in dataclasses.fields(rows)
        if field.name != "missing"
    }
    return dataclasses.replace(rows, **columns)


ROWS = make_rows()
