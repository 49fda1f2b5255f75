"""Antialiased shapes drawn with numpy.

Every shape is a coverage mask, computed on the shape's bounding box only from the
signed distance to its edge (one pixel of ramp is the antialiasing), and blended into
the picture. Shapes are given in the coordinates of the face (`u` to the right, `v`
down, origin between the eyes, pixels), which the canvas turns, scales and moves, so
that a head tilts without resampling. With `both=True` a shape is drawn a second time,
mirrored at the face's axis.

A face has some fifty small shapes, for which numpy's overhead per call would be most
of the time. So drawing only notes them down, and `finish` computes the masks of all
shapes of a kind at once, on the concatenated pixels of their bounding boxes.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

Color = np.ndarray
Point = tuple[float, float]

_REACH = 256  # pixels from a blob's center that the polar tables cover
_SECTORS = 2048
_TURN = 2 * math.pi
_OFFSETS = np.arange(-_REACH, _REACH, dtype=np.float32)
_RADIUS = np.hypot(_OFFSETS[:, None], _OFFSETS)
_SECTOR = (
    (np.arctan2(_OFFSETS[:, None], _OFFSETS) / _TURN * _SECTORS).round() % _SECTORS
).astype(np.intp)
#: Direction of each sector, radians, clockwise from the right.
DIRECTIONS = np.arange(_SECTORS) * (_TURN / _SECTORS)
_FILLED = 500.0  # pixels; more than any ellipse is thick

_STEPS = np.linspace(0, 1, 6, endpoint=False)
#: (6, 4): weights of four neighboring points along a Catmull-Rom segment.
_SPLINE = 0.5 * np.stack(
    [
        -(_STEPS**3) + 2 * _STEPS**2 - _STEPS,
        3 * _STEPS**3 - 5 * _STEPS**2 + 2,
        -3 * _STEPS**3 + 4 * _STEPS**2 + _STEPS,
        _STEPS**3 - _STEPS**2,
    ],
    axis=1,
)


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
        self._kinds = {mask: _Kind(mask) for mask in (_ellipses, _glows, _lenses)}
        self._layers: list[tuple] = []  # (kind or None, its shape or a mask, color)

    def ellipse(
        self,
        center: Point,
        radii: Point,
        color: Color,
        alpha: float = 1.0,
        both: bool = False,
    ) -> None:
        """A filled ellipse."""
        self._ellipse(center, radii, 0.0, (_FILLED, _FILLED, alpha), color, both)

    def ring(
        self, center: Point, radii: Point, width: float, color: Color, both: bool
    ) -> None:
        """The outline of an ellipse, `width` wide."""
        parameters = (0.0, width / 2 * self.scale, 1.0)
        self._ellipse(center, radii, width, parameters, color, both)

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
        self._note(_glows, center, radii, 0.0, units, (alpha,), color, both)

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
        """The smooth closed curve through `points` as a radius per direction.

        Args:
          points: (n, 2) float, (u, v) about the blob's center; the curve must be
            star-shaped, that is, every ray from the center crosses it once.

        Returns:
          (2048,) float32, pixels; directions are those of the picture.
        """
        curve = (_SPLINE @ points[_neighbors(len(points))]).reshape(-1, 2)
        angles = (np.arctan2(curve[:, 1], curve[:, 0]) + self._angle) % _TURN
        radii = np.hypot(curve[:, 0], curve[:, 1]) * self.scale
        order = angles.argsort()
        order = np.concatenate([order[-1:], order, order[:1]])
        angles, radii = angles[order], radii[order]
        angles[0] -= _TURN
        angles[-1] += _TURN
        return np.interp(DIRECTIONS, angles, radii).astype(np.float32)

    def blob(
        self, center: Point, outer: np.ndarray, inner: np.ndarray | None = None
    ) -> "Blob":
        """The area inside `outer` and outside `inner`, ready to be filled."""
        x, y = self._to_pixels(*center)
        column, row = round(x), round(y)
        half = _SECTORS // 2  # directions below the center; the others are above
        window = self._window(
            (column - outer.max(), column + outer.max()),
            (row - outer[half:].max(), row + outer[:half].max()),
        )
        rows, columns = window
        table = (
            slice(rows.start - row + _REACH, rows.stop - row + _REACH),
            slice(columns.start - column + _REACH, columns.stop - column + _REACH),
        )
        return Blob(
            lambda mask, color: self._layers.append((None, (window, mask), color)),
            (_SECTOR[table], _RADIUS[table]),
            outer,
            inner,
        )

    def finish(self) -> np.ndarray:
        """Blends everything noted down, in order, and returns the pixels."""
        for kind in self._kinds.values():
            kind.compute()
        for kind, shape, color in self._layers:
            (rows, columns), mask = shape if kind is None else kind.get(shape)
            region = self.pixels[:, rows, columns]
            paint = (color.reshape(3, 1, 1) if color.ndim == 1 else color) - region
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

    def _window(self, across: Point, down: Point) -> tuple[slice, slice]:
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
        tilt: float,
        units: Point,
        parameters: tuple[float, ...],
        color: Color,
        both: bool,
    ) -> None:
        """Notes a shape down.

        Args:
          mask: the kind of shape: the function that computes its mask.
          center: origin of the shape's own coordinates, in the face's.
          halves: half the size of its bounding box along its own axes.
          tilt: angle of its first axis, radians.
          units: pixels per unit of its own coordinates.
          parameters: what else `mask` takes.
          color: (3,) float32.
          both: also the mirrored one.
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
            axes = (a, b, -a * x - b * y, c, d, -c * x - d * y)
            self._layers.append((kind, kind.add(window, axes + parameters), color))

    def _ellipse(
        self,
        center: Point,
        radii: Point,
        margin: float,
        parameters: tuple[float, ...],
        color: Color,
        both: bool,
    ) -> None:
        halves = (radii[0] + margin, radii[1] + margin)
        units = (radii[0] * self.scale, radii[1] * self.scale)
        parameters = (4 / units[0] ** 2, 4 / units[1] ** 2, *parameters)
        self._note(_ellipses, center, halves, 0.0, units, parameters, color, both)

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
            offset * scale,
            (bows[0] + bows[1]) / 2 * scale,
            (bows[1] - bows[0]) / 2 * scale,
            half * scale,
            half_width * scale,
            alpha,
        )
        halves, units = (half + half_width, (bottom - top) / 2), (half * scale, 1.0)
        self._note(_lenses, center, halves, tilt, units, parameters, color, both)

    def _polygon(self, points: list[Point], color: Color) -> None:
        corners = np.array([self._to_pixels(*point) for point in points], np.float32)
        low, high = corners.min(axis=0), corners.max(axis=0)
        rows, columns = self._window((low[0], high[0]), (low[1], high[1]))
        x = np.arange(columns.start, columns.stop, dtype=np.float32)
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        following = np.roll(corners, -1, axis=0)
        distances = []
        for (x0, y0), (x1, y1) in zip(corners, following, strict=True):
            length = math.hypot(x1 - x0, y1 - y0)
            cos, sin = (x1 - x0) / length, (y1 - y0) / length
            distances.append((y - y0) * cos - (x - x0) * sin)
        mask = _ramp(functools.reduce(np.minimum, distances))
        self._layers.append((None, ((rows, columns), mask), color))


