"""The optimizer against Keras' own and against plain arithmetic."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.loop import optimizer
from trainer.loop.optimizer import Optimizer, Schedule

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.normal(size=(3, 2)), RNG.normal(size=(2,))


def make(ema=0.0, weight_decay=0.1, clip_norm=0.0, scale_loss=False, rate=0.01):
    variables = [
        tf.Variable(KERNEL, dtype="float32"),
        tf.Variable(BIAS, dtype="float32"),
    ]
    schedule = Schedule(rate, warmup_steps=0, total_steps=100, cosine=False)
    return variables, Optimizer(
        variables, schedule, weight_decay, clip_norm, ema, scale_loss
    )


def gradients(step):
    rng = np.random.default_rng(step)
    return [
        tf.constant(rng.normal(size=shape), tf.float32)
        for shape in (KERNEL.shape, BIAS.shape)
    ]


def test_equals_keras_adamw():
    ours, own = make(weight_decay=0.1)
    theirs = [keras.Variable(KERNEL), keras.Variable(BIAS)]
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    reference.build(theirs)
    reference.exclude_from_weight_decay(var_list=[theirs[1]])
    for step in range(5):
        own.apply(gradients(step), tf.constant(True))
        reference.apply(gradients(step))
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=2e-5)


def test_clipping_scales_the_whole_gradient():
    _, own = make(clip_norm=1.0)
    clipped, finite = own.finish([tf.constant([3.0]), tf.constant([4.0])])
    np.testing.assert_allclose(np.concatenate(clipped), [0.6, 0.8], rtol=1e-6)
    assert finite
    small, _ = own.finish([tf.constant([0.3]), tf.constant([0.4])])
    np.testing.assert_allclose(np.concatenate(small), [0.3, 0.4], rtol=1e-6)


def test_averaged_weights():
    variables, own = make(ema=0.5)
    average = KERNEL.astype("float32")
    for step in range(4):
        own.apply(gradients(step), tf.constant(True))
        decay = min(0.5, (step + 1) / (step + 11))
        average = decay * average + (1 - decay) * variables[0].numpy()
    np.testing.assert_allclose(own.averages[0], average, rtol=1e-5)


def test_schedule_warms_up_and_ends_at_zero():
    rates = Schedule(peak=1.0, warmup_steps=4, total_steps=12, cosine=True)
    got = [float(rates(step)) for step in (0, 1, 3, 4, 8, 12, 20)]
    np.testing.assert_allclose(got, [0.25, 0.5, 1, 1, 0.5, 0, 0], atol=1e-6)
    assert float(Schedule(0.3, 0, 10, cosine=False)(9)) == pytest.approx(0.3)


def test_the_first_step_that_nothing_saves_is_remembered():
    for scale_loss in (False, True):
        _, own = make(scale_loss=scale_loss)
        bad = [tf.fill(KERNEL.shape, np.nan), tf.zeros(BIAS.shape)]
        own.apply(gradients(0), tf.constant(True))
        assert own.failed_step == 0
        if scale_loss:
            own.apply(bad, tf.constant(False))
            assert own.failed_step == 0  # a smaller scale may help
            own.loss_scale.assign(1.0)
        for _ in range(2):
            own.apply(bad, tf.constant(False))
        assert own.failed_step == (3 if scale_loss else 2)


def test_loss_scale_halves_on_overflow_and_doubles_after_good_steps(monkeypatch):
    monkeypatch.setattr(optimizer, "GROWTH_STEPS", 2)
    variables, own = make(scale_loss=True)
    before = variables[0].numpy()
    scaled, finite = own.finish([tf.fill(KERNEL.shape, np.inf), tf.zeros(BIAS.shape)])
    assert not finite
    own.apply(scaled, finite)
    np.testing.assert_array_equal(variables[0], before)
    assert own.loss_scale == optimizer.FIRST_LOSS_SCALE / 2
    assert own.step == 1
    for step in range(2):
        own.apply(gradients(step), tf.constant(True))
    assert own.loss_scale == optimizer.FIRST_LOSS_SCALE
    assert not np.array_equal(variables[0], before)
