"""Two logical CPUs compute what one device does; shares may be uneven, or empty."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.running import job, run
from trainer import models
from trainer.data import evaluation_dataset
from trainer.loop import job as jobs
from trainer.loop import runtime
from trainer.loop.scoring import predict_split
from trainer.loop.steps import split_batch
from trainer.models.layers import ReplicaDropout


def plain_backbone(x):
    return keras.layers.Conv2D(4, 3, strides=4, activation="relu")(x)


@pytest.fixture
def plain(monkeypatch):
    """Adds an architecture without normalization."""
    entry = models.Architecture("Plain", plain_backbone)
    monkeypatch.setitem(models.ARCHITECTURES, "plain", entry)
    return "plain"


def build(config):
    keras.utils.clear_session()
    return job(config)


def gradients_of(built, batch):
    """Sums and clipped gradients of a global batch, before anything is updated."""
    strategy, step = built.runtime.strategy, built.train_step

    @tf.function
    def compute(batch):
        return strategy.run(step._replica_step, (batch,))

    sums, gradients, _ = compute(split_batch(batch, strategy))
    first = [strategy.experimental_local_results(value)[0] for value in gradients]
    return strategy.reduce("SUM", sums, axis=None).numpy(), [
        gradient.numpy() for gradient in first
    ]


def check_equal(one, two, examples, tolerance):
    """Compares one global batch and the test split on one device and on two."""
    batch = {
        name: tensor[:examples] if tensor.shape.rank else tensor
        for name, tensor in next(iter(one.train_dataset(start=0))).items()
    }
    (sums, gradients), (sums_2, gradients_2) = (
        gradients_of(built, batch) for built in (one, two)
    )
    np.testing.assert_allclose(sums_2, sums, rtol=tolerance)
    scale = max(np.abs(gradient).max() for gradient in gradients)
    for got, want in zip(gradients_2, gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)
    probabilities = [
        predict_split(
            built.evaluation_step,
            built.dataset,
            "test",
            evaluation_dataset(built.dataset, "test", examples, as_supervised=False),
        )["probability"]
        for built in (one, two)
    ]
    np.testing.assert_allclose(*probabilities, rtol=0, atol=1e-5)


@pytest.mark.parametrize("examples", [8, 7, 1])
def test_two_replicas_compute_what_one_does(changed, plain, examples):
    options = {"model": plain, "batch_size": 8, "dropout": 0.0}
    one, two = (build(changed(replicas=count, **options)) for count in (1, 2))
    check_equal(one, two, examples, 1e-5)


def trained_weights(built, count=12):
    for batch in itertools.islice(built.train_dataset(start=0), count):
        built.train_step(split_batch(batch, built.runtime.strategy))
    return [variable.value.numpy() for variable in built.training_model.weights]


def test_two_replicas_train_like_one(changed, plain):
    """The warp draws by position in the global batch, however it is divided."""
    options = {"model": plain, "batch_size": 7, "dropout": 0.0, "zoom": 0.1}
    one, two = (
        trained_weights(build(changed(replicas=count, **options))) for count in (1, 2)
    )
    start = build(changed(**options)).training_model.get_weights()
    for got, want, before in zip(two, one, start, strict=True):
        assert np.abs(want - before).max() > 1e-3
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_mirrored_strategy_on_one_device_is_bit_equal_to_the_default(changed):
    config = changed(dropout=0.3, mixup=0.2, precision="bfloat16")
    mirrored = build(config)
    assert type(mirrored.runtime.strategy) is tf.distribute.MirroredStrategy
    weights = trained_weights(mirrored)
    keras.utils.clear_session()
    plain = dataclasses.replace(
        runtime.prepare(config), strategy=tf.distribute.get_strategy()
    )
    default = jobs.Job(config, plain, mirrored.dataset)
    keras.mixed_precision.set_global_policy("float32")
    for got, want in zip(weights, trained_weights(default), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_two_replicas_compute_what_one_does_with_vgg16(changed):
    options = {"model": "vgg16", "batch_size": 4, "dropout": 0.0}
    one, two = (build(changed(replicas=count, **options)) for count in (1, 2))
    check_equal(one, two, 3, 1e-5)


def test_dropout_differs_between_replicas_and_is_keras_on_one_device():
    images = tf.ones([4, 64])
    for seed in (3, 2**32 - 1):
        stock = keras.layers.Dropout(0.5, seed=seed)
        ours = ReplicaDropout(0.5, seed=seed)
        for _ in range(2):
            np.testing.assert_array_equal(
                ours(images, training=True), stock(images, training=True)
            )
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        layer = ReplicaDropout(0.5, seed=3)
    inner = tf.function(lambda x: layer(x, training=True))

    @tf.function
    def step():
        return strategy.run(inner, (images,))

    masks = [
        mask.numpy().tobytes()
        for _ in range(2)
        for mask in strategy.experimental_local_results(step())
    ]
    assert len(set(masks)) == 4
    np.testing.assert_array_equal(layer(images), images)


def test_the_training_model_drops_out_per_replica(changed):
    layers = build(changed(dropout=0.3)).training_model.layers
    assert [type(layer) for layer in layers if layer.name == "dropout"] == [
        ReplicaDropout
    ]


def test_two_replicas_train_in_float16(changed):
    config = changed(replicas=2, precision="float16", epochs=1, dropout=0.3)
    assert run(config) == 0
    metrics = json.loads(Path(config.run_dir, "metrics.json").read_text())
    assert math.isfinite(metrics["log_loss"]["value"])
