"""What a step computes: objective, mixup, statistics; evaluation in any batches."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf

from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest
from support.errors import ExitCode
from tests.trainer.running import job, run
from trainer import models
from trainer.data import evaluation_dataset
from trainer.loop import job as jobs
from trainer.loop import steps
from trainer.loop.scoring import predict_split
from trainer.models import training_model


def test_auxiliary_attributes_train_the_backbone_and_are_not_saved(changed, tmp_path):
    options = {"aux_attributes": True, "aux_weight": 3.0, "label_smoothing": 0.0}
    built = job(changed(**options))
    others = [name for name in celeba.ATTRIBUTES if name != "Male"]
    assert [celeba.ATTRIBUTES[i] for i in built.objective.auxiliary] == others
    attributes = np.zeros((1, 40), "float32")
    attributes[0, celeba.ATTRIBUTES.index(others[-1])] = 1
    logits = np.zeros((1, 39), "float32")
    logits[0, -1] = 2
    wrong = np.log1p(np.exp(2)) - 2  # of a label 1 at logit 2; the others are at 0
    want = 3 * (38 * np.log(2) + wrong) / 39
    got = built.objective.auxiliary_losses(attributes, logits).numpy()
    np.testing.assert_allclose(got, [want], rtol=1e-6)

    alone = job(changed(label_smoothing=0.0))
    shared = training_model.shared_weights(built.training_model)
    weights = [variable.numpy() for variable in shared]
    alone.training_model.set_weights(weights)
    batch = next(iter(built.train_dataset(start=0)))
    kernels = []
    for one in (built, alone):
        one.train_step(batch)
        kernels.append(one.training_model.get_layer("conv").kernel.numpy())
    assert np.abs(kernels[0] - kernels[1]).max() > 0

    assert run(changed(epochs=1, **options)) == ExitCode.OK
    saved = models.load(tmp_path / "run")
    assert [layer.name for layer in saved.layers][-1] == "logit"


def test_mixup_mixes_images_and_losses(changed):
    built = job(changed(mixup=0.4, dropout=0.0, label_smoothing=0.0))
    batch = next(iter(built.train_dataset(start=0)))
    share = steps.mixup_fractions(8, 0.4, [built.config.seed, 0])[:, None].numpy()
    assert ((share >= 0.5) & (share <= 1)).all() and len(np.unique(share)) == 8
    other = steps.mixup_fractions(8, 0.4, [built.config.seed, 1])[:, None].numpy()
    assert (share != other).all()

    names = ("images", "step", "index")
    images = built.train_step._augment(*(batch[name] for name in names)).numpy()
    part = share[:, :, None, None]
    images = part * images + (1 - part) * np.roll(images, 1, axis=0)
    labels = batch["labels"].numpy()[:, None]
    targets = share * labels + (1 - share) * np.roll(labels, 1, axis=0)
    weights = built.training_model.get_weights()
    logits = built.training_model(images, training=True)[training_model.LOGIT]
    built.training_model.set_weights(weights)  # the moving statistics, too
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(targets), logits)
    built.train_step(batch)
    got = built.train_step.sums.numpy()[0]
    np.testing.assert_allclose(got, losses.numpy().sum(), rtol=1e-5)


def test_statistics_are_averaged_over_the_replicas(changed):
    built = job(changed(replicas=2, epochs=1))
    strategy = built.runtime.strategy
    mean = built.training_model.get_layer("norm").moving_mean
    values = [tf.fill([8], 1.0), tf.fill([8], 4.0)]
    for part, value in zip(
        strategy.experimental_local_results(mean.value), values, strict=True
    ):
        part.assign(value)
    built.publish()
    for part in strategy.experimental_local_results(mean.value):
        np.testing.assert_array_equal(part, np.full(8, 2.5))
    published = built.model.get_layer("norm").moving_mean.numpy()
    np.testing.assert_array_equal(published, np.full(8, 2.5))


def test_short_runs_follow_their_statistics_faster():
    momentums = [jobs.norm_momentum(steps) for steps in (1, 40, 100, 400, 2000)]
    assert momentums == [0.8, 0.8, 0.9, 0.97, 0.99]


def test_class_weights_of_the_manifest_enter_the_loss(config):
    objective = steps.Objective(8, 0.0, (0.5, 2.0))
    losses = objective.losses(tf.constant([0.0, 1.0]), tf.constant([0.0, 0.0]))
    np.testing.assert_allclose(losses, np.log(2) * np.array([0.5, 2.0]), rtol=1e-6)


def test_the_class_weights_that_train_are_those_of_the_manifest(
    changed, dataset_dir, tmp_path
):
    folder = shutil.copytree(dataset_dir, tmp_path / "weighted")
    text = (folder / FILE_NAME).read_text()
    weighted = dataclasses.replace(Manifest.from_json(text), class_weights=(3.0, 3.0))
    (folder / FILE_NAME).write_text(weighted.to_json())
    losses = []
    for data_dir in (dataset_dir, folder):
        built = job(changed(data_dir=str(data_dir)))
        built.train_step(next(iter(built.train_dataset(start=0))))
        losses.append(float(built.train_step.sums[0]))
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-4)


def test_evaluation_does_not_depend_on_the_batch_size(config):
    built = job(config)
    logits = [
        predict_split(
            built.evaluation_step,
            built.dataset,
            "test",
            evaluation_dataset(built.dataset, "test", size, as_supervised=False),
        )["logit"]
        for size in (1, 8, 64)
    ]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)
    np.testing.assert_allclose(logits[2], logits[0], atol=1e-5)


def test_an_xla_step_computes_what_one_without_does(changed):
    # Without dropout: XLA has other random numbers.
    found = []
    for xla in ("on", "off"):
        built = job(changed(xla=xla, aux_attributes=True, mixup=0.2, dropout=0.0))
        assert built.runtime.xla == (xla == "on")
        for batch in itertools.islice(built.train_dataset(start=0), 3):
            built.train_step(batch)
        weights = built.training_model.get_weights()
        found.append([built.train_step.sums.numpy(), *weights])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
