"""Fused batch normalization computes what Keras' layer computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from trainer.models import training_model
from trainer.models.layers import FusedBatchNormalization

MOMENTUM = 0.9
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.05, "mixed_float16": 0.01}


@pytest.fixture(params=TOLERANCE)
def policy(request):
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy(before)


def pair(shape, **options):
    """A model of one stock layer, its weights neither 1 nor 0, and its fused copy."""
    images = keras.Input(shape)
    norm = layers.BatchNormalization(momentum=MOMENTUM, name="norm", **options)
    stock = keras.Model(images, norm(images))
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 2, v.shape) for v in stock.weights]
    stock.set_weights(values)
    fused = training_model.build(stock, MOMENTUM)
    return stock, keras.Model(fused.input, fused.output[training_model.LOGIT])


def draw(*shape, seed=1):
    return tf.constant(np.random.default_rng(seed).normal(3, 2, shape), tf.float32)


def outcome(model, x, training=True, compiled=False):
    """Output, gradients of input and parameters, and all weights behind the step."""
    weights = draw(*x.shape, seed=2)
    parameters = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=compiled)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = tf.cast(model(x, training=training), tf.float32)
            loss = tf.reduce_sum(out * weights)
        return out, *tape.gradient(loss, [x, *parameters])

    return [*step(), *model.get_weights()]


def assert_same(got, want, tolerance):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_it_computes_what_keras_computes(policy, options, compiled):
    stock, fused = pair((6, 6, 8), **options)
    assert isinstance(fused.get_layer("norm"), FusedBatchNormalization)
    assert [v.path for v in fused.variables] == [v.path for v in stock.variables]
    x = draw(5, 6, 6, 8)
    want = outcome(stock, x)
    assert_same(outcome(fused, x, compiled=compiled), want, TOLERANCE[policy])
    # Both stand at the same moving statistics; inference is Keras' own.
    fused.set_weights(stock.get_weights())
    np.testing.assert_array_equal(fused(x, training=False), stock(x, training=False))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_single_value_has_no_variance(policy, compiled):
    stock, fused = pair((1, 1, 8))
    x = draw(1, 1, 1, 8)
    want = outcome(stock, x)
    assert np.isfinite(np.concatenate([np.ravel(value) for value in want])).all()
    assert_same(outcome(fused, x, compiled=compiled), want, TOLERANCE[policy])


@pytest.mark.parametrize("compiled", [False, True])
def test_no_example_changes_nothing(policy, compiled):
    _, fused = pair((4, 4, 8))
    before = fused.get_weights()
    out, _, *rest = outcome(fused, draw(0, 4, 4, 8), compiled=compiled)
    assert out.shape == (0, 4, 4, 8)
    gradients, after = rest[:2], rest[2:]
    assert_same(gradients, np.zeros((2, 8)), 0)
    assert_same(after, before, 0)


def test_a_frozen_layer_is_in_inference_mode(policy):
    stock, fused = pair((4, 4, 8))
    for model in (stock, fused):
        model.get_layer("norm").trainable = False
    before = fused.get_weights()
    x = draw(5, 4, 4, 8)
    assert not fused.trainable_variables
    np.testing.assert_array_equal(fused(x, training=True), stock(x, training=False))
    assert_same(fused.get_weights(), before, 0)


@pytest.mark.parametrize("shares", [(3, 3), (4, 2), (1, 0)])
def test_each_replica_follows_its_own_share(policy, shares):
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        _, fused = pair((4, 4, 8))
    parts = [draw(count, 4, 4, 8, seed=count + 5) for count in shares]
    values = strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )
    run = tf.function(lambda x: strategy.run(fused, (x,), {"training": True}))
    outputs = strategy.experimental_local_results(run(values))
    for index, x in enumerate(parts):
        alone, _ = pair((4, 4, 8))
        statistics = alone.non_trainable_variables
        want = [variable.numpy() for variable in statistics]
        if shares[index]:
            want = alone(x, training=True)
            assert_same([outputs[index]], [want], TOLERANCE[policy])
            want = [variable.numpy() for variable in statistics]
        got = [
            strategy.experimental_local_results(variable.value)[index]
            for variable in fused.non_trainable_variables
        ]
        assert_same(got, want, 1e-5 if policy == "float32" else TOLERANCE[policy])


@pytest.mark.parametrize(
    ("shape", "options"), [((8,), {}), ((4, 4, 8), {"axis": 1})], ids=["flat", "axis"]
)
def test_what_the_kernel_cannot_do_stays_stock(shape, options):
    stock, fused = pair(shape, **options)
    assert type(fused.get_layer("norm")) is layers.BatchNormalization
    x = draw(5, *shape)
    assert_same(outcome(fused, x), outcome(stock, x), 1e-6)
