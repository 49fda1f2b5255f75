"""The warp against TensorFlow's own operations and against plain arithmetic."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import config, warp

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 23, 17, 3), np.uint8)
GEOMETRIC = {"rotation": 20, "shift": (0.2, 0.2), "flip": True, "zoom": 0.3}
#: 1e-4 of the range.
TOLERANCE = 0.0255


def random_parameters(count, **strengths):
    # Of its own: what one test draws must not depend on those that ran before it.
    rng = np.random.default_rng(1)
    uniform = rng.random((count, warp.NUM_PARAMETERS), np.float32)
    return np.array(warp.draw(uniform, **(strengths or GEOMETRIC)))


def parameters(rotation=0.0, shift_x=0.0, shift_y=0.0, flip=1.0, zoom=1.0):
    """The parameters of one image."""
    return np.array([[rotation, shift_x, shift_y, flip, zoom]], "float32")


def rotation_matrix(angle):
    return np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )


def reference(image, drawn, size):
    """Flip, zoom, shift and rotation of each output position, then its four pixels."""
    height, width = image.shape[:2]
    angle, shift_x, shift_y, flip, zoom = drawn[:5].astype(float)
    center = np.array([width - 1, height - 1]) / 2
    rows, columns = np.mgrid[: size[0], : size[1]]
    stretched = np.stack(
        [(columns + 0.5) * width / size[1], (rows + 0.5) * height / size[0]], axis=-1
    )
    moved = (stretched - 0.5 - center) * [flip * zoom, zoom]
    moved = moved + [shift_x * width, shift_y * height]
    position = np.clip(
        center + moved @ rotation_matrix(angle).T, 0, [width - 1, height - 1]
    )
    left, top = np.floor(position).astype(int).transpose(2, 0, 1)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = (position - np.stack([left, top], -1)).transpose(2, 0, 1)[..., None]
    upper = image[top, left] * (1 - x) + image[top, right] * x
    lower = image[bottom, left] * (1 - x) + image[bottom, right] * x
    return upper * (1 - y) + lower * y


def projective(images, drawn, size):
    """TensorFlow's operation on the same matrices."""
    matrices = np.array(warp.matrices(drawn, images.shape[1:3], size))
    # Ours count output pixels from the center, TensorFlow's from the corner.
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    matrices[:, :, 2] -= matrices[:, :, :2] @ middle
    flat = np.pad(matrices.reshape(-1, 6), [[0, 0], [0, 2]])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images.astype("float32"),
        transforms=flat.astype("float32"),
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


@pytest.mark.parametrize(
    "shape, size",
    [
        ((23, 17), (20, 20)),
        ((23, 17), (41, 33)),
        ((23, 17), (12, 9)),
        ((24, 16), (13, 31)),
        ((1, 5), (4, 7)),
        ((6, 1), (5, 3)),
    ],
)
def test_warp_equals_tensorflow_and_plain_arithmetic(shape, size):
    images = np.random.default_rng(2).integers(0, 256, (6, *shape, 3), np.uint8)
    drawn = random_parameters(6)
    got = warp.warp(images, drawn, size)
    pairs = zip(images, drawn, strict=True)
    want = [reference(image, row, size) for image, row in pairs]
    np.testing.assert_allclose(got, want, atol=TOLERANCE)
    np.testing.assert_allclose(got, projective(images, drawn, size), atol=TOLERANCE)


def test_compiled_is_the_same_for_a_whole_size_of_bytes_or_floats():
    drawn = random_parameters(3)
    want = [
        reference(image, row, (20, 20))
        for image, row in zip(IMAGES, drawn, strict=True)
    ]
    for images in (IMAGES, IMAGES.astype("float32")):
        got = warp.compiled(20)(images, drawn)
        assert got.dtype == "float32"
        np.testing.assert_allclose(got, want, atol=TOLERANCE)


@pytest.mark.parametrize("size", [17, 20, 31, (15, 40)])
def test_no_parameters_is_a_bilinear_stretch(size):
    want = tf.image.resize(IMAGES, [size, size] if isinstance(size, int) else size)
    np.testing.assert_allclose(warp.stretch(IMAGES, size), want, atol=TOLERANCE)


