"""Coverage masks: how much of each pixel a shape covers, 0..1, float32.

Each is a ramp, one pixel wide, over the signed distance to the shape's edge. `Batch`
computes those of all small shapes of a kind at once: numpy's overhead per call would
otherwise be most of the time.
"""

import copy
import functools
import math
from collections.abc import Callable

import numpy as np

#: Rows and columns of the picture.
Window = tuple[slice, slice]

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


class Batch:
    """All shapes of one kind, whose masks are computed at once."""

    def __init__(self, mask: Callable[..., np.ndarray]):
        self._mask = mask
        self._windows: list[Window] = []
        self._parameters: list[tuple[float, ...]] = []
        self._masks: list[np.ndarray] = []

    def add(self, window: Window, parameters: tuple[float, ...]) -> int:
        """Notes a shape: where it lies, two axes (6 numbers), what `mask` takes."""
        self._windows.append(window)
        self._parameters.append(parameters)
        return len(self._windows) - 1

    def get(self, shape: int) -> tuple[Window, np.ndarray]:
        return self._windows[shape], self._masks[shape]

    def compute(self) -> None:
        """Computes all masks, on the pixels of the windows one after the other."""
        if not self._windows:
            return
        tops, heights = _starts_and_sizes([rows for rows, _ in self._windows])
        lefts, widths = _starts_and_sizes([columns for _, columns in self._windows])
        # Of every row of every window: its shape, its y, and where its pixels end.
        shape = np.repeat(np.arange(len(heights)), heights)
        y = np.arange(len(shape)) - (np.cumsum(heights) - heights - tops)[shape]
        y = y.astype(np.float32)
        width = widths[shape]
        ends = np.cumsum(width)
        # Of every pixel: its shape and its x.
        x = np.arange(ends[-1]) - np.repeat(ends - width - lefts[shape], width)
        x = x.astype(np.float32)
        pixel = np.repeat(shape, width)
        a, b, c, d, e, f, *rest = np.array(self._parameters, np.float32).T
        u = np.repeat(b[shape] * y + c[shape], width)
        u += a.take(pixel) * x
        v = np.repeat(e[shape] * y + f[shape], width)
        v += d.take(pixel) * x
        flat = self._mask(u, v, *[column.take(pixel) for column in rest])
        ends = np.cumsum(heights * widths).tolist()
        self._masks = [
            flat[end - height * width : end].reshape(height, width)
            for end, height, width in zip(
                ends, heights.tolist(), widths.tolist(), strict=True
            )
        ]


def _starts_and_sizes(parts: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([part.start for part in parts])
    return starts, np.array([part.stop for part in parts]) - starts


def ellipses(u, v, slope_u, slope_v, middle, half_width) -> np.ndarray:
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
    return ramp(half_width)


def glows(u, v) -> np.ndarray:
    """Soft spots; u² + v² is 1 on the edge."""
    u *= u
    v *= v
    u += v
    np.subtract(1, u, out=u)
    np.maximum(u, 0, out=u)
    u *= u
    return u


def lenses(u, v, middle, spread, half, half_width) -> np.ndarray:
    """Lenses and strokes; u is -1 and 1 on the chord's ends, v is in pixels.

    Inside is where |v - middle * arch| <= spread * arch + half_width.
    """
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
    return ramp(spread)


def polygon(corners: np.ndarray, window: Window) -> np.ndarray:
    """(h, w) mask of a convex polygon; `corners` (n, 2) pixels, clockwise."""
    rows, columns = window
    x = np.arange(columns.start, columns.stop, dtype=np.float32)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    distances = []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = math.hypot(x1 - x0, y1 - y0)
        cos, sin = (x1 - x0) / length, (y1 - y0) / length
        distances.append((y - y0) * cos - (x - x0) * sin)
    return ramp(functools.reduce(np.minimum, distances))


def outline(points: np.ndarray, angle: float, scale: float) -> np.ndarray:
    """The smooth closed curve through `points` as a radius per direction.

    Args:
      points: (n, 2) float, about the center; the curve must be star-shaped, that is,
        every ray from the center crosses it once.
      angle: radians by which to turn it.
      scale: factor by which to enlarge it.

    Returns:
      (2048,) float32, pixels, one per element of `DIRECTIONS`.
    """
    curve = (_SPLINE @ points[_neighbors(len(points))]).reshape(-1, 2)
    angles = (np.arctan2(curve[:, 1], curve[:, 0]) + angle) % _TURN
    radii = np.hypot(curve[:, 0], curve[:, 1]) * scale
    order = angles.argsort()
    order = np.concatenate([order[-1:], order, order[:1]])
    angles, radii = angles[order], radii[order]
    angles[0] -= _TURN
    angles[-1] += _TURN
    return np.interp(DIRECTIONS, angles, radii).astype(np.float32)


@functools.cache
def _neighbors(count: int) -> np.ndarray:
    """(count, 4): the points that shape each segment of a closed curve."""
    return (np.arange(count)[:, None] + np.array([-1, 0, 1, 2])) % count


class Blob:
    """A star-shaped area: its mask and its polar coordinates.

    Attributes:
      window: rows and columns of the picture that it lies in.
      mask: (h, w) float32, coverage 0..1.
      sector: (h, w) direction of each pixel, an index of `DIRECTIONS`.
    """

    def __init__(self, window: Window, center: tuple[int, int], outer: np.ndarray):
        """Takes a (row, column), and the radii that `outline` returns."""
        self.window = window
        table = tuple(
            slice(part.start - middle + _REACH, part.stop - middle + _REACH)
            for part, middle in zip(window, center, strict=True)
        )
        self.sector, self._radius = _SECTOR[table], _RADIUS[table]
        self._edge = outer.take(self.sector, mode="clip")
        self.mask = ramp(self._edge - self._radius)

    def outside(self, inner: np.ndarray) -> "Blob":
        """What of this blob lies outside another outline around its center."""
        rest = copy.copy(self)
        inside = inner.take(self.sector, mode="clip")
        rest.mask = self.mask * ramp(np.subtract(self._radius, inside, out=inside))
        return rest

    def depth(self, steps: float) -> np.ndarray:
        """(h, w) float32: 0 at the center, `steps` on the outer edge."""
        depth = self._radius / self._edge
        depth *= steps
        return depth


def ramp(distance: np.ndarray) -> np.ndarray:
    """Coverage of a pixel at this signed distance inside an edge, in place."""
    distance += 0.5
    np.maximum(distance, 0, out=distance)
    return np.minimum(distance, 1, out=distance)
