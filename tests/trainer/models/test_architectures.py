"""Each architecture: saved and loaded, every precision and regime; auxiliary heads."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from support.errors import ExitCode, UserError
from trainer import models
from trainer.augmentation import Augmenter
from trainer.config import Augmentation, TrainConfig
from trainer.data import open_dataset
from trainer.loop import job as jobs
from trainer.loop import optimizer, runtime, steps
from trainer.models import googlenet, training_model
from trainer.models.layers import FusedBatchNormalization, ReplicaDropout
from trainer.runs.record import write_run

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")


def train_one_step(config: TrainConfig) -> tuple[jobs.Job, list[np.ndarray]]:
    """A job after its first step, and the training_model's weights before it.

    In float16 the first steps may change nothing but the loss scale.
    """
    dataset = open_dataset(config.data_dir)
    job = jobs.Job(config, runtime.prepare(config), dataset)
    before = job.training_model.get_weights()
    for batch in job.train_dataset(start=0):
        scale = float(job.optimizer.loss_scale.numpy())
        job.train_step(batch)
        if float(job.optimizer.loss_scale.numpy()) >= scale:
            return job, before
    raise AssertionError("every step overflowed")


def changed_layers(job, before):
    """Names of the layers whose weights differ from before, and of all with weights."""
    changed, every = set(), set()
    pairs = zip(job.training_model.weights, before, strict=True)
    for variable, old in pairs:
        layer = variable.path.split("/")[-2]
        every.add(layer)
        if not np.array_equal(variable.numpy(), old):
            changed.add(layer)
    return changed, every


@pytest.fixture
def config(dataset_dir, tmp_path):
    yield TrainConfig(
        data_dir=str(dataset_dir),
        run_dir=str(tmp_path / "new"),
        input_size=64,
        batch_size=2,
        warmup_epochs=0,
    )
    keras.utils.clear_session()  # frees the memory of the largest


def cases(*quick):
    """Every architecture; those that are not quick to build and trace are slow."""
    return [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow)
        for name in models.ARCHITECTURES
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", cases("vgg16"))
def test_one_step_changes_every_weight(config, name, precision):
    config = dataclasses.replace(config, model=name, precision=precision)
    job, before = train_one_step(config)
    loss, _, seen = job.train_step.sums.numpy()
    assert np.isfinite(loss)
    assert seen == 2 or precision == "float16"
    changed, every = changed_layers(job, before)
    assert changed == every
    assert all(np.isfinite(value).all() for value in job.training_model.get_weights())


@pytest.mark.slow
def test_depthwise_network_trains_in_fused_layers(config):
    config = dataclasses.replace(
        config, model="efficientnetv2b0", input_size=32, precision="float32"
    )
    job, before = train_one_step(config)
    changed, every = changed_layers(job, before)
    assert changed == every
    kinds = [type(layer) for layer in job.training_model.layers]
    assert FusedBatchNormalization in kinds and ReplicaDropout in kinds
    assert keras.layers.BatchNormalization not in kinds
    assert keras.layers.Dropout not in kinds
    job.model.set_weights(before)
    job.training_model.set_weights(before)
    logits = job.training_model(IMAGES[:, :32, :32])[training_model.LOGIT]
    want = job.model(IMAGES[:, :32, :32])
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-7)


def test_plain_networks_start_as_he_et_al_do():
    kernels = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        model = models.build("vgg16", 32)
        kernels.append(model.get_layer("block3_conv2").kernel.numpy())
    assert kernels[0].std() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def save_run(folder, name):
    """The finished run of a model whose weights are all unlike their initial ones."""
    model = models.build(name, 64, models.CAFFE, dropout=0.2)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.9, 1.1, w.shape) * w + 0.01 for w in model.get_weights()]
    model.set_weights(weights)
    digest = models.save(model, folder / models.BEST)
    run = {"model": name, "attribute": "Male", "input_size": 64}
    run |= {"preprocessing": models.CAFFE}
    write_run(folder, run | {"files": {models.BEST: digest}})
    return model


@pytest.mark.parametrize("name", cases("vgg16", "googlenet"))
def test_it_is_saved_and_loaded(tmp_path, name):
    model = save_run(tmp_path, name)
    loaded = models.load(tmp_path)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    # A new MobileNet's logits hardly depend on the image, or on most weights.
    for got, want in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", cases("vgg16"))
def test_regimes_start_from_a_run(config, tmp_path, name):
    saved = save_run(tmp_path, name).get_weights()
    regimes = {}
    for regime in ("transfer", "finetune"):
        job, before = train_one_step(
            dataclasses.replace(
                config,
                model=name,
                weights=str(tmp_path / models.BEST),
                regime=regime,
            )
        )
        assert job.preprocessing == models.CAFFE
        for got, want in zip(before, saved, strict=True):
            np.testing.assert_array_equal(got, want)
        regimes[regime] = changed_layers(job, before)
    assert regimes["transfer"][0] == {training_model.LOGIT}
    assert regimes["finetune"][0] == regimes["finetune"][1]


def test_auxiliary_heads_have_torchvision_s_parameters():
    model = models.build("googlenet", 224)
    heads = [
        googlenet.auxiliary_head(model.get_layer(block).output, name, units=1000)
        for name, block in googlenet.AUXILIARY.items()
    ]
    with_heads = keras.Model(model.input, heads)
    own = [v for v in with_heads.trainable_variables if v.path.startswith("aux")]
    assert sum(math.prod(v.shape) for v in own) + 6_624_904 == 13_004_888


def test_auxiliary_heads_belong_to_the_training_model_alone():
    stock = models.build("googlenet", 128)
    built = training_model.build(stock, 0.9, attributes=39, aux_heads=True)
    assert set(built.output) == {"logit", "attributes", "aux1", "aux2"}
    shared = training_model.shared_weights(built)
    assert [w.path for w in shared] == [w.path for w in stock.weights]
    assert len(built.weights) == len(shared) + 2 + 2 * (1 + 4 + 2 + 2)


def test_an_auxiliary_head_s_loss_counts_three_tenths():
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    outputs = {
        name: keras.layers.Dense(1, kernel_initializer="zeros", name=layer)(flat)
        for name, layer in ((training_model.LOGIT, "logit"), ("aux1", "aux1_fc2"))
    }
    model = keras.Model(images, outputs)
    variables = [variable.value for variable in model.trainable_variables]
    schedule = optimizer.Schedule(0.1, 0, 9, False)
    step = steps.TrainStep(
        model,
        Augmenter("none", Augmentation(), 8, seed=0),
        optimizer.Optimizer(variables, schedule, 0, 0, 0, scale_loss=False),
        steps.Objective(2, 0.1, (0.5, 2.0)),
        xla=False,
        strategy=tf.distribute.get_strategy(),
    )
    labels, attributes = tf.constant([0.0, 1.0]), tf.zeros([2, 40])
    pixels = IMAGES[:, :8, :8] / 255
    sums, gradients = step._loss_and_gradients(pixels, labels, attributes, tf.ones([2]))
    np.testing.assert_allclose(sums, [2.5 * np.log(2), 1, 2], rtol=1e-6)
    paths = [variable.path for variable in model.trainable_variables]
    by_name = dict(zip(paths, gradients, strict=True))
    for part in ("kernel", "bias"):
        logit, auxiliary = by_name[f"logit/{part}"], by_name[f"aux1_fc2/{part}"]
        assert np.abs(logit).max() > 0.1
        np.testing.assert_allclose(auxiliary, 0.3 * logit.numpy(), atol=1e-5)


@pytest.mark.slow
def test_auxiliary_heads_train_and_are_not_published(config):
    config = dataclasses.replace(
        config, model="googlenet", input_size=128, aux_heads=True
    )
    job, before = train_one_step(config)
    changed, every = changed_layers(job, before)
    assert changed == every > {"aux1_fc1", "aux2_fc2"}
    job.publish()
    assert [layer.name for layer in job.model.layers][-1] == "logit"
    kernel = job.model.get_layer("conv1_conv").kernel
    assert not np.array_equal(kernel, before[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "vgg16", "input_size": 128}, "vgg16 has no auxiliary heads"),
        ({"input_size": 96}, "needs --input_size=128 or more, not 96"),
        ({"input_size": 128, "regime": "transfer", "weights": "x.h5"}, "frozen"),
    ],
)
def test_auxiliary_heads_are_refused_where_they_do_nothing(options, message):
    with pytest.raises(UserError, match=message) as raised:
        TrainConfig(aux_heads=True, **options)
    assert raised.value.exit_code == ExitCode.USAGE
