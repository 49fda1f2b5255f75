"""Filter gradients by matrix products are those of Keras' own convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import learner, matmul_conv


def model(**options) -> keras.Model:
    keras.utils.set_random_seed(3)
    images = keras.Input((7, 6, 32))
    x = keras.layers.Conv2D(5, name="conv", **options)(images)
    return keras.Model(images, x)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_keras(kernel, bias):
    stock = model(kernel_size=kernel, padding="same", use_bias=bias)
    fast = learner.build(stock, 0.9, matmul_gradients=True)
    assert isinstance(fast.get_layer("conv"), matmul_conv.MatmulGradientConv2D)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(4, 7, 6, 32)), tf.float32)
    upstream = tf.constant(rng.normal(size=(4, 7, 6, 5)), tf.float32)

    @tf.function
    def results(of, pick):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = pick(of(x, training=True))
        parameters = [variable.value for variable in of.trainable_variables]
        return [out, *tape.gradient(out, [x, *parameters], output_gradients=upstream)]

    want = results(stock, lambda out: out)
    got = results(fast, lambda out: out[learner.LOGIT])
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},  # padding "valid"
        {"kernel_size": 3, "padding": "same", "strides": 2},
        {"kernel_size": 5, "padding": "same"},
        {"kernel_size": 3, "padding": "same", "dilation_rate": 2},
        {"kernel_size": 1, "groups": 1, "strides": 2},
    ],
)
def test_other_convolutions_stay(options):
    layer = learner.build(model(**options), 0.9, True).get_layer("conv")
    assert type(layer) is keras.layers.Conv2D
