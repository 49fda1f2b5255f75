"""Augmentation on the device: the warp, its layer, and the table of layers that train.

The warp is flip, zoom, rotation, shift and the resize to the model's input at once. The
stages of a usual augmentation pipeline each read and write every pixel; composed into
one affine map per image they cost one bilinear sampling. Parameters are sampled first,
then applied by a pure function, so a test can recompute every pixel. Ranges are those
of Keras' ImageDataGenerator; outside the image the nearest pixel is repeated.

Runs on Keras' TensorFlow and JAX backends; no TensorFlow at import.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from support.errors import did_you_mean, usage_error
from trainer.config import Augmentation

STRENGTHS = tuple(field.name for field in dataclasses.fields(Augmentation))
NUM_PARAMETERS = len(STRENGTHS)
#: The parameters that change colors; without them `warp` computes nothing for it.
_COLORS = ("brightness", "contrast")


def uniform(seed: Any, step: Any, index: Any, columns: int) -> Any:
    """Draws numbers that seed, step, index and column alone decide.

    Source: pcg4d in Jarzynski and Olano, "Hash Functions for GPU Rendering", Journal of
    Computer Graphics Techniques 9 (3), 2020.

    Args:
      seed: () integer; of it and the next two, the lowest 32 bits.
      step: () integer.
      index: (n,) integers.
      columns: numbers for each index.

    Returns:
      (n, columns) float32 in 0..1, 1 excluded.
    """
    bits = random_bits(seed, step, index, columns)
    return ops.cast(ops.right_shift(bits, np.uint32(8)), "float32") * 2.0**-24


def random_bits(seed: Any, step: Any, index: Any, columns: int) -> Any:
    """Draws (n, columns) uint32; see `uniform`."""
    blocks = np.arange(-(-columns // 4), dtype=np.uint32)[None, :]
    words = [index[:, None], step, seed, blocks]
    x, y, z, w = (
        ops.cast(word, "uint32") * np.uint32(1664525) + np.uint32(1013904223)
        for word in words
    )
    for last in (False, True):
        x = x + y * w
        y = y + z * x
        z = z + x * y
        w = w + y * z
        if not last:
            x, y, z, w = (
                ops.bitwise_xor(word, ops.right_shift(word, np.uint32(16)))
                for word in (x, y, z, w)
            )
    bits = ops.stack([x, y, z, w], axis=-1)
    return ops.reshape(bits, (-1, 4 * blocks.shape[1]))[:, :columns]


def sample_parameters(uniform: Any, strengths: Augmentation) -> dict[str, Any]:
    """Turns uniform numbers into parameters of the warp.

    Args:
      uniform: (..., `NUM_PARAMETERS`) float32 in 0..1, a column for each field of
        `Augmentation`.
      strengths: the ranges. The part of an image that is seen has 1 - zoom..1 + zoom
        times its width and height, one factor for both, so below 1 things look larger.
        (In ImageDataGenerator each axis has a factor of its own.)

    Returns:
      Name -> (...) float32: rotation, radians; width_shift and height_shift, fractions
      of the side; horizontal_flip, 1 or -1; zoom, a factor; brightness, a fraction of
      255, and contrast, a factor, unless both are 0.
    """
    column = {name: uniform[..., place] for place, name in enumerate(STRENGTHS)}
    sides = ops.where(column["horizontal_flip"] < 0.5, -1.0, 1.0)

    def symmetric(name, strength):
        return (2 * column[name] - 1) * strength

    parameters = {
        "rotation": symmetric("rotation", math.radians(strengths.rotation)),
        "width_shift": symmetric("width_shift", strengths.width_shift),
        "height_shift": symmetric("height_shift", strengths.height_shift),
        "horizontal_flip": sides if strengths.horizontal_flip else ops.ones_like(sides),
        "zoom": 1 + symmetric("zoom", strengths.zoom),
        "brightness": symmetric("brightness", strengths.brightness),
        "contrast": 1 + symmetric("contrast", strengths.contrast),
    }
    if strengths.brightness or strengths.contrast:
        return parameters
    return {name: value for name, value in parameters.items() if name not in _COLORS}


def warp(images: Any, parameters: Any, size: int | tuple[int, int]) -> Any:
    """Warps and resizes a batch.

    Contrast multiplies each channel's distance to its mean over the image, as
    `tf.image.adjust_contrast` and `keras.layers.RandomContrast` do; the mean is that
    of the image before it is warped. Then brightness is added, as in
    `tf.image.adjust_brightness`, and the result clipped.

    Args:
      images: (batch, height, width, 3) uint8 or float, 0..255.
      parameters: name -> (batch,) float32, see `sample_parameters`.
      size: of the output, pixels: the side, or (height, width).

    Returns:
      (batch, *size, 3) float32, 0..255.
    """
    return _interpolate(images, parameters, _locate(images, parameters, size), size)


def resize(images: Any, size: int | tuple[int, int]) -> Any:
    """Resizes without augmentation, bilinearly.

    Args and result as for `warp`. Shrinking by 2 or more averages blocks first.
    """
    return warp(images, identity(ops.shape(images)[0]), size)


def identity(batch: Any) -> dict[str, Any]:
    """Parameters of the warp that change nothing: name -> (batch,) float32."""
    zero, one = ops.zeros((batch,), "float32"), ops.ones((batch,), "float32")
    return {
        "rotation": zero,
        "width_shift": zero,
        "height_shift": zero,
        "horizontal_flip": one,
        "zoom": one,
    }


def matrices(parameters: Any, shape: tuple[int, int], size: tuple[int, int]) -> Any:
    """Composes (batch, 2, 3) maps from output pixels to input pixels (x, y).

    source = center + R(angle) (zoom · F (output · side / size) + shift), where output
    counts from the center of the output, so that it rounds least, and center and
    source are positions of pixels in the input.

    Args:
      parameters: name -> (batch,) float32, see `sample_parameters`.
      shape: (height, width) of the input, pixels.
      size: (height, width) of the output, pixels.
    """
    height, width = shape
    angle, zoom = parameters["rotation"], parameters["zoom"]
    cosine, sine = ops.cos(angle), ops.sin(angle)
    scale_x = parameters["horizontal_flip"] * zoom * (width / size[1])
    scale_y = zoom * (height / size[0])
    shift_x = parameters["width_shift"] * width
    shift_y = parameters["height_shift"] * height
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
    interpolate = _compile(functools.partial(_interpolate, size=size))

    def function(images, parameters):
        return interpolate(images, parameters, locate(images, parameters))

    return function


@functools.cache
def compiled_sampler(strengths: Augmentation) -> Callable[[Any, Any, Any], Any]:
    """`sample_parameters` of `uniform` numbers, compiled with XLA.

    Returns a function of seed (), step () and index (n,), all integers.
    """

    def function(seed, step, index):
        sampled = uniform(seed, step, index, NUM_PARAMETERS)
        return sample_parameters(sampled, strengths)

    return _compile(function)


@keras.saving.register_keras_serializable(package="celeba")
class Warp(layers.Layer):
    """The warp as a Keras layer; with `training=False` the plain bilinear resize.

    Works under JAX and, on the TensorFlow backend, in `tf.data` and inside a
    `tf.function`, compiled or not.

    Args:
      size: (height, width) of the output, pixels, or the side.
      seed: of the parameters.
      **strengths: fields of `trainer.config.Augmentation`, which has their defaults.

    Call arguments:
      images: (batch, height, width, 3) uint8 or float, 0..255.
      training: sample parameters, others at each call like any Keras layer.
      step: () integer: then it is what the parameters depend on, with the seed and the
        index, and the layer keeps no count.
      index: (batch,) integers, the images' numbers in the batch; counted from 0 if left
        out.

    Returns:
      (batch, *size, 3) float32, 0..255, under every dtype policy.

    Raises:
      ValueError: a strength is outside its range; a size below 1; images without four
        axes or three channels.
    """

    def __init__(
        self, size: int | tuple[int, int] = (224, 224), seed: int = 0, **strengths
    ):
        own = {name: strengths.pop(name) for name in STRENGTHS if name in strengths}
        super().__init__(**{"dtype": "float32", **strengths})
        self.size = _pair(size)
        self.seed = seed
        self.strengths = Augmentation(**own)
        self._generator = keras.random.SeedGenerator(seed)

    def call(
        self, images: Any, training: bool = False, step: Any = None, index: Any = None
    ) -> Any:
        _check_images(images.shape)
        batch = ops.shape(images)[0]
        if not training:
            return compiled(self.size)(images, identity(batch))
        seed = np.uint32(self.seed)
        if step is None:
            seed, step = ops.unstack(self._generator.next())
        if index is None:
            index = ops.arange(batch)
        seed = ops.cast(seed, "uint32")
        parameters = compiled_sampler(self.strengths)(seed, step, index)
        return compiled(self.size)(images, parameters)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        _check_images(input_shape)
        return (input_shape[0], *self.size, 3)

    def get_config(self) -> dict[str, Any]:
        own = {"size": self.size, "seed": self.seed}
        return super().get_config() | own | dataclasses.asdict(self.strengths)


Layers = list[layers.Layer]
#: Keras' name for the variable of a SeedGenerator.
_SEED = "seed_generator_state"


def _warp_layers(strengths: Augmentation, size: int, seed: int) -> Layers:
    return [Warp(size, seed, **dataclasses.asdict(strengths))]


def _keras_layers(strengths: Augmentation, size: int, seed: int) -> Layers:
    """Keras' stock layers with the warp's ranges, before the resize."""
    stack = []
    if strengths.horizontal_flip:
        stack.append(layers.RandomFlip("horizontal", dtype="float32"))
    kinds = {
        layers.RandomRotation: (strengths.rotation / 360,),
        layers.RandomTranslation: (strengths.height_shift, strengths.width_shift),
        layers.RandomZoom: (strengths.zoom,),
    }
    for kind, factors in kinds.items():
        if any(factors):
            stack.append(kind(*factors, fill_mode="nearest", dtype="float32"))
    if strengths.brightness:
        stack.append(layers.RandomBrightness(strengths.brightness, dtype="float32"))
    if strengths.contrast:
        stack.append(layers.RandomContrast(strengths.contrast, dtype="float32"))
    return [*stack, *_no_layers(strengths, size, seed)]


def _erasing_layers(strengths: Augmentation, size: int, seed: int) -> Layers:
    """The warp, then a rectangle of noise in every image."""
    erasing = layers.RandomErasing(dtype="float32")
    return [*_warp_layers(strengths, size, seed), erasing]


def _no_layers(_strengths: Augmentation, size: int, _seed: int) -> Layers:
    return [Warp(size, **dict.fromkeys(STRENGTHS, 0))]


#: Values of --augment: the layers between the images of a batch and the model. A new
#: one is one entry; docs/extending.md adds one.
AUGMENTATIONS: dict[str, Callable[[Augmentation, int, int], Layers]] = {
    "warp": _warp_layers,
    "keras": _keras_layers,
    "erasing": _erasing_layers,
    "none": _no_layers,
}


def check(name: str) -> None:
    """Raises UserError (exit 2) unless `AUGMENTATIONS` has an entry of this name."""
    if name not in AUGMENTATIONS:
        raise usage_error(
            f"--augment={name} is none of {', '.join(AUGMENTATIONS)}.",
            did_you_mean(name, AUGMENTATIONS),
        )


class Augmenter:
    """The layers of an entry of `AUGMENTATIONS`, drawing the same for the same step.

    Args:
      name: of the entry.
      strengths: the ranges.
      size: side of the model's input, pixels.
      seed: of everything that is random.

    Raises:
      UserError: there is no such entry (exit 2).
    """

    def __init__(self, name: str, strengths: Augmentation, size: int, seed: int):
        check(name)
        self._seed = np.uint32(seed)
        self._layers = AUGMENTATIONS[name](strengths, size, seed)

    def __call__(self, images: Any, step: Any, index: Any, replica: Any = 0) -> Any:
        """Augments a batch, or a replica's part of it.

        Args:
          images: (batch, height, width, 3) uint8, 0..255.
          step: () integer.
          index: (batch,) integers, the images' positions in the global batch: from
            them the warp draws. Keras' own layers draw from the replica's number.
          replica: () integer.

        Returns:
          (batch, size, size, 3) float32, 0..255.
        """
        replica = ops.reshape(replica, (1,))
        keys = random_bits(self._seed, step, replica, len(self._layers))[0]
        for number, layer in enumerate(self._layers):
            if isinstance(layer, Warp):
                images = layer(images, training=True, step=step, index=index)
            else:
                images = _stateless(layer, images, keys[number])
        return images


def _stateless(layer: layers.Layer, images: Any, key: Any) -> Any:
    """Calls a layer in training with its random state made from a key, () uint32."""
    seeds = [v for v in layer.non_trainable_variables if v.name == _SEED]
    states = []
    for number, variable in enumerate(seeds):
        start = ops.stack([key + np.uint32(number), ops.zeros_like(key)])
        states.append((variable, ops.cast(start, variable.dtype)))
    with keras.StatelessScope(state_mapping=states):
        return layer(images, training=True)


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
    """Position of each output pixel in its image.

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


def _interpolate(
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
    if "contrast" not in parameters:
        return result
    return _adjust(result, images, parameters)


def _adjust(result: Any, images: Any, parameters: Any) -> Any:
    """Changes contrast, then brightness."""
    brightness, contrast = (parameters[name][:, None, None, None] for name in _COLORS)
    means = ops.mean(ops.cast(images, "float32"), axis=(1, 2), keepdims=True)
    return ops.clip(
        (result - means) * contrast + (means + 255 * brightness), 0.0, 255.0
    )


def _blocks(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Sides (rows, columns) of the blocks that become one pixel before sampling."""
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