def test_shrinking_averages_blocks_first():
    image = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(1, 8, 12, 3)
    blocks = image.astype(float).reshape(1, 4, 2, 4, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(warp.stretch(image, 4), blocks, atol=TOLERANCE)
    # A last block that is not full repeats the edge.
    odd = np.array([10, 20, 30, 40, 90], np.uint8)[None, None, :, None].repeat(3, 3)
    got = warp.stretch(odd, (1, 2))[0, 0, :, 0]
    want = [15 + 20 / 8, 35 + 55 * 3 / 8]  # between blocks of 15, 35 and 90
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_draw_keeps_to_its_ranges_and_reaches_their_ends():
    uniform = np.stack([np.zeros(7), np.full(7, 1 - 1e-7), np.full(7, 0.5)])
    low, high, middle = np.array(
        warp.draw(uniform.astype("float32"), 20, (0.1, 0.2), True, 0.3, 0.4, 0.5)
    )
    turn = math.radians(20)
    np.testing.assert_allclose(low, [-turn, -0.1, -0.2, -1, 0.7, -0.4, 0.5], rtol=1e-5)
    np.testing.assert_allclose(high, [turn, 0.1, 0.2, 1, 1.3, 0.4, 1.5], rtol=1e-5)
    np.testing.assert_allclose(middle, [0, 0, 0, 1, 1, 0, 1], atol=1e-6)


def test_draw_takes_one_example_or_a_batch_and_draws_nothing_without_strengths():
    uniform = np.random.default_rng(3).random((4, warp.NUM_PARAMETERS), np.float32)
    batch = np.array(warp.draw(uniform, **GEOMETRIC, contrast=0.1))
    assert batch.shape == (4, 7)
    one = warp.draw(uniform[2], **GEOMETRIC, contrast=0.1)
    np.testing.assert_array_equal(one, batch[2])
    none = np.array(warp.draw(uniform, 0, (0, 0), False))
    np.testing.assert_array_equal(none, np.array(warp.identity(4)))


def test_flip_and_shift_and_zoom_and_rotation_have_their_senses():
    square = IMAGES[:1, :17].astype("float32")

    def warped(**values):
        return np.array(warp.warp(square, parameters(**values), 17))

    flipped = warped(flip=-1)
    np.testing.assert_allclose(flipped, square[:, :, ::-1], atol=TOLERANCE)
    left, up = warped(shift_x=2 / 17), warped(shift_y=3 / 17)
    np.testing.assert_allclose(left[:, :, :-2], square[:, :, 2:], atol=TOLERANCE)
    np.testing.assert_allclose(up[:, :-3], square[:, 3:], atol=TOLERANCE)
    # What leaves the image is its nearest pixel.
    edge = np.broadcast_to(square[:, :, -1:], (1, 17, 2, 3))
    np.testing.assert_allclose(left[:, :, -2:], edge, atol=TOLERANCE)
    half = warped(zoom=0.5)
    np.testing.assert_allclose(half[:, ::2, ::2], square[:, 4:13, 4:13], atol=TOLERANCE)
    # A positive angle turns the picture counterclockwise.
    turned = warped(rotation=math.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(square, 1, (1, 2)), atol=TOLERANCE)


# Keras asks for SciPy's functions by an old name.
@pytest.mark.filterwarnings("ignore:Please import `affine:DeprecationWarning")
def test_the_senses_are_those_of_image_data_generator():
    generator = tf.keras.preprocessing.image.ImageDataGenerator(fill_mode="nearest")
    # Square, because it turns others about a point that is not their center.
    image = IMAGES[0, :17].astype("float32")
    moves = {"theta": 15, "tx": 4, "ty": -3, "zx": 0.9, "zy": 0.9}
    want = generator.apply_transform(image, moves | {"flip_horizontal": True})
    drawn = parameters(math.radians(15), 4 / 17, -3 / 17, -1, 0.9)
    got = warp.warp(image[None], drawn, 17)[0]
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_the_flip_is_that_of_the_picture_and_comes_last():
    values = {"rotation": 0.3, "shift_x": 0.1, "shift_y": -0.2, "zoom": 0.8}
    straight = np.array(warp.warp(IMAGES[:1], parameters(**values), 20))
    flipped = warp.warp(IMAGES[:1], parameters(**values, flip=-1), 20)
    np.testing.assert_allclose(flipped, straight[:, :, ::-1], atol=TOLERANCE)


def test_brightness_and_contrast_are_those_of_tensorflow_clipped():
    drawn = random_parameters(3, **GEOMETRIC, brightness=0.4, contrast=0.9)
    drawn[:, warp.BRIGHTNESS] = (0.4, -0.4, 0.1)
    adjusted = [
        tf.image.adjust_contrast(image, row[warp.CONTRAST]) + 255 * row[warp.BRIGHTNESS]
        for image, row in zip(IMAGES.astype("float32"), drawn, strict=True)
    ]
    want = warp.warp(np.array(adjusted), drawn[:, :5], 20)
    got = warp.warp(IMAGES, drawn, 20)
    np.testing.assert_allclose(got, np.clip(want, 0, 255), atol=TOLERANCE)
    assert np.min(want) < 0 and np.max(want) > 255


def test_the_layer_draws_by_its_seed_and_only_in_training():
    def outputs(seed):
        layer = warp.Warp((20, 24), zoom=0.1, contrast=0.2, seed=seed)
        return [np.array(layer(IMAGES, training=True)) for _ in range(2)]

    first, second = outputs(seed=1)
    np.testing.assert_array_equal(outputs(seed=1), [first, second])
    assert np.abs(first - second).max() > 10
    assert np.abs(first - outputs(seed=2)[0]).max() > 10
    plain = warp.Warp((20, 24))(IMAGES, training=False)
    np.testing.assert_allclose(plain, tf.image.resize(IMAGES, (20, 24)), atol=TOLERANCE)


def test_the_layer_applies_what_it_draws_within_its_ranges():
    layer, again = (warp.Warp(20, zoom=0.1, brightness=0.3, seed=5) for _ in range(2))
    drawn = np.array(again.draw(3))
    np.testing.assert_array_equal(
        layer(IMAGES, training=True), warp.compiled(20)(IMAGES, drawn)
    )
    many = np.abs(np.array(again.draw(500)) - [0, 0, 0, 0, 1, 0, 1]).max(axis=0)
    limits = [math.radians(20), 0.2, 0.2, 1, 0.1, 0.3, 0]
    np.testing.assert_allclose(many, limits, rtol=0.05)


def test_the_layer_s_configuration_makes_the_same_layer():
    layer = warp.Warp((20, 24), 30, 0.1, 0.3, False, 0.2, 0.4, 0.5, seed=7, name="w")
    config_of = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config_of)
    assert copy.get_config() == layer.get_config()
    assert (copy.name, copy.size, copy.contrast) == ("w", (20, 24), 0.5)
    np.testing.assert_array_equal(
        copy(IMAGES, training=True), layer(IMAGES, training=True)
    )


