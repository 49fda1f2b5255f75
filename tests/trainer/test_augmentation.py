"""The warp against TensorFlow's own operations and plain arithmetic; the layers."""

import dataclasses
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from support.errors import ExitCode, UserError
from trainer import augmentation
from trainer.augmentation import AUGMENTATIONS, Augmenter, Warp
from trainer.config import Augmentation, TrainConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 23, 17, 3), np.uint8)
GEOMETRIC = {"rotation": 20, "width_shift": 0.2, "height_shift": 0.2, "zoom": 0.3}
#: 1e-4 of the range.
TOLERANCE = 0.0255


def sample(uniform, **strengths):
    """Parameters as arrays, from (..., 7) uniform numbers."""
    sampled = augmentation.sample_parameters(
        np.asarray(uniform, "float32"), Augmentation(**strengths)
    )
    return {name: np.array(value) for name, value in sampled.items()}


def random_parameters(count, **strengths):
    # Of its own: what one test draws must not depend on those that ran before it.
    uniform = np.random.default_rng(1).random((count, 7))
    return sample(uniform, **(strengths or GEOMETRIC))


def parameters(**values):
    """The parameters of one image."""
    plain = {name: np.array(value) for name, value in augmentation.identity(1).items()}
    return plain | {name: np.array([v], "float32") for name, v in values.items()}


def rows(parameters):
    """One dict of floats for each image."""
    columns = zip(*parameters.values(), strict=True)
    return [dict(zip(parameters, map(float, row), strict=True)) for row in columns]


def rotation_matrix(angle):
    return np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )


def reference(image, drawn, size):
    """Flip, zoom, shift and rotation of each output position, then its four pixels."""
    height, width = image.shape[:2]
    zoom = drawn["zoom"]
    center = np.array([width - 1, height - 1]) / 2
    rows, columns = np.mgrid[: size[0], : size[1]]
    resized = np.stack(
        [(columns + 0.5) * width / size[1], (rows + 0.5) * height / size[0]], axis=-1
    )
    moved = (resized - 0.5 - center) * [drawn["horizontal_flip"] * zoom, zoom]
    moved = moved + [drawn["width_shift"] * width, drawn["height_shift"] * height]
    position = np.clip(
        center + moved @ rotation_matrix(drawn["rotation"]).T,
        0,
        [width - 1, height - 1],
    )
    left, top = np.floor(position).astype(int).transpose(2, 0, 1)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = (position - np.stack([left, top], -1)).transpose(2, 0, 1)[..., None]
    upper = image[top, left] * (1 - x) + image[top, right] * x
    lower = image[bottom, left] * (1 - x) + image[bottom, right] * x
    return upper * (1 - y) + lower * y


def projective(images, drawn, size):
    """TensorFlow's operation on the same matrices."""
    matrices = np.array(augmentation.matrices(drawn, images.shape[1:3], size))
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
    got = augmentation.warp(images, drawn, size)
    pairs = zip(images, rows(drawn), strict=True)
    want = [reference(image, row, size) for image, row in pairs]
    np.testing.assert_allclose(got, want, atol=TOLERANCE)
    np.testing.assert_allclose(got, projective(images, drawn, size), atol=TOLERANCE)


def test_compiled_warp_takes_bytes_or_floats():
    drawn = random_parameters(3)
    want = [
        reference(image, row, (20, 20))
        for image, row in zip(IMAGES, rows(drawn), strict=True)
    ]
    for images in (IMAGES, IMAGES.astype("float32")):
        got = augmentation.compiled(20)(images, drawn)
        assert got.dtype == "float32"
        np.testing.assert_allclose(got, want, atol=TOLERANCE)


@pytest.mark.parametrize("size", [17, 20, 31, (15, 40)])
def test_resize_is_bilinear(size):
    want = tf.image.resize(IMAGES, [size, size] if isinstance(size, int) else size)
    np.testing.assert_allclose(augmentation.resize(IMAGES, size), want, atol=TOLERANCE)


