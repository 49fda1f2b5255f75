"""A pen that draws shapes given in the coordinates of a tilted face.

They are `u` to the right and `v` down from the point between the eyes, in pixels of
the finished image. With `both=True` a shape is drawn a second time, mirrored at the
face's axis. Colors are (3,) arrays, 0..255; `alpha` is the opacity, 0..1.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

#: The image is drawn this many times larger and reduced, which smooths its edges.
ENLARGED = 2

_ANGLES = np.linspace(0, 2 * math.pi, 25)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
MIRROR = np.array([-1.0, 1.0])
#: Points around a lens: along its chord, and how much of each bow is across it.
_ALONG = np.concatenate([np.linspace(-1, 1, 11), np.linspace(1, -1, 11)])[:, None]
_ACROSS = (1 - _ALONG**2) * np.eye(2).repeat(11, axis=0)
_SQUARES = np.linspace(-1, 1, 64) ** 2
_GLOW = 255 * (1 - _SQUARES[:, None] - _SQUARES).clip(0) ** 2


class Pen:
    """Draws on an RGB image that is `ENLARGED` times too large."""

    def __init__(self, image: Image.Image, origin, angle: float, scale: float):
        """Takes the face's pose: (x, y) in finished pixels, radians, factor."""
        self.image = image
        self._origin = ENLARGED * np.array(origin) + 0.5  # Pillow rounds down
        self._scale = ENLARGED * scale
        cos, sin = self._scale * math.cos(angle), self._scale * math.sin(angle)
        self._turn = np.array([(cos, sin), (-sin, cos)])
        self._opaque, self._blend = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")

    def pixels(self, points) -> list[float]:
        """Returns points, (n, 2), as x, y, x, y, ... of the enlarged image."""
        return (np.asarray(points) @ self._turn + self._origin).ravel().tolist()

    def polygon(self, points, color, alpha=1.0, both=False) -> None:
        draw, ink = self._opaque, as_ink(color)
        if alpha < 1:
            draw, ink = self._blend, (*ink, round(255 * alpha))
        draw.polygon(self.pixels(points), ink)
        if both:
            draw.polygon(self.pixels(points * MIRROR), ink)

    def line(self, points, width, color) -> None:
        width = round(width * self._scale)
        self._opaque.line(self.pixels(points), as_ink(color), width)

    def ellipse(self, center, radii, color, alpha=1.0, both=False) -> None:
        self.polygon(CIRCLE * radii + center, color, alpha, both)

    def lens(self, start, end, bows, color, alpha=1.0, both=False) -> None:
        """Fills the area between two parabolas through `start` and `end`.

        `bows` are the parabolas' distances from the middle of the chord, positive to
        the right of the way from start to end: downwards, if the end is on the right.
        """
        half_u, half_v = (end[0] - start[0]) / 2, (end[1] - start[1]) / 2
        across = np.array([(-half_v, half_u)]) / math.hypot(half_u, half_v)
        points = _ALONG * (half_u, half_v) + (_ACROSS @ bows)[:, None] * across
        self.polygon(points + start + (half_u, half_v), color, alpha, both)

    def stroke(self, start, end, bow, width, color, alpha=1.0, both=False) -> None:
        """Draws a line bent by `bow`, which is `width` wide in its middle."""
        self.lens(start, end, (bow - width / 2, bow + width / 2), color, alpha, both)

    def glow(self, center, radii, color, alpha, both=False) -> None:
        """Draws a soft spot that fades from `alpha` at its center to its edge."""
        half = np.array(radii) * self._scale
        mask = Image.fromarray((_GLOW * alpha).astype(np.uint8))
        mask = mask.resize((2 * half).astype(int), Image.Resampling.NEAREST)
        for place in (center, center * MIRROR) if both else (center,):
            corner = (self.pixels(place) - half).astype(int).tolist()
            self.image.paste(as_ink(color), tuple(corner), mask)


def as_ink(color: np.ndarray) -> tuple[int, ...]:
    return tuple(color.astype(int).tolist())


def outline(right) -> np.ndarray:
    """Returns a smooth symmetric line from its right half, top to bottom.

    It runs from the left half's end to the right half's, four points for each given:
    Dyn, Levin and Gregory, "A 4-point interpolatory subdivision scheme for curve
    design", Computer Aided Geometric Design 4 (1987).
    """
    points = np.concatenate([right, (right * MIRROR)[:0:-1]])
    for _ in range(2):
        ring = np.concatenate([points[-1:], points, points[:2]])
        middle = (9 * (ring[1:-2] + ring[2:-1]) - ring[:-3] - ring[3:]) / 16
        points = np.stack([points, middle], axis=1).reshape(-1, 2)
    count = 4 * (len(right) - 1)
    return np.concatenate([points[-count:], points[: count + 1]])