class Blob:
    """A star-shaped area, its mask and its polar coordinates.

    Attributes:
      mask: (h, w) float32, coverage 0..1.
      sector: (h, w) direction of each pixel, an index of `DIRECTIONS`.
    """

    def __init__(
        self,
        paint: Callable[[np.ndarray, Color], None],
        table: tuple[np.ndarray, np.ndarray],
        outer: np.ndarray,
        inner: np.ndarray | None,
    ):
        self._paint = paint
        self.sector, self._radius = table
        self._outer = outer
        self.mask = outer.take(self.sector, mode="clip")
        self.mask -= self._radius
        if inner is not None:
            inside = inner.take(self.sector, mode="clip")
            np.subtract(self._radius, inside, out=inside)
            np.minimum(self.mask, inside, out=self.mask)
        _ramp(self.mask)

    def depth(self, steps: float) -> np.ndarray:
        """(h, w) float32: 0 at the center, `steps` on the outer edge."""
        depth = (steps / self._outer).take(self.sector, mode="clip")
        depth *= self._radius
        return depth

    def fill(
        self, color: Color, alpha: float = 1.0, tone: np.ndarray | None = None
    ) -> None:
        """Blends a color in, multiplied by `tone` (h, w) if there is one."""
        if tone is not None:
            color = color.reshape(3, 1, 1) * tone
        mask = self.mask if alpha == 1.0 else self.mask * np.float32(alpha)
        self._paint(mask, color)