def test_shrinking_averages_blocks_first():
    image = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(1, 8, 12, 3)
    blocks = image.astype(float).reshape(1, 4, 2, 4, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(augmentation.resize(image, 4), blocks, atol=TOLERANCE)
    # A last block that is not full repeats the edge.
    odd = np.array([10, 20, 30, 40, 90], np.uint8)[None, None, :, None].repeat(3, 3)
    got = augmentation.resize(odd, (1, 2))[0, 0, :, 0]
    want = [15 + 20 / 8, 35 + 55 * 3 / 8]  # between blocks of 15, 35 and 90
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_sampled_parameters_reach_the_ends_of_their_ranges():
    uniform = [np.zeros(7), np.full(7, 1 - 1e-7), np.full(7, 0.5)]
    strengths = (20, 0.1, 0.2, True, 0.3, 0.4, 0.5)
    names = augmentation.STRENGTHS
    sampled = sample(uniform, **dict(zip(names, strengths, strict=True)))
    low, high, middle = np.stack(list(sampled.values()), axis=-1)
    assert tuple(sampled) == names
    turn = math.radians(20)
    np.testing.assert_allclose(low, [-turn, -0.1, -0.2, -1, 0.7, -0.4, 0.5], rtol=1e-5)
    np.testing.assert_allclose(high, [turn, 0.1, 0.2, 1, 1.3, 0.4, 1.5], rtol=1e-5)
    np.testing.assert_allclose(middle, [0, 0, 0, 1, 1, 0, 1], atol=1e-6)


def test_zero_strengths_change_nothing():
    uniform = np.random.default_rng(3).random((4, 7))
    none = sample(uniform, **dict.fromkeys(augmentation.STRENGTHS, 0))
    for name, value in augmentation.identity(4).items():
        np.testing.assert_array_equal(none[name], value)


def pcg4d(*words):
    """The published hash in Python's own integers, modulo 2**32."""
    x, y, z, w = ((word * 1664525 + 1013904223) % 2**32 for word in words)
    for last in (False, True):
        x = (x + y * w) % 2**32
        y = (y + z * x) % 2**32
        z = (z + x * y) % 2**32
        w = (w + y * z) % 2**32
        if not last:
            x, y, z, w = (word ^ word >> 16 for word in (x, y, z, w))
    return x, y, z, w


def test_uniform_numbers_are_a_function_of_seed_step_and_index():
    seed, step, index = 2**32 - 1, 123_456, np.array([0, 5, 31])
    bits = np.array(augmentation.random_bits(np.uint32(seed), step, index, 7))
    want = [
        pcg4d(number, step, seed, 0) + pcg4d(number, step, seed, 1)[:3]
        for number in index.tolist()
    ]
    np.testing.assert_array_equal(bits, want)
    got = augmentation.uniform(np.uint32(seed), step, index, 7)
    np.testing.assert_array_equal(got, (np.array(want) >> 8) / 2**24)


def test_uniform_numbers_are_uniform_and_uncorrelated():
    drawn = np.concatenate(
        [
            augmentation.uniform(np.uint32(seed), step, np.arange(256), 7)
            for seed in range(2)
            for step in range(200)
        ]
    )
    for column in drawn.T:
        counts = np.histogram(column, 64, (0, 1))[0]
        # Chi-square with 63 degrees of freedom: 1 in 10**5 exceeds 125.
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 125
    five_sigma = 5 / math.sqrt(len(drawn))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(7)).max() < five_sigma
    neighbors = np.corrcoef(drawn[:-1].T, drawn[1:].T)[:7, 7:]
    assert np.abs(neighbors).max() < five_sigma


def test_flip_and_shift_and_zoom_and_rotation_have_their_senses():
    square = IMAGES[:1, :17].astype("float32")

    def warped(**values):
        return np.array(augmentation.warp(square, parameters(**values), 17))

    flipped = warped(horizontal_flip=-1)
    np.testing.assert_allclose(flipped, square[:, :, ::-1], atol=TOLERANCE)
    left, up = warped(width_shift=2 / 17), warped(height_shift=3 / 17)
    np.testing.assert_allclose(left[:, :, :-2], square[:, :, 2:], atol=TOLERANCE)
    np.testing.assert_allclose(up[:, :-3], square[:, 3:], atol=TOLERANCE)
    # What leaves the image is its nearest pixel.
    edge = np.broadcast_to(square[:, :, -1:], (1, 17, 2, 3))
    np.testing.assert_allclose(left[:, :, -2:], edge, atol=TOLERANCE)
    half = warped(zoom=0.5)
    np.testing.assert_allclose(half[:, ::2, ::2], square[:, 4:13, 4:13], atol=TOLERANCE)
    # A positive angle turns the image counterclockwise.
    turned = warped(rotation=math.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(square, 1, (1, 2)), atol=TOLERANCE)


