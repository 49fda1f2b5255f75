"""The synthetic faces' people: their looks, and the attributes of each image.

Attributes come from a Gaussian copula: each has a standard normal score, mixed from
a part that belongs to the person (so images of one person look alike), common
factors (age of the person; smile and makeup of the image) and a part of its own, and
is present where the score exceeds the threshold that gives its frequency. So the
frequencies given `Male` are CelebA's, and attributes go together as they do there.
"""

import functools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from schemas import celeba

#: P(Male), measured on the 202,599 official annotations.
MALE_SHARE = 0.42

#: Smallest and largest number of images of one person.
IMAGES_PER_PERSON = (1, 6)


#: Per attribute its frequency among women and men, measured on the 202,599 official
#: annotations; the share of its score's variance that all images of a person have in
#: common; and its score's correlations with the factors age, smile and makeup.
TABLE = {
    "5_o_Clock_Shadow": (0.00, 0.27, 0.6, 0.0, 0.0, 0.0),
    "Arched_Eyebrows": (0.42, 0.05, 0.6, 0.0, 0.0, 0.3),
    "Attractive": (0.68, 0.28, 0.4, -0.4, 0.0, 0.4),
    "Bags_Under_Eyes": (0.10, 0.35, 0.4, 0.3, 0.2, 0.0),
    "Bald": (0.00, 0.05, 0.8, 0.4, 0.0, 0.0),
    "Bangs": (0.20, 0.08, 0.7, 0.0, 0.0, 0.0),
    "Big_Lips": (0.30, 0.16, 0.9, 0.0, 0.0, 0.0),
    "Big_Nose": (0.10, 0.42, 0.9, 0.0, 0.0, 0.0),
    "Black_Hair": (0.20, 0.30, 0.7, 0.0, 0.0, 0.0),
    "Blond_Hair": (0.24, 0.02, 0.7, 0.0, 0.0, 0.0),
    "Blurry": (0.05, 0.06, 0.1, 0.0, 0.0, 0.0),
    "Brown_Hair": (0.24, 0.15, 0.7, 0.0, 0.0, 0.0),
    "Bushy_Eyebrows": (0.07, 0.24, 0.8, 0.0, 0.0, 0.0),
    "Chubby": (0.01, 0.12, 0.7, 0.4, 0.0, 0.0),
    "Double_Chin": (0.01, 0.10, 0.5, 0.5, 0.2, 0.0),
    "Eyeglasses": (0.02, 0.12, 0.6, 0.3, 0.0, 0.0),
    "Goatee": (0.00, 0.15, 0.7, 0.0, 0.0, 0.0),
    "Gray_Hair": (0.01, 0.09, 0.7, 0.5, 0.0, 0.0),
    "Heavy_Makeup": (0.66, 0.00, 0.2, 0.0, 0.0, 0.85),
    "High_Cheekbones": (0.56, 0.31, 0.2, 0.0, 0.8, 0.0),
    "Male": (0.00, 1.00, 0.4, 0.0, 0.0, 0.0),
    "Mouth_Slightly_Open": (0.53, 0.42, 0.1, 0.0, 0.7, 0.0),
    "Mustache": (0.00, 0.10, 0.7, 0.0, 0.0, 0.0),
    "Narrow_Eyes": (0.11, 0.12, 0.4, 0.0, 0.2, 0.0),
    "No_Beard": (1.00, 0.61, 0.8, 0.0, 0.0, 0.0),
    "Oval_Face": (0.33, 0.22, 0.7, 0.0, 0.3, 0.0),
    "Pale_Skin": (0.06, 0.02, 0.3, 0.0, 0.0, 0.0),
    "Pointy_Nose": (0.36, 0.16, 0.8, 0.0, 0.0, 0.0),
    "Receding_Hairline": (0.05, 0.12, 0.7, 0.4, 0.0, 0.0),
    "Rosy_Cheeks": (0.11, 0.00, 0.1, 0.0, 0.4, 0.4),
    "Sideburns": (0.00, 0.14, 0.7, 0.0, 0.0, 0.0),
    "Smiling": (0.54, 0.40, 0.05, 0.0, 0.95, 0.0),
    "Straight_Hair": (0.18, 0.24, 0.6, 0.0, 0.0, 0.0),
    "Wavy_Hair": (0.45, 0.14, 0.6, 0.0, 0.0, 0.0),
    "Wearing_Earrings": (0.31, 0.02, 0.4, 0.0, 0.0, 0.2),
    "Wearing_Hat": (0.02, 0.08, 0.4, 0.0, 0.0, 0.0),
    "Wearing_Lipstick": (0.81, 0.01, 0.3, 0.0, 0.0, 0.75),
    "Wearing_Necklace": (0.20, 0.02, 0.2, 0.0, 0.0, 0.0),
    "Wearing_Necktie": (0.00, 0.17, 0.4, 0.0, 0.0, 0.0),
    "Young": (0.87, 0.63, 0.1, -0.9, 0.0, 0.0),
}

