"""Colors of the synthetic faces: (3,) float arrays of red, green, blue, 0..255."""

import numpy as np

DARK, WHITE = np.array([42.0, 32.0, 34.0]), np.array([250.0, 248.0, 246.0])
BLUSH, COPPER, THROAT = np.array([(232, 88, 98), (150, 70, 50), (104, 34, 40)])
METALS = np.array([(236, 200, 86), (232, 236, 243)])
CLOTHES = np.array(
    [(52, 64, 92), (70, 74, 82), (36, 38, 44), (128, 58, 60), (226, 222, 214)]
    + [(74, 122, 120), (196, 150, 74), (148, 106, 146), (204, 120, 116), (96, 130, 84)]
)
BACKGROUNDS = np.array(
    [(170, 194, 210), (214, 200, 180), (190, 206, 184), (208, 186, 194)]
    + [(112, 124, 140), (156, 172, 166), (222, 214, 198), (90, 102, 116)]
)
_LIPSTICKS = np.array(
    [(206, 44, 66), (224, 96, 116), (170, 42, 78), (200, 72, 62), (214, 110, 130)]
)
# Ramps, from dark to light.
_SKINS = [(104, 66, 48), (156, 104, 74), (206, 152, 114), (238, 190, 156)]
_SKINS = np.array([*_SKINS, (252, 218, 192)])
_EYES = [(72, 46, 32), (110, 76, 44), (96, 122, 72), (82, 128, 170), (120, 150, 168)]
_EYES = np.array(_EYES)
_EYE_SHADOWS = np.array([(150, 84, 120), (96, 100, 140)])
_HAIR = {
    "Black_Hair": np.array([(30, 26, 30), (52, 42, 42)]),
    "Brown_Hair": np.array([(84, 52, 34), (132, 88, 54)]),
    "Blond_Hair": np.array([(206, 164, 92), (246, 216, 142)]),
    "Gray_Hair": np.array([(136, 136, 142), (206, 206, 208)]),
}
_OTHER_HAIR = np.array([(58, 42, 36), (176, 94, 52)])


def mix(first: np.ndarray, second: np.ndarray, amount: float) -> np.ndarray:
    """Blends `amount` (0..1) of the second color into the first."""
    return first + (second - first) * amount


def pick(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Picks one of the colors, (n, 3), and varies it a little."""
    return (colors[rng.integers(len(colors))] + rng.normal(0, 12, 3)).clip(10, 250)


def skin_color(traits: dict[str, float], has: frozenset[str]) -> np.ndarray:
    color = _along(_SKINS, 2.9 + 0.85 * traits["skin"])
    color = color * (1 + traits["undertone"] * np.array([0.018, 0.0, -0.03]))
    return mix(color, np.array([255, 240, 232]), 0.65 * ("Pale_Skin" in has))


def hair_color(traits: dict[str, float], has: frozenset[str]) -> np.ndarray:
    ramp = next((_HAIR[name] for name in _HAIR if name in has), _OTHER_HAIR)
    return _along(ramp, (traits["hair_tone"] + 2) / 4)


def eye_color(traits: dict[str, float]) -> np.ndarray:
    return _along(_EYES, 1.6 + 1.1 * traits["eye_color"])


def shadow_color(traits: dict[str, float]) -> np.ndarray:
    """Returns the eye shadow; a person keeps theirs."""
    return _along(_EYE_SHADOWS, traits["style"] / 2 + 0.5)


def lip_color(face, rng: np.random.Generator) -> np.ndarray:
    # Natural lips run from skin to rose, which overlaps with faint lipstick.
    red = min(max(face.traits["lip_red"], 0.0), 0.8)
    natural = mix(face.skin * (0.86, 0.66, 0.64), np.array([206, 92, 92]), red)
    lipstick = _LIPSTICKS[rng.integers(len(_LIPSTICKS))]
    amount = rng.uniform(0.5, 1.0) * ("Wearing_Lipstick" in face.has)
    return mix(natural, lipstick, amount)


def _along(ramp: np.ndarray, place: float) -> np.ndarray:
    """Interpolates the color at a place, 0..n-1, of a ramp (n, 3)."""
    place = min(max(place, 0.0), len(ramp) - 1.001)
    return mix(ramp[int(place)], ramp[int(place) + 1], place % 1)