# Keras asks for SciPy's functions by an old name.
@pytest.mark.filterwarnings("ignore:Please import `affine:DeprecationWarning")
def test_senses_equal_image_data_generator():
    generator = tf.keras.preprocessing.image.ImageDataGenerator(fill_mode="nearest")
    # Square, because it turns others about a point that is not their center.
    image = IMAGES[0, :17].astype("float32")
    moves = {"theta": 15, "tx": 4, "ty": -3, "zx": 0.9, "zy": 0.9}
    want = generator.apply_transform(image, moves | {"flip_horizontal": True})
    drawn = parameters(
        rotation=math.radians(15),
        width_shift=4 / 17,
        height_shift=-3 / 17,
        horizontal_flip=-1,
        zoom=0.9,
    )
    got = augmentation.warp(image[None], drawn, 17)[0]
    np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_brightness_and_contrast_equal_tensorflow_clipped():
    drawn = random_parameters(3, **GEOMETRIC, brightness=0.4, contrast=0.9)
    drawn["brightness"] = np.array([0.4, -0.4, 0.1], "float32")
    adjusted = [
        tf.image.adjust_contrast(image, row["contrast"]) + 255 * row["brightness"]
        for image, row in zip(IMAGES.astype("float32"), rows(drawn), strict=True)
    ]
    geometric = {name: drawn[name] for name in augmentation.identity(1)}
    want = augmentation.warp(np.array(adjusted), geometric, 20)
    got = augmentation.warp(IMAGES, drawn, 20)
    np.testing.assert_allclose(got, np.clip(want, 0, 255), atol=TOLERANCE)
    assert np.min(want) < 0 and np.max(want) > 255


def test_layer_draws_by_its_seed_in_training_alone():
    def outputs(seed):
        layer = Warp((20, 24), zoom=0.1, contrast=0.2, seed=seed)
        return [np.array(layer(IMAGES, training=True)) for _ in range(2)]

    first, second = outputs(seed=1)
    np.testing.assert_array_equal(outputs(seed=1), [first, second])
    assert np.abs(first - second).max() > 10
    assert np.abs(first - outputs(seed=2)[0]).max() > 10
    plain = Warp((20, 24))(IMAGES, training=False)
    np.testing.assert_allclose(plain, tf.image.resize(IMAGES, (20, 24)), atol=TOLERANCE)


def test_layer_draws_by_step_and_position_in_the_global_batch():
    layer = Warp(20, zoom=0.1, contrast=0.2, seed=5)
    images = np.concatenate([IMAGES] * 3)
    index = np.arange(9)
    batch = np.array(layer(images, training=True, step=4, index=index))
    drawn = sample(
        augmentation.uniform(np.uint32(5), 4, index, 7), zoom=0.1, contrast=0.2
    )
    want = augmentation.compiled(20)(images, drawn)
    np.testing.assert_allclose(batch, want, atol=TOLERANCE)
    part = layer(images[3:7], training=True, step=4, index=index[3:7])
    np.testing.assert_array_equal(part, batch[3:7])
    other = layer(images, training=True, step=5, index=index)
    assert np.abs(other - batch).max() > 10
    # Plain calls count by themselves, from 0.
    again = Warp(20, zoom=0.1, contrast=0.2, seed=5)
    for step in range(2):
        np.testing.assert_array_equal(
            layer(images, training=True),
            again(images, training=True, step=step, index=index),
        )


def test_layer_is_made_from_its_configuration():
    layer = Warp(
        (20, 24),
        seed=7,
        rotation=30,
        horizontal_flip=False,
        contrast=0.5,
        name="w",
    )
    config_of = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config_of)
    assert copy.get_config() == layer.get_config()
    assert (copy.name, copy.size, copy.strengths.contrast) == ("w", (20, 24), 0.5)
    np.testing.assert_array_equal(
        copy(IMAGES, training=True), layer(IMAGES, training=True)
    )


def test_layer_runs_compiled_in_tf_data_and_in_a_model():
    def function_of(layer):
        return tf.function(lambda x: layer(x, training=True), jit_compile=True)

    functions = [function_of(Warp(20, seed=3)) for _ in range(2)]
    first, same = (np.array(function(IMAGES)) for function in functions)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - functions[0](IMAGES)).max() > 10

    mapped = Warp(20, seed=3)
    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(3)
    images = images.map(lambda x: mapped(x, training=True))
    want = Warp(20, seed=3)(IMAGES, training=True)
    np.testing.assert_allclose(next(iter(images)), want, atol=TOLERANCE)

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((23, 17, 3), dtype="uint8")
        model = keras.Model(inputs, Warp((20, 24))(inputs))
    finally:
        keras.config.set_dtype_policy(before)
    assert (model.output_shape, model.output.dtype) == ((None, 20, 24, 3), "float32")
    np.testing.assert_allclose(
        model(IMAGES), tf.image.resize(IMAGES, (20, 24)), atol=TOLERANCE
    )


