"""The colors of one drawn image, and everything else its parts share."""

import dataclasses

import numpy as np

from beam_pipelines.sample.canvas import Canvas, Color, mix, rgb
from beam_pipelines.sample.people import Person

DARK = rgb(42, 32, 34)
WHITE = rgb(250, 248, 246)

_SKINS = np.array(
    [(104, 66, 48), (156, 104, 74), (206, 152, 114), (238, 190, 156), (252, 218, 192)],
    np.float32,
)
_PALE = rgb(255, 240, 232)
_WARM = rgb(0.6, 0.0, -1.0)  # how an undertone shifts red, green, blue
_HAIR = {
    "Black_Hair": (rgb(30, 26, 30), rgb(52, 42, 42)),
    "Brown_Hair": (rgb(84, 52, 34), rgb(132, 88, 54)),
    "Blond_Hair": (rgb(206, 164, 92), rgb(246, 216, 142)),
    "Gray_Hair": (rgb(136, 136, 142), rgb(206, 206, 208)),
}
_OTHER_HAIR = (rgb(58, 42, 36), rgb(176, 94, 52))
_EYES = np.array(
    [(72, 46, 32), (110, 76, 44), (96, 122, 72), (82, 128, 170), (120, 150, 168)],
    np.float32,
)
_LIPSTICKS = np.array(
    [(206, 44, 66), (224, 96, 116), (170, 42, 78), (200, 72, 62), (214, 110, 130)],
    np.float32,
)
_CLOTHES = np.array(
    [(52, 64, 92), (70, 74, 82), (36, 38, 44), (128, 58, 60), (226, 222, 214)]
    + [(74, 122, 120), (196, 150, 74), (148, 106, 146), (204, 120, 116), (96, 130, 84)],
    np.float32,
)
_BACKGROUNDS = np.array(
    [(170, 194, 210), (214, 200, 180), (190, 206, 184), (208, 186, 194)]
    + [(112, 124, 140), (156, 172, 166), (222, 214, 198), (90, 102, 116)],
    np.float32,
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """One image while it is drawn.

    Attributes:
      canvas: the picture.
      person: who is on it.
      traits: the person's measures, changed by the image's attributes where these
        say so (a chubby face is wider).
      has: the attributes present.
      rng: what varies from image to image.
      skin, shade, hair, lips: colors; `shade` is skin in shadow.
    """

    canvas: Canvas
    person: Person
    traits: dict[str, float]
    has: frozenset[str]
    rng: np.random.Generator
    skin: Color
    shade: Color
    hair: Color
    lips: Color


def skin_color(person: Person, has: frozenset[str]) -> Color:
    place = 2.9 + 0.85 * person.traits["skin"]
    color = _along(_SKINS, place) * (1 + 0.03 * person.traits["undertone"] * _WARM)
    if "Pale_Skin" in has:
        color = mix(color, _PALE, 0.65)
    return color.clip(0, 255).astype(np.float32)


def shade_color(skin: Color) -> Color:
    return skin * rgb(0.80, 0.70, 0.66)


def hair_color(person: Person, has: frozenset[str]) -> Color:
    pair = next((_HAIR[name] for name in _HAIR if name in has), _OTHER_HAIR)
    return mix(*pair, (person.traits["hair_tone"] + 2) / 4)


def lip_color(
    person: Person, has: frozenset[str], skin: Color, rng: np.random.Generator
) -> Color:
    # Natural lips run from skin to rose, which overlaps with faint lipstick.
    red = min(max(person.traits["lip_red"], 0.0), 0.8)
    natural = mix(skin * rgb(0.86, 0.66, 0.64), rgb(206, 92, 92), red)
    if "Wearing_Lipstick" not in has:
        return natural
    strength = rng.uniform(0.5, 1.0)
    return mix(natural, _LIPSTICKS[rng.integers(len(_LIPSTICKS))], strength)


def eye_color(person: Person) -> Color:
    return _along(_EYES, 1.6 + 1.1 * person.traits["eye_color"])


def clothes_color(rng: np.random.Generator) -> Color:
    return _vary(_CLOTHES[rng.integers(len(_CLOTHES))], rng)


def background_color(rng: np.random.Generator) -> Color:
    return _vary(_BACKGROUNDS[rng.integers(len(_BACKGROUNDS))], rng)


def _vary(color: Color, rng: np.random.Generator) -> Color:
    return (color + rng.normal(0, 12, 3)).clip(10, 250).astype(np.float32)


def _along(colors: np.ndarray, place: float) -> Color:
    """The color at a place of a ramp, interpolated; places beyond its ends are cut."""
    place = min(max(place, 0.0), len(colors) - 1.001)
    index = int(place)
    return mix(colors[index], colors[index + 1], place - index)
