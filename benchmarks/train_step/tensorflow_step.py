"""The train step on TensorFlow, one case to a process; `benchmarks.step` runs it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The package trainer switches oneDNN on before anything imports TensorFlow.
import trainer.quiet  # noqa: F401

# isort: split
import keras
import numpy as np
import tensorflow as tf

from benchmarks import flops, programs
from benchmarks.harness import Work, steps
from benchmarks.train_step import cases
from schemas.celeba import CELEBA
from schemas.manifest import Manifest, Shard
from trainer import models
from trainer.config import TrainConfig
from trainer.data import Dataset
from trainer.data.input_pipeline import ATTRIBUTES, IMAGES, INDEX, LABELS, STEP
from trainer.loop import runtime, wakeup
from trainer.loop.job import Job
from trainer.loop.runtime import Runtime
from trainer.loop.steps import TrainStep

_STEPS_PER_EPOCH = 100
#: Size of CelebA's aligned images, which the warp resizes.
_HEIGHT, _WIDTH = 218, 178
#: Side of the matrices whose product is the peak, and products per call: a small one
#: does not fill a GPU, and waiting for one takes longer than the product.
_CPU_MATMUL, _GPU_MATMUL = (2048, 1), (8192, 16)


def prepare(task: dict[str, Any]) -> programs.Step:
    """Builds the case `task["case"]`: ours, warp or keras."""
    config = TrainConfig(
        model=task["model"],
        input_size=task["size"],
        batch_size=task["batch_size"],
        precision=task["precision"],
        replicas=1,
    )
    effective = runtime.prepare(config)
    if task["case"] == "keras":
        model, work = _keras(config)
    else:
        model, work = _ours(config, effective, task["case"] == "warp")
    gpus = tf.config.list_physical_devices("GPU")

    def device_bytes() -> int:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else 0

    facts = {
        "parameters": float(model.count_params()),
        "trainable": float(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "GFLOP/image": flops.training(model) / 1e9,
    }
    multiply = matmul(effective.precision, bool(gpus))
    return programs.Step(work, facts, device_bytes, multiply)


def _ours(
    config: TrainConfig, effective: Runtime, warp: bool
) -> tuple[keras.Model, Work]:
    """The trainer's own step, or the same on images that are warped already."""
    job = Job(config, effective, _dataset(config))
    step = job.train_step
    if not warp:
        step = TrainStep(
            job.training_model,
            lambda images, *_: images,
            job.optimizer,
            job.objective,
            effective.xla,
            effective.strategy,
        )
    batch = _batch(config, not warp)
    work = steps(lambda: step(batch), config.batch_size, lambda _: step.sums.numpy())
    return job.training_model, work


def _keras(config: TrainConfig) -> tuple[keras.Model, Work]:
    """Plain Keras: stock layers, all else by default."""
    model = models.build(config.model, config.input_size, dropout=cases.DROPOUT)
    model.compile(
        keras.optimizers.AdamW(cases.LEARNING_RATE, weight_decay=cases.WEIGHT_DECAY),
        keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=cases.SMOOTHING
        ),
    )
    batch = _batch(config, warped=True)
    images, labels = batch[IMAGES], batch[LABELS][:, None]
    # It returns the loss as a number, and so waits for every step.
    train = functools.partial(model.train_on_batch, images, labels)
    return model, steps(train, config.batch_size, lambda _: None)


def _batch(config: TrainConfig, warped: bool) -> dict[str, tf.Tensor]:
    """Random examples for the trainer's step, the same every time.

    Its images are (batch, size, size, 3) float32 if they are warped already, else
    (batch, 218, 178, 3) uint8; 0..255.
    """
    rng, count = np.random.default_rng(0), config.batch_size
    sides = (config.input_size, config.input_size) if warped else (_HEIGHT, _WIDTH)
    images = rng.uniform(0, 255, (count, *sides, 3))
    return {
        IMAGES: tf.constant(images.astype("float32" if warped else "uint8")),
        STEP: tf.constant(0, tf.int64),
        INDEX: tf.range(count, dtype=tf.int64),
        LABELS: tf.constant(rng.integers(0, 2, count).astype("float32")),
        ATTRIBUTES: tf.zeros([count, len(CELEBA.attributes)]),
    }


def _dataset(config: TrainConfig) -> Dataset:
    """A manifest without files: the job takes only counts and shapes from it."""
    count = _STEPS_PER_EPOCH * config.batch_size
    shard = Shard("none", "train", count, 0, "", (count // 2, count - count // 2))
    shape = (_HEIGHT, _WIDTH, 3)
    return Dataset(
        Path(),
        Manifest(
            CELEBA.about, CELEBA.attributes, "Male", shape, {}, (1.0, 1.0), {}, (shard,)
        ),
    )


def matmul(precision: str, gpu: bool) -> Work:
    """Products of large square matrices, made at the first call; the units are FLOP."""
    side, products = _GPU_MATMUL if gpu else _CPU_MATMUL

    @functools.cache
    def make() -> Callable[[], tf.Tensor]:
        first = tf.cast(tf.random.normal([side, side]), precision)
        # The products keep their size.
        second = tf.cast(tf.random.normal([side, side]) / side**0.5, precision)

        @tf.function
        def multiply():
            product = first
            for _ in range(products):
                product = tf.matmul(product, second)
            return product[0, 0]

        return multiply

    return steps(lambda: make()(), 2 * side**3 * products, lambda last: last.numpy())


if __name__ == "__main__":
    with wakeup.Watch():
        programs.serve(prepare)