@pytest.mark.parametrize(
    "field",
    [field for field in dataclasses.fields(Augmentation) if field.metadata["within"]],
    ids=lambda field: field.name,
)
def test_layer_and_flags_refuse_the_same(field):
    low, high = field.metadata["within"]
    for value in (low - 0.01, high + 0.01):
        with pytest.raises(ValueError, match=f"{field.name}=.*expected {low}..{high}"):
            Warp(**{field.name: value})
        with pytest.raises(UserError, match=f"--{field.name}=.* is not between"):
            TrainConfig(**{field.name: value})
    with pytest.raises(ValueError, match=f"{field.name}=nan"):
        Warp(**{field.name: math.nan})


def test_layer_refuses_wrong_sizes_and_images():
    for size in (0, (20, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="expected a side or"):
            Warp(size)
    for shape in ((20, 20, 3), (1, 20, 20, 1)):
        with pytest.raises(ValueError, match="images of shape"):
            Warp(20)(np.zeros(shape, "uint8"))


def test_jax_equals_tensorflow(tmp_path):
    drawn = random_parameters(3, **GEOMETRIC, brightness=0.2, contrast=0.2)
    np.savez(tmp_path / "in.npz", images=IMAGES, **drawn)
    program = """
import sys
sys.modules["tensorflow"] = None  # importing it is now an error
import numpy as np
from trainer import augmentation
from trainer.augmentation import Warp
given = dict(np.load(sys.argv[1]))
images = given.pop("images")
same = augmentation.compiled((20, 25))(images, given)
layer, again = (Warp((20, 25), contrast=0.1, seed=2) for _ in range(2))
warped = layer(images, training=True)
assert np.array_equal(warped, again(images, training=True))
assert not np.array_equal(warped, layer(images, training=True))
drawn = layer(images, training=True, step=3, index=np.arange(1, 4))
np.savez(sys.argv[2], same=same, drawn=drawn)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "in.npz", tmp_path / "out.npz"],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    want = augmentation.warp(IMAGES, drawn, (20, 25))
    result = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(result["same"], want, atol=TOLERANCE)
    layer = Warp((20, 25), contrast=0.1, seed=2)
    want = layer(IMAGES, training=True, step=3, index=np.arange(1, 4))
    np.testing.assert_allclose(result["drawn"], want, atol=TOLERANCE)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmenter_repeats_a_step_and_differs_between_steps(name):
    strengths = Augmentation(zoom=0.1, brightness=0.1, contrast=0.1)
    images = np.concatenate([IMAGES] * 2)
    index = tf.range(6, dtype=tf.int64)

    def outputs(seed, step, replica=0):
        augment = Augmenter(name, strengths, 20, seed)
        function = tf.function(augment)
        step = tf.constant(step, tf.int64)
        return np.array(function(images, step, index, tf.constant(replica)))

    first = outputs(0, 3)
    assert first.shape == (6, 20, 20, 3) and first.dtype == "float32"
    assert first.min() >= 0 and first.max() <= 255
    np.testing.assert_array_equal(outputs(0, 3), first)
    if name == "none":
        np.testing.assert_allclose(
            first, augmentation.resize(images, 20), atol=TOLERANCE
        )
        return
    for other in (outputs(0, 4), outputs(2**32 - 1, 3)):
        assert (np.abs(other - first).max(axis=(1, 2, 3)) > 5).all()
    # Copies of an image in one batch differ, too.
    assert (np.abs(first[3:] - first[:3]).max(axis=(1, 2, 3)) > 5).all()
    other = outputs(0, 3, replica=1)
    if name == "warp":
        np.testing.assert_array_equal(other, first)
    if name in ("keras", "erasing"):
        assert np.abs(other - first).max() > 5


def test_unknown_augmentation_is_refused():
    with pytest.raises(UserError, match="--augment=warb is none of warp") as raised:
        Augmenter("warb", Augmentation(), 20, 0)
    assert raised.value.exit_code == ExitCode.USAGE
    assert "Did you mean warp?" in raised.value.remedy


def test_keras_stack_has_the_ranges_of_the_flags():
    strengths = Augmentation(rotation=18, width_shift=0.2, height_shift=0.1, zoom=0.3)
    flip, rotation, translation, zoom, _ = AUGMENTATIONS["keras"](strengths, 20, 0)
    assert flip.get_config()["mode"] == "horizontal"
    assert tuple(rotation.factor) == (-0.05, 0.05)
    assert (translation.height_factor, translation.width_factor) == (0.1, 0.2)
    assert zoom.height_factor == 0.3
