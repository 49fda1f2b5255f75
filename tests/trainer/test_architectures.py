"""Each of the five: saved and loaded, every precision, every regime."""

import dataclasses

import keras
import numpy as np
import pytest

from trainer import input_pipeline, models, runtime, train
from trainer.config import TrainConfig

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
QUICK = {"float32": "googlenet", "bfloat16": "resnet50", "float16": "googlenet"}


@pytest.fixture(autouse=True)
def plain_precision():
    yield
    keras.mixed_precision.set_dtype_policy("float32")
    keras.utils.clear_session()


def train_one_step(config: TrainConfig) -> tuple[train.Job, list[np.ndarray]]:
    """A job after its first step, and the learner's weights before it."""
    dataset = input_pipeline.open_dataset(config.data_dir)
    job = train.build_job(config, runtime.prepare(config), dataset)
    before = job.learner.get_weights()
    batches = input_pipeline.train_batches(
        dataset, config.batch_size, 0, 0, input_pipeline.Augmentation(20, (0, 0), True)
    )
    job.train_step(next(iter(batches)))
    return job, before


def changed_layers(job, before):
    """Names of the layers whose weights differ from before, and of all with weights."""
    changed, every = set(), set()
    pairs = zip(job.learner.weights, before, strict=True)
    for variable, old in pairs:
        layer = variable.path.split("/")[-2]
        every.add(layer)
        if not np.array_equal(variable.numpy(), old):
            changed.add(layer)
    return changed, every


@pytest.fixture
def config(dataset_dir, tmp_path):
    return TrainConfig(
        data_dir=str(dataset_dir),
        run_dir=str(tmp_path / "new"),
        input_size=64,
        batch_size=2,
        warmup_epochs=0,
    )


CASES = [
    pytest.param(
        name,
        precision,
        marks=() if QUICK[precision] == name else pytest.mark.slow,
    )
    for name in models.ARCHITECTURES
    for precision in QUICK
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_one_step_in_every_precision(config, name, precision):
    config = dataclasses.replace(config, model=name, precision=precision)
    job, before = train_one_step(config)
    loss, _, seen = job.train_step.sums.numpy()
    assert seen == 2
    assert np.isfinite(loss)
    changed, every = changed_layers(job, before)
    assert changed == every
    assert all(np.isfinite(value).all() for value in job.learner.get_weights())
