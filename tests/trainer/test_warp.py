"""The warp against TensorFlow's own operation and against plain arithmetic."""

import math

import numpy as np
import pytest
import tensorflow as tf

from trainer import warp

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 23, 17, 3), np.uint8)
PARAMETERS = np.array(
    [[0.3, 0.1, -0.2, -1.0], [-0.2, -0.15, 0.05, 1.0], [0.0, 0.0, 0.0, -1.0]], "float32"
)


def reference(image, parameters, size):
    """The composed map and its sampling, pixel by pixel."""
    height, width = image.shape[:2]
    angle, shift_x, shift_y, flip = parameters.astype(float)
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    rotation = np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    out = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            stretched = np.array(
                [(column + 0.5) * width / size - 0.5, (row + 0.5) * height / size - 0.5]
            )
            moved = (stretched - center) * [flip, 1]
            moved = moved + [shift_x * width, shift_y * height]
            x, y = center + rotation @ moved
            x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
            left, top = int(x), int(y)
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
            upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (
                x - left
            )
            out[row, column] = upper * (1 - y + top) + lower * (y - top)
    return out


def test_warp_equals_plain_arithmetic():
    got = warp.compiled(20)(IMAGES, PARAMETERS).numpy()
    want = [
        reference(image, row, 20) for image, row in zip(IMAGES, PARAMETERS, strict=True)
    ]
    np.testing.assert_allclose(got, want, atol=0.0255)


def test_warp_equals_tensorflow_projective_transform():
    matrices = warp._matrices(tf.constant(PARAMETERS), (23, 17), 20).numpy()
    transforms = np.concatenate([matrices.reshape(3, 6), np.zeros((3, 2))], axis=1)
    want = tf.raw_ops.ImageProjectiveTransformV3(
        images=IMAGES.astype("float32"),
        transforms=transforms.astype("float32"),
        output_shape=[20, 20],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
    got = warp.compiled(20)(IMAGES, PARAMETERS)
    np.testing.assert_allclose(got, want, atol=0.0255)


@pytest.mark.parametrize("size", [17, 20, 31])
def test_no_parameters_is_a_bilinear_stretch(size):
    want = tf.image.resize(IMAGES, [size, size])
    np.testing.assert_allclose(warp.stretch(IMAGES, size), want, atol=0.0255)


def test_shrinking_averages_blocks_first():
    image = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(1, 8, 12, 3)
    blocks = image.astype(float).reshape(1, 4, 2, 4, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(warp.stretch(image, 4), blocks, atol=0.0255)


def test_draw_keeps_to_its_ranges_and_reaches_their_ends():
    uniform = np.stack([np.zeros(4), np.full(4, 1 - 1e-7), np.full(4, 0.5)])
    low, high, middle = np.array(
        warp.draw(uniform.astype("float32"), 20, (0.1, 0.2), True)
    )
    np.testing.assert_allclose(low, [-math.radians(20), -0.1, -0.2, -1], rtol=1e-5)
    np.testing.assert_allclose(high, [math.radians(20), 0.1, 0.2, 1], rtol=1e-5)
    np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-6)


def test_a_flip_mirrors_and_a_shift_moves():
    flipped = warp.warp(IMAGES[:1], np.array([[0, 0, 0, -1.0]], "float32"), 17)
    plain = warp.stretch(IMAGES[:1], 17)
    np.testing.assert_allclose(flipped, np.array(plain)[:, :, ::-1], atol=0.0255)
    square = IMAGES[:1, :17]
    moved = warp.warp(square, np.array([[0, 2 / 17, 0, 1.0]], "float32"), 17)
    np.testing.assert_allclose(
        np.array(moved)[:, :, :-2], square[:, :, 2:].astype("float32"), atol=0.0255
    )
