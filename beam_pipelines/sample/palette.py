"""Colors of the synthetic faces: red, green, blue, 0..255."""

import numpy as np

DARK, WHITE = np.array([(42, 32, 34), (250, 248, 246)])
BLUSH, COPPER, PALE = np.array([(232, 88, 98), (150, 70, 50), (255, 240, 232)])
ROSE, THROAT = np.array([(206, 92, 92), (104, 34, 40)])
# To pick from.
METALS = np.array([(236, 200, 86), (232, 236, 243)])
LIPSTICKS = np.array([(206, 44, 66), (224, 96, 116), (170, 42, 78), (200, 72, 62)])
CLOTHES = np.array(
    [(52, 64, 92), (70, 74, 82), (36, 38, 44), (128, 58, 60), (226, 222, 214)]
    + [(74, 122, 120), (196, 150, 74), (148, 106, 146), (204, 120, 116), (96, 130, 84)]
)
BACKGROUNDS = np.array(
    [(170, 194, 210), (214, 200, 180), (190, 206, 184), (208, 186, 194)]
    + [(112, 124, 140), (156, 172, 166), (222, 214, 198), (90, 102, 116)]
)
# To interpolate in.
SKINS = np.array(
    [(104, 66, 48), (156, 104, 74), (206, 152, 114), (238, 190, 156), (252, 218, 192)]
)
EYES = np.array(
    [(72, 46, 32), (110, 76, 44), (96, 122, 72), (82, 128, 170), (120, 150, 168)]
)
EYE_SHADOWS = np.array([(150, 84, 120), (96, 100, 140)])
HAIR = {
    "Black_Hair": np.array([(30, 26, 30), (52, 42, 42)]),
    "Brown_Hair": np.array([(84, 52, 34), (132, 88, 54)]),
    "Blond_Hair": np.array([(206, 164, 92), (246, 216, 142)]),
    "Gray_Hair": np.array([(136, 136, 142), (206, 206, 208)]),
    None: np.array([(58, 42, 36), (176, 94, 52)]),
}


def mix(first: np.ndarray, second: np.ndarray, amount: float) -> np.ndarray:
    """Blends `amount` (0..1) of the second color into the first."""
    return first + (second - first) * amount


def between(colors: np.ndarray, place: float) -> np.ndarray:
    """Interpolates the color at a place, 0..n-1, of several, (n, 3)."""
    place = min(max(place, 0.0), len(colors) - 1.001)
    return mix(colors[int(place)], colors[int(place) + 1], place % 1)


def pick(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Picks one of the colors, (n, 3), and varies it a little."""
    return (colors[rng.integers(len(colors))] + rng.normal(0, 12, 3)).clip(10, 250)
