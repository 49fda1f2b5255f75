"""Colors of the synthetic faces, (n, 3) float: red, green, blue, 0..255."""

import numpy as np


def _colors(codes: str) -> np.ndarray:
    """Reads hexadecimal codes, RRGGBB."""
    return np.array([[*bytes.fromhex(code)] for code in codes.split()], float)


DARK, WHITE = _colors("2a2022 faf8f6")
BLUSH, COPPER, PALE = _colors("e85862 964632 fff0e8")
ROSE, THROAT = _colors("ce5c5c 682228")
# To pick from.
METALS = _colors("ecc856 e8ecf3")
LIPSTICKS = _colors("ce2c42 e06074 aa2a4e c8483e")
CLOTHES = _colors(
    "34405c 464a52 24262c 803a3c e2ded6 4a7a78 c4964a 946a92 cc7874 608254"
)
BACKGROUNDS = _colors("aac2d2 d6c8b4 beceb8 d0bac2 707c8c 9caca6 ded6c6 5a6674")
# To interpolate in.
SKINS = _colors("684230 9c684a ce9872 eebe9c fcdac0")
EYES = _colors("482e20 6e4c2c 607a48 5280aa 7896a8")
EYE_SHADOWS = _colors("965478 60648c")
HAIR = {
    "Black_Hair": _colors("1e1a1e 342a2a"),
    "Brown_Hair": _colors("543422 845836"),
    "Blond_Hair": _colors("cea45c f6d88e"),
    "Gray_Hair": _colors("88888e ceced0"),
    None: _colors("3a2a24 b05e34"),
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
