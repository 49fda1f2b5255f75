"""One warp: flip, zoom, rotation, shift and the stretch to the model's input, at once.

The stages of a usual augmentation pipeline each read and write every pixel; composed
into one affine map per image they cost one bilinear sampling. Parameters are drawn
first (`draw`), then applied by a pure function (`warp`), so a test can recompute
every pixel. Ranges are those of Keras' ImageDataGenerator; outside the image the
nearest pixel is repeated.

Runs on Keras' TensorFlow and JAX backends; no TensorFlow at import.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

#: Columns of the parameters: radians, share of the width, share of the height, ±1,
#: scale of the content's distance to the center; then share of 255, factor.
ROTATION, SHIFT_X, SHIFT_Y, FLIP, ZOOM, BRIGHTNESS, CONTRAST = range(7)
NUM_PARAMETERS = 7
#: Parameters that end before BRIGHTNESS leave the colors alone.
_NUM_GEOMETRIC = BRIGHTNESS

#: The range of each strength of `Warp`. A zoom of 1 would look at a single point.
RANGES = {
    "rotation": (0, 180),
    "width_shift": (0, 1),
    "height_shift": (0, 1),
    "zoom": (0, 0.9),
    "brightness": (0, 1),
    "contrast": (0, 1),
}


def draw(
    uniform: Any,
    rotation: float,
    shift: tuple[float, float],
    flip: bool,
    zoom: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> Any:
    """Turns uniform numbers into warp parameters.

    Args:
      uniform: (..., 7) float32 in 0..1.
      rotation: ± degrees.
      shift: (± share of the width, ± share of the height).
      flip: mirror half of the images.
      zoom: the part of the image that is seen has 1 - zoom..1 + zoom times its width
        and height, one factor for both, so below 1 things look larger. (In
        ImageDataGenerator each axis has a factor of its own.)
      brightness: ± share of 255 that is added.
      contrast: contrasts are multiplied by 1 - contrast..1 + contrast.

    Returns:
      (..., 7) float32: radians, share of the width, share of the height, ±1, factor,
      share of 255, factor; without the last two if brightness and contrast are 0, so
      that `warp` computes nothing for them.
    """
    centered = 2 * uniform - 1
    sides = ops.where(uniform[..., FLIP] < 0.5, -1.0, 1.0)
    columns = [
        centered[..., ROTATION] * math.radians(rotation),
        centered[..., SHIFT_X] * shift[0],
        centered[..., SHIFT_Y] * shift[1],
        sides if flip else ops.ones_like(sides),
        1 + centered[..., ZOOM] * zoom,
    ]
    if brightness or contrast:
        columns.append(centered[..., BRIGHTNESS] * brightness)
        columns.append(1 + centered[..., CONTRAST] * contrast)
    return ops.stack(columns, axis=-1)


def warp(images: Any, parameters: Any, size: int | tuple[int, int]) -> Any:
    """Warps and stretches a batch.

    Contrast multiplies each channel's distance to its mean over the image, as
    `tf.image.adjust_contrast` and `keras.layers.RandomContrast` do; the mean is that
    of the image before it is warped. Then brightness is added, as in
    `tf.image.adjust_brightness`, and the result clipped.

    Args:
      images: (batch, height, width, 3) uint8 or float, 0..255.
      parameters: (batch, 5) or (batch, 7) float32, as `draw` makes them.
      size: of the output, pixels: the side, or (height, width).

    Returns:
      (batch, *size, 3) float32, 0..255.
    """
    return _sample(images, parameters, _locate(images, parameters, size), size)


def stretch(images: Any, size: int | tuple[int, int]) -> Any:
    """The warp without augmentation: a bilinear stretch.

    Args and result as for `warp`. Shrinking by 2 or more averages blocks first.
    """
    return warp(images, identity(ops.shape(images)[0]), size)


def identity(batch: Any) -> Any:
    """(batch, 5) float32 parameters that change nothing."""
    return ops.tile(ops.array([[0.0, 0.0, 0.0, 1.0, 1.0]], "float32"), [batch, 1])


def matrices(parameters: Any, shape: tuple[int, int], size: tuple[int, int]) -> Any:
    """Composes (batch, 2, 3) maps from output pixels to input pixels (x, y).

    source = center + R(angle) (zoom · F (output · side / size) + shift), where output
    counts from the center of the output, so that it rounds least, and center and
    source are positions of pixels in the input.

    Args:
      parameters: (batch, 5 or 7) float32, as `draw` makes them.
      shape: (height, width) of the input, pixels.
      size: (height, width) of the output, pixels.
    """
    height, width = shape
    cosine, sine = ops.cos(parameters[:, ROTATION]), ops.sin(parameters[:, ROTATION])
    zoom = parameters[:, ZOOM]
    scale_x = parameters[:, FLIP] * zoom * (width / size[1])
    scale_y = zoom * (height / size[0])
    shift_x, shift_y = parameters[:, SHIFT_X] * width, parameters[:, SHIFT_Y] * height
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    rows = [
        [
            cosine * scale_x,
            -sine * scale_y,
            center_x + cosine * shift_x - sine * shift_y,
        ],
        [
            sine * scale_x,
            cosine * scale_y,
            center_y + sine * shift_x + cosine * shift_y,
        ],
    ]
    return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=1)


@functools.cache
def compiled(size: int | tuple[int, int]) -> Callable[[Any, Any], Any]:
    """`warp` to one size, compiled with XLA: its gathers are ten times slower without.

    These are two programs because XLA would fuse all of it into one loop, and what is
    computed there for an address is not vectorized on processors without fast gathers:
    on an AVX2 CPU that takes 1.2 times as long.

    Returns a function (images, parameters) -> (batch, *size, 3) float32.
    """
    locate = _compile(functools.partial(_locate, size=size))
    sample = _compile(functools.partial(_sample, size=size))

    def function(images, parameters):
        return sample(images, parameters, locate(images, parameters))

    return function


@keras.saving.register_keras_serializable(package="celeba")
class Warp(keras.layers.Layer):
    """The warp as a Keras layer that draws for itself in training.

    With `training=False` it is the plain bilinear stretch. Works under JAX and, on the
    TensorFlow backend, in `tf.data` and inside a `tf.function`, compiled or not.

    Args:
      size: (height, width) of the output, pixels, or the side.
      rotation: ± degrees.
      width_shift: ± share of the width.
      height_shift: ± share of the height.
      horizontal_flip: mirror half of the images.
      zoom: ± change of the scale, the same for both axes; see `draw`.
      brightness: ± share of 255.
      contrast: ± change of the contrast's factor; see `warp`.
      seed: of the draws. TensorFlow draws other numbers inside a compiled function.

    Call arguments and result: images (batch, height, width, 3) uint8 or float, 0..255;
    (batch, *size, 3) float32, 0..255, under every dtype policy.

    Raises:
      ValueError: a strength is outside its range in `RANGES`; a size below 1; images
        without four axes or three channels.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = (224, 224),
        rotation: float = 20,
        width_shift: float = 0.2,
        height_shift: float = 0.2,
        horizontal_flip: bool = True,
        zoom: float = 0,
        brightness: float = 0,
        contrast: float = 0,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = _pair(size)
        self.rotation = rotation
        self.width_shift = width_shift
        self.height_shift = height_shift
        self.horizontal_flip = horizontal_flip
        self.zoom = zoom
        self.brightness = brightness
        self.contrast = contrast
        self.seed = seed
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"{name}={getattr(self, name)}: expected {low}..{high}"
                )
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        _check_images(images.shape)
        batch = ops.shape(images)[0]
        parameters = self.draw(batch) if training else identity(batch)
        return compiled(self.size)(images, parameters)

    def draw(self, batch: Any) -> Any:
        """Draws the parameters of a batch; the next call draws others."""
        return draw(
            keras.random.uniform((batch, NUM_PARAMETERS), seed=self._generator),
            self.rotation,
            (self.width_shift, self.height_shift),
            self.horizontal_flip,
            self.zoom,
            self.brightness,
            self.contrast,
        )

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        _check_images(input_shape)
        return (input_shape[0], *self.size, 3)

    def get_config(self) -> dict[str, Any]:
        own = ("size", *RANGES, "horizontal_flip", "seed")
        return super().get_config() | {name: getattr(self, name) for name in own}


