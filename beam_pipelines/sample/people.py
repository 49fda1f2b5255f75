"""The synthetic faces' people: their looks, and the attributes of each image.

Attributes come from a Gaussian copula: each has a standard normal score, mixed from
a part that belongs to the person (so images of one person look alike), common
factors (age of the person; smile and makeup of the image) and a part of its own, and
is present where the score exceeds the threshold that gives its frequency. So the
frequencies given `Male` are CelebA's, and attributes go together as they do there.
"""

import csv
import functools
import itertools
import math
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: P(Male), measured on the 202,599 official annotations.
MALE_SHARE = 0.42

#: Smallest and largest number of images of one person.
IMAGES_PER_PERSON = (1, 6)


def _read(name: str) -> dict[str, list[float]]:
    """Reads a table of this folder: the numbers of each row by its first column."""
    with open(Path(__file__).with_name(name), newline="") as file:
        return {first: [*map(float, row)] for first, *row in [*csv.reader(file)][1:]}


#: Per attribute its frequency among women and men, measured on the 202,599 official
#: annotations; the fraction of its score's variance that all images of a person have in
#: common; and its score's correlations with the factors age, smile and makeup.
TABLE = _read("attributes.csv")

#: Measures of a person's looks: mean of women, mean of men, standard deviation. Lengths
#: in pixels of the 178x218 image; the rest are fractions or standard scores.
TRAITS = _read("traits.csv")

#: Where an attribute is present, others are not; the first ones win.
EXCLUDES = {
    "Bald": {"Gray_Hair", "Blond_Hair", "Black_Hair", "Brown_Hair", "Straight_Hair"}
    | {"Wavy_Hair", "Bangs", "Receding_Hairline", "Wearing_Hat"},
    "Gray_Hair": {"Blond_Hair", "Black_Hair", "Brown_Hair"},
    "Blond_Hair": {"Black_Hair", "Brown_Hair"},
    "Black_Hair": {"Brown_Hair"},
    "Straight_Hair": {"Wavy_Hair"},
    "No_Beard": {"5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"},
    "Wearing_Hat": {"Receding_Hairline"},
    "Bangs": {"Receding_Hairline"},
    "Wearing_Necktie": {"Wearing_Necklace"},
}


class Person(NamedTuple):
    """One made-up person.

    Attributes:
      male: whether `Male` is present on this person's images.
      age: standard score, positive is older.
      scores: (40,) the person's part of each attribute's score, standard normal.
      traits: measure per name of `TRAITS`.
    """

    male: bool
    age: float
    scores: np.ndarray
    traits: dict[str, float]


def is_male(identity: int) -> bool:
    """Spreads men evenly over the people, so that small samples have both classes."""
    return math.floor((identity + 1) * MALE_SHARE) > math.floor(identity * MALE_SHARE)


def draw_person(identity: int, rng: np.random.Generator) -> Person:
    """Draws one person, by their number from 1."""
    male = is_male(identity)
    age, *normals = rng.standard_normal(1 + len(TABLE) + len(TRAITS)).tolist()
    # Beyond two deviations features would touch or leave the face.
    looks = np.clip(normals[len(TABLE) :], -2, 2)
    measures = (_MEN if male else _WOMEN) + _DEVIATION * looks
    traits = dict(zip(TRAITS, measures.tolist(), strict=True))
    return Person(male, age, np.array(normals[: len(TABLE)]), traits)


def draw_attributes(person: Person, rng: np.random.Generator) -> frozenset[str]:
    """Draws the attributes of one image of a person: the names of those present."""
    smile, makeup, *own = rng.standard_normal(2 + len(TABLE)).tolist()
    scores = _PERSON * person.scores + _FACTORS @ (person.age, smile, makeup)
    above = scores + _OWN * own > _thresholds(person.male)
    present = {*itertools.compress(TABLE, above)}
    for winner, losers in EXCLUDES.items():
        if winner in present:
            present -= losers
    return frozenset(present)


_WOMEN, _MEN, _DEVIATION = np.array([*TRAITS.values()]).T
_COLUMNS = np.array([*TABLE.values()])
_PERSON, _FACTORS = np.sqrt(_COLUMNS[:, 2]), _COLUMNS[:, 3:]
_OWN = np.sqrt(1 - _PERSON**2 - (_FACTORS**2).sum(axis=1))


@functools.cache
def _thresholds(male: bool) -> list[float]:
    """Returns the scores that give the table's frequencies after `EXCLUDES`, (40,)."""
    drawn = {name: row[male] for name, row in TABLE.items()}
    for winner, losers in EXCLUDES.items():
        for loser in losers:
            drawn[loser] /= max(1 - drawn[winner], 1e-9)
    absent = np.clip(1 - np.array([*drawn.values()]), 1e-12, 1 - 1e-12)
    return [NormalDist().inv_cdf(probability) for probability in absent.tolist()]