#: Of each group at most one is present; they lie in this order along one score, that
#: of the last, and None is the share in which none is present.
CHOICES = (
    ("Black_Hair", "Brown_Hair", None, "Blond_Hair", "Gray_Hair"),
    ("Wavy_Hair", None, "Straight_Hair"),
)

#: Where an attribute is present, others are not.
EXCLUDES = {
    "Bald": {*CHOICES[0], *CHOICES[1], "Bangs", "Receding_Hairline", "Wearing_Hat"},
    "No_Beard": {"5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"},
    "Wearing_Hat": {"Receding_Hairline"},
    "Bangs": {"Receding_Hairline"},
    "Wearing_Necktie": {"Wearing_Necklace"},
}

#: Measures of a person's looks: mean of women, mean of men, standard deviation.
#: Lengths in pixels of the 178x218 image; the rest are shares or standard scores.
TRAITS = {
    "skin": (0.0, 0.0, 1.0),
    "undertone": (0.0, 0.0, 1.0),
    "face_width": (42.5, 43.2, 1.8),
    "face_length": (66.5, 68.0, 2.2),
    "jaw": (32.2, 34.0, 2.3),
    "chin": (14.0, 15.2, 2.0),
    "eye_spacing": (20.0, 20.0, 0.9),
    "eye_size": (9.5, 9.2, 0.6),
    "eye_tilt": (0.05, 0.03, 0.06),
    "eye_color": (0.0, 0.0, 1.0),
    "nose_width": (6.4, 6.8, 0.8),
    "nose_length": (25.3, 25.8, 1.4),
    "brow_height": (-15.2, -14.6, 1.0),
    "brow_weight": (2.5, 3.1, 0.5),
    "mouth_width": (15.8, 16.3, 1.2),
    "mouth_height": (41.8, 42.3, 1.2),
    "lip": (3.2, 2.9, 0.5),
    "lip_red": (0.42, 0.32, 0.25),
    "neck": (21.5, 23.5, 2.2),
    "shoulders": (69.0, 73.0, 5.0),
    "hairline": (-40.0, -41.0, 2.0),
    "hair_length": (0.9, -0.9, 1.0),
    "hair_volume": (8.6, 7.4, 2.0),
    "hair_tone": (0.0, 0.0, 1.0),
    "hair_part": (0.0, 0.0, 1.0),
    "asymmetry": (0.0, 0.0, 1.0),
    "style": (0.0, 0.0, 1.0),
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
    measures = _MEANS[int(male)] + _DEVIATION * looks
    traits = dict(zip(TRAITS, measures.tolist(), strict=True))
    return Person(male, age, np.array(normals[: len(TABLE)]), traits)


def draw_attributes(person: Person, rng: np.random.Generator) -> frozenset[str]:
    """Draws the attributes of one image of a person: the names of those present."""
    smile, makeup, *own = rng.standard_normal(2 + len(TABLE)).tolist()
    scores = _PERSON * person.scores + _FACTORS @ (person.age, smile, makeup)
    scores += _OWN * own
    thresholds, bounds = _thresholds(int(person.male))
    present = {celeba.ATTRIBUTES[at] for at in np.flatnonzero(scores > thresholds)}
    for names, ends in zip(CHOICES, bounds, strict=True):
        score = scores[celeba.ATTRIBUTES.index(names[-1])]
        present -= {*names}
        present |= {names[int(np.searchsorted(ends, score))]} - {None}
    for winner, losers in EXCLUDES.items():
        if winner in present:
            present -= losers
    return frozenset(present)


*_MEANS, _DEVIATION = np.array([*TRAITS.values()]).T
_COLUMNS = np.array([TABLE[name] for name in celeba.ATTRIBUTES])
_FREQUENCIES, _FACTORS = _COLUMNS[:, :2].T, _COLUMNS[:, 3:]
_PERSON = np.sqrt(_COLUMNS[:, 2])
_OWN = np.sqrt(1 - _PERSON**2 - (_FACTORS**2).sum(axis=1))


@functools.cache
def _thresholds(male: int) -> tuple[list[float], list[list[float]]]:
    """Returns the attributes' thresholds, (40,), and of each choice the upper ends."""
    final = dict(zip(celeba.ATTRIBUTES, _FREQUENCIES[male].tolist(), strict=True))
    drawn = dict(final)  # such that the frequencies after `EXCLUDES` are the table's
    for winner, losers in EXCLUDES.items():
        for loser in losers - {None}:
            drawn[loser] /= max(1 - final[winner], 1e-9)
    ends = []
    for names in CHOICES:
        shares = np.array([drawn.get(name, 0.0) for name in names])
        shares[names.index(None)] = 1 - shares.sum()
        ends.append([_quantile(share) for share in np.cumsum(shares)[:-1]])
    return [_quantile(1 - drawn[name]) for name in celeba.ATTRIBUTES], ends


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(min(max(probability, 1e-12), 1 - 1e-12))