def _check_images(shape: tuple) -> None:
    if len(shape) != 4 or shape[3] != 3 or None in shape[1:3]:
        raise ValueError(
            f"images of shape {tuple(shape)}: expected (batch, height, width, 3) with "
            "known height and width"
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """A size as (height, width)."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"size={size}: expected a side or (height, width) above 0")
    return pair


def _compile(function: Callable) -> Callable:
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def _locate(images: Any, parameters: Any, size: int | tuple[int, int]) -> Any:
    """Where each output pixel lies in its image.

    Returns:
      index: (batch, *size) int32, the upper left of the four pixels around it, counted
        through the batch of what `_shrink` makes of the images.
      weight_x, weight_y: (batch, *size) float32 in 0..1, from that one to the others.
    """
    size = _pair(size)
    blocks = _blocks(images.shape[1:3], size)
    height, width = (
        -(-side // block) for side, block in zip(images.shape[1:3], blocks, strict=True)
    )
    maps = ops.reshape(matrices(parameters, images.shape[1:3], size), (-1, 2, 3, 1, 1))
    # Constants, not `arange`: XLA would count in int64, which AVX2 cannot convert.
    x = (np.arange(size[1]) - (size[1] - 1) / 2).astype("float32")[None, None, :]
    y = (np.arange(size[0]) - (size[0] - 1) / 2).astype("float32")[None, :, None]

    def position(axis, block, side):
        """The pixel before, and the way on from it to the next."""
        row = maps[:, axis]
        source = row[:, 0] * x + (row[:, 1] * y + row[:, 2])
        if block > 1:
            source = (source + 0.5) / block - 0.5
        source = ops.clip(source, 0.0, side - 1.0)
        before = ops.minimum(ops.floor(source), max(side - 2.0, 0.0))
        return ops.cast(before, "int32"), source - before

    left, weight_x = position(0, blocks[1], width)
    top, weight_y = position(1, blocks[0], height)
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None]
    return (first * height + top) * width + left, weight_x, weight_y


def _sample(
    images: Any, parameters: Any, located: tuple, size: int | tuple[int, int]
) -> Any:
    """Interpolates between the four pixels, and changes the colors if asked to."""
    index, weight_x, weight_y = located
    smaller = _shrink(images, _blocks(images.shape[1:3], _pair(size)))
    height, width = smaller.shape[1:3]
    right, below = min(1, width - 1), min(1, height - 1) * width
    pixels = ops.reshape(smaller, (-1, 3))
    count = ops.shape(pixels)[0] - right - below

    def read(offset):
        # One index into four views: XLA computes one address instead of four.
        view = pixels[offset : offset + count]
        return ops.cast(ops.take(view, index, axis=0), "float32")

    weight_x, weight_y = weight_x[..., None], weight_y[..., None]
    corner, beside = read(0), read(right)
    under, across = read(below), read(below + right)
    result = (
        corner
        + (beside - corner) * weight_x
        + (under - corner) * weight_y
        + (corner - beside - under + across) * (weight_x * weight_y)
    )
    if parameters.shape[-1] == _NUM_GEOMETRIC:
        return result
    return _adjust(result, images, parameters)


def _adjust(result: Any, images: Any, parameters: Any) -> Any:
    """Changes contrast, then brightness."""
    brightness, contrast = (
        parameters[:, column, None, None, None] for column in (BRIGHTNESS, CONTRAST)
    )
    means = ops.mean(ops.cast(images, "float32"), axis=(1, 2), keepdims=True)
    return ops.clip(
        (result - means) * contrast + (means + 255 * brightness), 0.0, 255.0
    )


def _blocks(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """How many (rows, columns) become one before sampling, so that none is missed."""
    return max(1, shape[0] // size[0]), max(1, shape[1] // size[1])


def _shrink(images: Any, blocks: tuple[int, int]) -> Any:
    """Averages blocks of (rows, columns); the far edge is repeated to fill the last."""
    if blocks == (1, 1):
        return images
    height, width = images.shape[1:3]
    rows, columns = -(-height // blocks[0]), -(-width // blocks[1])
    padding = rows * blocks[0] - height, columns * blocks[1] - width
    images = ops.cast(images, "float32")
    if padding != (0, 0):
        edges = [[0, 0], [0, padding[0]], [0, padding[1]], [0, 0]]
        images = ops.pad(images, edges, mode="symmetric")
    shape = (-1, rows, blocks[0], columns, blocks[1], 3)
    return ops.mean(ops.reshape(images, shape), axis=(2, 4))