def test_the_layer_runs_compiled_in_tf_data_and_in_a_model():
    def function_of(layer):
        return tf.function(lambda x: layer(x, training=True), jit_compile=True)

    functions = [function_of(warp.Warp(20, seed=3)) for _ in range(2)]
    first, same = (np.array(function(IMAGES)) for function in functions)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - functions[0](IMAGES)).max() > 10

    mapped = warp.Warp(20, seed=3)
    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(3)
    images = images.map(lambda x: mapped(x, training=True))
    want = warp.Warp(20, seed=3)(IMAGES, training=True)
    np.testing.assert_allclose(next(iter(images)), want, atol=TOLERANCE)

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((23, 17, 3), dtype="uint8")
        model = keras.Model(inputs, warp.Warp((20, 24))(inputs))
    finally:
        keras.config.set_dtype_policy(before)
    assert (model.output_shape, model.output.dtype) == ((None, 20, 24, 3), "float32")
    np.testing.assert_allclose(
        model(IMAGES), tf.image.resize(IMAGES, (20, 24)), atol=TOLERANCE
    )


@pytest.mark.parametrize("name", warp.RANGES)
def test_the_layer_refuses_what_the_flags_refuse(name):
    assert config._RANGES[name] == warp.RANGES[name]
    low, high = warp.RANGES[name]
    for value in (low - 0.01, high + 0.01, math.nan):
        with pytest.raises(ValueError, match=rf"{name}=.*expected {low}..{high}"):
            warp.Warp(**{name: value})


def test_the_layer_refuses_sizes_and_images_that_are_none():
    for size in (0, (20, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="expected a side or"):
            warp.Warp(size)
    for shape in ((20, 20, 3), (1, 20, 20, 1)):
        with pytest.raises(ValueError, match="images of shape"):
            warp.Warp(20)(np.zeros(shape, "uint8"))


def test_jax_gives_the_same_without_tensorflow(tmp_path):
    drawn = random_parameters(3, **GEOMETRIC, brightness=0.2, contrast=0.2)
    np.savez(tmp_path / "in.npz", images=IMAGES, drawn=drawn)
    program = """
import sys
sys.modules["tensorflow"] = None  # importing it is now an error
import numpy as np
from trainer import config, warp
given = np.load(sys.argv[1])
same = warp.compiled((20, 25))(given["images"], given["drawn"])
layer, again = (warp.Warp((20, 25), contrast=0.1, seed=2) for _ in range(2))
warped = layer(given["images"], training=True)
assert np.array_equal(warped, again(given["images"], training=True))
assert not np.array_equal(warped, layer(given["images"], training=True))
np.save(sys.argv[2], same)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "in.npz", tmp_path / "out.npy"],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    want = warp.warp(IMAGES, drawn, (20, 25))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), want, atol=TOLERANCE)


def test_the_options_have_the_ranges_of_the_layer():
    ranges = {name: config._RANGES[name] for name in warp.RANGES}
    assert ranges == warp.RANGES