class _Kind:
    """All shapes of one kind, whose masks are computed at once."""

    def __init__(self, mask: Callable[..., np.ndarray]):
        self._mask = mask
        self._windows: list[tuple[slice, slice]] = []
        self._parameters: list[tuple[float, ...]] = []
        self._masks: list[np.ndarray] = []

    def add(self, window: tuple[slice, slice], parameters: tuple[float, ...]) -> int:
        """Notes a shape: where it lies, two axes (6 numbers), what `mask` takes."""
        self._windows.append(window)
        self._parameters.append(parameters)
        return len(self._windows) - 1

    def get(self, shape: int) -> tuple[tuple[slice, slice], np.ndarray]:
        return self._windows[shape], self._masks[shape]

    def compute(self) -> None:
        """Computes `_masks`, on the pixels of all windows one after the other."""
        boxes = np.array(
            [(r.start, r.stop - r.start, c.start, c.stop - c.start)
             for r, c in self._windows],
            np.intp,
        ).reshape(-1, 4)
        tops, heights, lefts, widths = boxes.T
        ends = np.cumsum(heights * widths)
        # Of every row of every window: its shape, its y, and where its pixels end.
        shape = np.repeat(np.arange(len(boxes)), heights)
        y = np.arange(len(shape)) - (np.cumsum(heights) - heights - tops)[shape]
        width = widths[shape]
        row_ends = np.cumsum(width)
        # Of every pixel: its shape and its x.
        x = np.arange(row_ends[-1] if len(row_ends) else 0)
        x -= np.repeat(row_ends - width - lefts[shape], width)
        x = x.astype(np.float32)
        pixel_shape = np.repeat(shape, width)
        a, b, c, d, e, f, *rest = np.array(self._parameters, np.float32).T
        u = np.repeat(b[shape] * y + c[shape], width).astype(np.float32)
        u += a.take(pixel_shape) * x
        v = np.repeat(e[shape] * y + f[shape], width).astype(np.float32)
        v += d.take(pixel_shape) * x
        flat = self._mask(u, v, *[column.take(pixel_shape) for column in rest])
        self._masks = [
            piece.reshape(height, width)
            for piece, height, width in zip(
                np.split(flat, ends[:-1]), heights.tolist(), widths.tolist(), strict=True
            )
        ]


def _ellipses(u, v, slope_u, slope_v, middle, half_width, alpha) -> np.ndarray:
    """Ellipses and rings; u² + v² is 1 on the edge.

    The distance to the edge is, to first order, f / |gradient of f|.
    """
    u *= u
    v *= v
    slope_u *= u
    slope_v *= v
    slope_u += slope_v
    slope_u += 1e-6
    np.sqrt(slope_u, out=slope_u)
    u += v
    np.subtract(1, u, out=u)
    u /= slope_u
    u -= middle
    half_width -= np.abs(u, out=u)
    return np.multiply(_ramp(half_width), alpha, out=alpha)


def _glows(u, v, alpha) -> np.ndarray:
    """Soft spots; u² + v² is 1 on the edge."""
    u *= u
    v *= v
    u += v
    np.subtract(1, u, out=u)
    np.maximum(u, 0, out=u)
    u *= u
    return np.multiply(u, alpha, out=alpha)


def _lenses(u, v, offset, middle, spread, half, half_width, alpha) -> np.ndarray:
    """Lenses and strokes; u is -1 and 1 on the chord's ends, v is in pixels.

    Inside is where |v - middle * arch| <= spread * arch + half_width.
    """
    v += offset  # now from the chord, no more from the box's middle
    arch = u * u
    np.subtract(1, arch, out=arch)
    middle *= arch
    v -= middle
    np.abs(v, out=v)
    spread *= arch
    spread += half_width
    spread -= v
    np.abs(u, out=u)
    np.subtract(1, u, out=u)
    u *= half
    u += half_width
    np.minimum(spread, u, out=spread)
    return np.multiply(_ramp(spread), alpha, out=alpha)


@functools.cache
def _neighbors(count: int) -> np.ndarray:
    """(count, 4): the points that shape each segment of a closed curve."""
    return (np.arange(count)[:, None] + np.array([-1, 0, 1, 2])) % count


def _ramp(distance: np.ndarray) -> np.ndarray:
    """Coverage of a pixel at this signed distance inside an edge, in place."""
    distance += 0.5
    np.maximum(distance, 0, out=distance)
    return np.minimum(distance, 1, out=distance)
