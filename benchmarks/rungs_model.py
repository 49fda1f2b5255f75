"""The ladder's rungs on the device: transfer, warp, model, training, evaluation."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Timed
from benchmarks.limits import Work
from trainer import learner, runtime, warp
from trainer.config import TrainConfig
from trainer.dataset import Dataset
from trainer.input_pipeline import (
    IMAGES,
    PARAMETERS,
    WEIGHTS,
    Augmentation,
    evaluation_batches,
    train_batches,
)
from trainer.job import Job, build_job

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the rungs on the device share.

    Attributes:
      job: as `trainer.main` builds it.
      batch: training examples that stay on the device.
      warped: its images as the model takes them.
    """

    job: Job
    batch: Batch
    warped: tf.Tensor

    @classmethod
    def build(cls, config: TrainConfig, dataset: Dataset) -> "Parts":
        """Builds a job and takes one batch.

        Raises:
          UserError: the batch is larger than the training split (exit 2).
        """
        job = build_job(config, runtime.prepare(config), dataset)
        stream = endless(job, dataset)
        try:
            batch = next(stream)
        finally:
            stream.close()
        warped = warp.compiled(config.input_size)(batch[IMAGES], batch[PARAMETERS])
        return cls(job, batch, warped)

    @property
    def gpu(self) -> bool:
        return self.job.runtime.devices[0].startswith("GPU")


def endless(
    job: Job, dataset: Dataset, before_epoch: Callable[[], None] = lambda: None
) -> Iterator[Batch]:
    """Training batches, epoch after epoch, each in another order."""
    config = job.config
    augmentation = Augmentation.of(config)
    for epoch in itertools.count():
        before_epoch()
        batches = train_batches(
            dataset, config.batch_size, config.seed, epoch, augmentation
        )
        try:
            yield from batches
        finally:
            batches.close()


def fill(job: Job, dataset: Dataset) -> None:
    """Decodes the training images that `dataset` keeps in memory."""
    config = job.config
    batches = train_batches(
        dataset, config.batch_size, config.seed, 0, Augmentation.of(config)
    )
    for _ in batches:
        pass


def transfer(parts: Parts) -> Work:
    """Brings a batch's images from the host to the GPU."""
    with tf.device("CPU:0"):
        images = tf.identity(parts.batch[IMAGES])

    def move() -> Any:
        with tf.device("GPU:0"):
            return tf.identity(images)

    return _repeat(parts, move, lambda moved: moved[0, 0, 0, 0].numpy())


def warping(parts: Parts) -> Work:
    compiled = warp.compiled(parts.job.config.input_size)
    images, parameters = parts.batch[IMAGES], parts.batch[PARAMETERS]
    return _repeat(
        parts,
        lambda: compiled(images, parameters),
        lambda warped: warped[0, 0, 0, 0].numpy(),
    )


def forward(parts: Parts) -> Work:
    """The model that trains, in inference mode, on images that are warped already."""
    model = parts.job.learner

    @tf.function(jit_compile=parts.job.runtime.xla)
    def predict(images):
        return model(images, training=False)[learner.LOGIT]

    return _repeat(
        parts, lambda: predict(parts.warped), lambda logits: logits[0, 0].numpy()
    )


def stepping(parts: Parts) -> Work:
    """The whole train step, warp included, on the same batch again and again."""
    step = parts.job.train_step
    return _repeat(parts, lambda: step(parts.batch), lambda _: step.sums.numpy())


def training(
    job: Job,
    dataset: Dataset,
    waited: list[float],
    before_epoch: Callable[[], None] = lambda: None,
) -> Work:
    """Training from a dataset, from the second batch on: what was made ahead in a
    pause would flatter it.

    Args:
      job: whose step it is.
      dataset: read from.
      waited: takes the share of the time that each turn waited for batches.
      before_epoch: called before an epoch begins.
    """

    def work(units: int) -> Timed:
        stream = endless(job, dataset, before_epoch)
        try:
            batch, waiting = next(stream), 0.0
            started = time.perf_counter()
            for _ in range(units):
                job.train_step(batch)
                asked = time.perf_counter()
                batch = next(stream)
                waiting += time.perf_counter() - asked
            job.train_step.sums.numpy()  # waits for the device
            seconds = time.perf_counter() - started
        finally:
            stream.close()
        waited.append(waiting / seconds)
        return Timed(units * job.config.batch_size, seconds)

    return work


def evaluating(job: Job, dataset: Dataset, split: str = "validation") -> Work:
    """Reads, decodes and evaluates, in float32, with the averaged weights' model."""

    def batches() -> Iterator[Batch]:
        while True:
            yield from evaluation_batches(dataset, split, job.config.batch_size)

    def work(units: int) -> Timed:
        stream, done = batches(), 0
        started = time.perf_counter()
        for batch in itertools.islice(stream, units):
            job.evaluation_step(batch[IMAGES]).numpy()
            done += int(np.sum(batch[WEIGHTS].numpy()))
        stream.close()
        return Timed(done, time.perf_counter() - started)

    return work


def _repeat(parts: Parts, do: Callable[[], Any], wait: Callable[[Any], Any]) -> Work:
    """Work of which a unit is one call on a batch; only the last is waited for."""

    def work(units: int) -> Timed:
        started = time.perf_counter()
        for _ in range(units):
            result = do()
        wait(result)
        seconds = time.perf_counter() - started
        return Timed(units * parts.job.config.batch_size, seconds)

    return work
