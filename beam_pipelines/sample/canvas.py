"""A picture drawn from antialiased shapes, with numpy alone.

Shapes are given in the coordinates of the face (`u` to the right, `v` down, origin
between the eyes, pixels), which the canvas turns, scales and moves, so that a head
tilts without resampling. With `both=True` a shape is drawn a second time, mirrored at
the face's axis.
"""

import math
from collections.abc import Callable

import numpy as np

from beam_pipelines.sample import masks

Color = np.ndarray  # (3,) float32, 0..255
Point = tuple[float, float]

_FILLED = 500.0  # pixels; more than any ellipse is thick


def rgb(red: float, green: float, blue: float) -> Color:
    """A color, (3,) float32, 0..255."""
    return np.array([red, green, blue], np.float32)


def mix(first: Color, second: Color, share: float) -> Color:
    """`first` with `share` (0..1) of `second` in it."""
    return first + (second - first) * np.float32(share)


class Canvas:
    """A picture that is being drawn; nothing is visible before `finish`.

    Attributes:
      pixels: (3, height, width) float32, 0..255; planes, because numpy blends whole
        planes much faster than interleaved colors.
      scale: pixels of the picture per unit of the face's coordinates.
    """

    def __init__(self, pixels: np.ndarray, origin: Point, angle: float, scale: float):
        """Takes the picture, and where its face is: pixels (x, y), radians, factor."""
        self.pixels = pixels
        self.scale = scale
        self._origin = origin
        self._angle = angle
        self._cos = math.cos(angle)
        self._sin = math.sin(angle)
        self._kinds = {
            mask: masks.Batch(mask)
            for mask in (masks.ellipses, masks.glows, masks.lenses)
        }
        # (kind or None, its shape or (window, mask), color, alpha, tone or None)
        self._layers: list[tuple] = []

    def ellipse(
        self,
        center: Point,
        radii: Point,
        color: Color,
        alpha: float = 1.0,
        both: bool = False,
    ) -> None:
        """A filled ellipse."""
        self._ellipse(center, radii, 0.0, (_FILLED, _FILLED), color, alpha, both)

    def ring(
        self, center: Point, radii: Point, width: float, color: Color, both: bool
    ) -> None:
        """The outline of an ellipse, `width` wide."""
        parameters = (0.0, width / 2 * self.scale)
        self._ellipse(center, radii, width, parameters, color, 1.0, both)

    def glow(
        self,
        center: Point,
        radii: Point,
        color: Color,
        alpha: float,
        both: bool = False,
    ) -> None:
        """A soft spot that fades from `alpha` at its center to nothing at `radii`."""
        units = (radii[0] * self.scale, radii[1] * self.scale)
        self._note(masks.glows, center, radii, units, (), color, alpha, both)

    def lens(
        self,
        start: Point,
        end: Point,
        bows: Point,
        color: Color,
        alpha: float = 1.0,
        both: bool = False,
    ) -> None:
        """The area between two parabolas through `start` and `end`.

        `bows` are the parabolas' distances from the middle of the chord, the upper
        edge first, negative upwards (for a chord straight down: to the right).
        """
        self._chord(start, end, bows, 0.0, color, alpha, both)

    def stroke(
        self,
        start: Point,
        end: Point,
        bow: float,
        width: float,
        color: Color,
        alpha: float = 1.0,
        both: bool = False,
    ) -> None:
        """A line from `start` to `end`, bent by `bow`, of constant width.

        It ends half its width beyond the two points.
        """
        self._chord(start, end, (bow, bow), width / 2, color, alpha, both)

    def polygon(self, points: list[Point], color: Color, both: bool = False) -> None:
        """A convex polygon, its corners clockwise as seen on the picture."""
        self._polygon(points, color)
        if both:
            self._polygon([(-u, v) for u, v in reversed(points)], color)

    def outline(self, points: np.ndarray) -> np.ndarray:
        """`masks.outline`, turned and scaled as the face is."""
        return masks.outline(points, self._angle, self.scale)

    def blob(self, center: Point, outer: np.ndarray) -> masks.Blob:
        """The area inside an outline, to be filled."""
        x, y = self._to_pixels(*center)
        column, row = round(x), round(y)
        half = len(outer) // 2  # directions below the center; the others are above
        window = self._window(
            (column - outer.max(), column + outer.max()),
            (row - outer[half:].max(), row + outer[:half].max()),
        )
        return masks.Blob(window, (row, column), outer)

    def fill(
        self,
        blob: masks.Blob,
        color: Color,
        alpha: float = 1.0,
        tone: np.ndarray | None = None,
    ) -> None:
        """Fills a blob with a color, multiplied by `tone` (h, w) if there is one."""
        self._layers.append((None, (blob.window, blob.mask), color, alpha, tone))

    def finish(self) -> np.ndarray:
        """Blends everything noted down, in order, and returns the pixels."""
        for kind in self._kinds.values():
            kind.compute()
        for kind, shape, color, alpha, tone in self._layers:
            (rows, columns), mask = shape if kind is None else kind.get(shape)
            if alpha != 1.0:
                mask = mask * np.float32(alpha)
            region = self.pixels[:, rows, columns]
            color = color[:, None, None]
            paint = (color if tone is None else color * tone) - region
            paint *= mask
            region += paint
        self._layers.clear()
        return self.pixels

    def _to_pixels(self, u: float, v: float) -> Point:
        u, v = u * self.scale, v * self.scale
        return (
            self._origin[0] + u * self._cos - v * self._sin,
            self._origin[1] + u * self._sin + v * self._cos,
        )

    def _window(self, across: Point, down: Point) -> masks.Window:
        """Rows and columns of the picture from the first to the last x and y."""
        _, height, width = self.pixels.shape
        top, bottom = max(0, int(down[0]) - 1), min(height, int(down[1]) + 2)
        left, right = max(0, int(across[0]) - 1), min(width, int(across[1]) + 2)
        return slice(top, max(top, bottom)), slice(left, max(left, right))

    def _note(
        self,
        mask: Callable,
        center: Point,
        halves: Point,
        units: Point,
        parameters: tuple[float, ...],
        color: Color,
        alpha: float,
        both: bool,
        tilt: float = 0.0,
        offset: float = 0.0,
    ) -> None:
        """Notes a shape down.

        Args:
          mask: the kind of shape: the function that computes its mask.
          center: of its bounding box.
          halves: half the size of its bounding box along the shape's own axes.
          units: pixels per unit of the shape's own coordinates.
          parameters: what else `mask` takes.
          color: (3,) float32.
          alpha: opacity.
          both: also the mirrored one.
          tilt: angle of the shape's first axis, radians.
          offset: second coordinate of the center.
        """
        cos, sin = math.cos(tilt), math.sin(tilt)
        half_u = halves[0] * abs(cos) + halves[1] * abs(sin)
        half_v = halves[0] * abs(sin) + halves[1] * abs(cos)
        turn_cos, turn_sin = self._cos * self.scale, abs(self._sin) * self.scale
        half_x = half_u * turn_cos + half_v * turn_sin
        half_y = half_u * turn_sin + half_v * turn_cos
        kind = self._kinds[mask]
        for side in (1, -1) if both else (1,):
            x, y = self._to_pixels(side * center[0], center[1])
            window = self._window((x - half_x, x + half_x), (y - half_y, y + half_y))
            # Turned by the pose, mirrored, turned by the shape's tilt.
            a = (cos * side * self._cos - sin * self._sin) / units[0]
            b = (cos * side * self._sin + sin * self._cos) / units[0]
            c = (-sin * side * self._cos - cos * self._sin) / units[1]
            d = (-sin * side * self._sin + cos * self._cos) / units[1]
            axes = (a, b, -a * x - b * y, c, d, offset - c * x - d * y)
            shape = kind.add(window, axes + parameters)
            self._layers.append((kind, shape, color, alpha, None))

    def _ellipse(
        self,
        center: Point,
        radii: Point,
        margin: float,
        parameters: tuple[float, ...],
        color: Color,
        alpha: float,
        both: bool,
    ) -> None:
        halves = (radii[0] + margin, radii[1] + margin)
        units = (radii[0] * self.scale, radii[1] * self.scale)
        parameters = (4 / units[0] ** 2, 4 / units[1] ** 2, *parameters)
        self._note(
            masks.ellipses, center, halves, units, parameters, color, alpha, both
        )

    def _chord(
        self,
        start: Point,
        end: Point,
        bows: Point,
        half_width: float,
        color: Color,
        alpha: float,
        both: bool,
    ) -> None:
        if end[0] < start[0]:  # so that positive bows are downwards
            start, end = end, start
        scale = self.scale
        half = math.hypot(end[0] - start[0], end[1] - start[1]) / 2
        tilt = math.atan2(end[1] - start[1], end[0] - start[0])
        # The bounding box reaches from the higher of bow and chord to the lower.
        top, bottom = min(bows[0], 0.0) - half_width, max(bows[1], 0.0) + half_width
        offset = (top + bottom) / 2
        center = (
            (start[0] + end[0]) / 2 - offset * math.sin(tilt),
            (start[1] + end[1]) / 2 + offset * math.cos(tilt),
        )
        parameters = (
            (bows[0] + bows[1]) / 2 * scale,
            (bows[1] - bows[0]) / 2 * scale,
            half * scale,
            half_width * scale,
        )
        halves, units = (half + half_width, (bottom - top) / 2), (half * scale, 1.0)
        self._note(
            masks.lenses,
            center,
            halves,
            units,
            parameters,
            color,
            alpha,
            both,
            tilt=tilt,
            offset=offset * scale,
        )

    def _polygon(self, points: list[Point], color: Color) -> None:
        corners = np.array([self._to_pixels(*point) for point in points], np.float32)
        low, high = corners.min(axis=0), corners.max(axis=0)
        window = self._window((low[0], high[0]), (low[1], high[1]))
        mask = masks.polygon(corners, window)
        self._layers.append((None, (window, mask), color, 1.0, None))
