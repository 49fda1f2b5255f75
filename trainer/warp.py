"""One warp: flip, rotation, shift and the stretch to the model's input, sampled once.

The stages of a usual augmentation pipeline each read and write every pixel; composed
into one affine map per image they cost one bilinear sampling. Parameters are drawn
first (`draw`), then applied by a pure function (`warp`), so a test can recompute
every pixel. Ranges are those of Keras' ImageDataGenerator; outside the image the
nearest pixel is repeated.

Runs on Keras' TensorFlow and JAX backends; no TensorFlow at import.
"""

import functools
import math
from typing import Any

import keras
from keras import ops

#: Columns of the parameters: radians, share of the width, share of the height, ±1.
ROTATION, SHIFT_X, SHIFT_Y, FLIP = range(4)
NUM_PARAMETERS = 4


def draw(uniform: Any, rotation: float, shift: tuple[float, float], flip: bool) -> Any:
    """Turns uniform numbers into warp parameters.

    Args:
      uniform: (..., 4) float32 in 0..1.
      rotation: ± degrees.
      shift: (± share of the width, ± share of the height).
      flip: mirror half of the images.

    Returns:
      (..., 4) float32: radians, share of the width, share of the height, ±1.
    """
    centered = 2 * uniform - 1
    sides = ops.where(uniform[..., FLIP] < 0.5, -1.0, 1.0)
    return ops.stack(
        [
            centered[..., ROTATION] * math.radians(rotation),
            centered[..., SHIFT_X] * shift[0],
            centered[..., SHIFT_Y] * shift[1],
            sides if flip else ops.ones_like(sides),
        ],
        axis=-1,
    )


def warp(images: Any, parameters: Any, size: int) -> Any:
    """Warps and stretches a batch.

    Args:
      images: (batch, height, width, 3) uint8, 0..255.
      parameters: (batch, 4) float32, as `draw` makes them.
      size: side of the output, pixels.

    Returns:
      (batch, size, size, 3) float32, 0..255.
    """
    return _sample(images, _matrices(parameters, images.shape[1:3], size), size)


def stretch(images: Any, size: int) -> Any:
    """The warp without augmentation: a bilinear stretch to (size, size).

    Args and result as for `warp`. Shrinking by 2 or more averages blocks first.
    """
    return warp(images, identity(ops.shape(images)[0]), size)


def identity(batch: Any) -> Any:
    """(batch, 4) float32 parameters that change nothing."""
    return ops.tile(ops.array([[0.0, 0.0, 0.0, 1.0]], "float32"), [batch, 1])


@functools.cache
def compiled(size: int):
    """`warp` to one size, compiled with XLA: its gathers are ten times slower without.

    Returns a function (images, parameters) -> (batch, size, size, 3) float32.
    """
    function = functools.partial(warp, size=size)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def _matrices(parameters: Any, shape: tuple[int, int], size: int) -> Any:
    """Composes (batch, 2, 3) maps from output pixels to input pixels (x, y).

    With c the center: source = c + R(angle) (F (stretched - c) + shift), where
    stretched = (output + 1/2) · side / size - 1/2 aligns the pixels' edges.
    """
    height, width = shape
    cosine, sine = ops.cos(parameters[:, ROTATION]), ops.sin(parameters[:, ROTATION])
    flip = parameters[:, FLIP]
    scale_x, scale_y = width / size, height / size
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    # Where output pixel (0, 0) lies, relative to the center, flipped and shifted.
    start_x = flip * (scale_x / 2 - 0.5 - center_x) + parameters[:, SHIFT_X] * width
    start_y = scale_y / 2 - 0.5 - center_y + parameters[:, SHIFT_Y] * height
    rows = [
        [cosine * flip * scale_x, -sine * scale_y],
        [sine * flip * scale_x, cosine * scale_y],
    ]
    rows[0].append(center_x + cosine * start_x - sine * start_y)
    rows[1].append(center_y + sine * start_x + cosine * start_y)
    return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=1)


def _sample(images: Any, matrices: Any, size: int) -> Any:
    """Samples images bilinearly at (batch, 2, 3) maps of the output grid."""
    height, width = images.shape[1:3]
    blocks = max(1, height // size), max(1, width // size)
    if blocks != (1, 1):
        images = _average_blocks(images, blocks)
    grid = ops.arange(size, dtype="float32")
    x, y = grid[None, None, :], grid[None, :, None]
    rows = ops.reshape(matrices, (-1, 2, 3, 1, 1))
    source = [
        rows[:, axis, 0] * x + rows[:, axis, 1] * y + rows[:, axis, 2]
        for axis in range(2)
    ]
    # The maps count pixels of the original; after averaging there are fewer.
    source_x = (source[0] + 0.5) / blocks[1] - 0.5
    source_y = (source[1] + 0.5) / blocks[0] - 0.5
    return _bilinear(images, source_x, source_y)


def _bilinear(images: Any, x: Any, y: Any) -> Any:
    """Reads (batch, h, w, 3) images at float positions (batch, size, size)."""
    height, width = images.shape[1:3]
    x = ops.clip(x, 0.0, width - 1.0)
    y = ops.clip(y, 0.0, height - 1.0)
    left, top = ops.floor(x), ops.floor(y)
    weight_x, weight_y = (x - left)[..., None], (y - top)[..., None]
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")
    right, bottom = ops.minimum(left + 1, width - 1), ops.minimum(top + 1, height - 1)
    batch = ops.shape(images)[0]
    pixels = ops.reshape(images, (-1, 3))
    first = ops.arange(batch, dtype="int32")[:, None, None] * (height * width)

    def read(row, column):
        index = first + row * width + column
        return ops.cast(ops.take(pixels, index, axis=0), "float32")

    upper = _mix(read(top, left), read(top, right), weight_x)
    lower = _mix(read(bottom, left), read(bottom, right), weight_x)
    return _mix(upper, lower, weight_y)


def _mix(first: Any, second: Any, weight: Any) -> Any:
    return first + (second - first) * weight


def _average_blocks(images: Any, blocks: tuple[int, int]) -> Any:
    """Averages blocks of (rows, columns); the far edge is repeated to fill the last."""
    height, width = images.shape[1:3]
    rows, columns = -(-height // blocks[0]), -(-width // blocks[1])
    padding = rows * blocks[0] - height, columns * blocks[1] - width
    images = ops.cast(images, "float32")
    if padding != (0, 0):
        edges = [[0, 0], [0, padding[0]], [0, padding[1]], [0, 0]]
        images = ops.pad(images, edges, mode="symmetric")
    shape = (-1, rows, blocks[0], columns, blocks[1], 3)
    return ops.mean(ops.reshape(images, shape), axis=(2, 4))
