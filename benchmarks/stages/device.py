"""Stages on the device: transfer, warp, model, training, evaluation."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Timed, Work
from trainer.augmentation import Augmenter
from trainer.config import TrainConfig
from trainer.data import Dataset, train_dataset
from trainer.data.input_pipeline import IMAGES, INDEX, STEP, WEIGHTS
from trainer.loop import runtime
from trainer.loop.job import Job
from trainer.models import training_model

Batch = dict[str, Any]
_EPOCHS = 1000  # more than are measured


@dataclasses.dataclass(frozen=True)
class Parts:
    """Objects that the stages on the device share.

    Attributes:
      job: as `trainer.main` builds it.
      batch: training examples that stay on the device.
      augment: its augmentation, as the train step compiles it.
      warped: its images as the model takes them.
    """

    job: Job
    batch: Batch
    augment: Callable[[Batch], tf.Tensor]
    warped: tf.Tensor

    @classmethod
    def build(cls, config: TrainConfig, dataset: Dataset) -> "Parts":
        """Builds a job and takes one batch.

        Raises:
          UserError: the batch is larger than the training split (exit 2).
        """
        job = Job(config, runtime.prepare(config), dataset)
        batch = next(iter(long_run(job)))
        augmenter = Augmenter(
            config.augment, config.augmentation, config.input_size, config.seed
        )
        augment = tf.function(
            lambda batch: augmenter(batch[IMAGES], batch[STEP], batch[INDEX])
        )
        return cls(job, batch, augment, augment(batch))

    @property
    def gpu(self) -> bool:
        return self.job.runtime.devices[0].startswith("GPU")

    def transfer(self) -> Work:
        """Brings the batch's images from the host to the GPU."""
        with tf.device("CPU:0"):
            images = tf.identity(self.batch[IMAGES])

        def move() -> tf.Tensor:
            with tf.device("GPU:0"):
                return tf.identity(images)

        return self._repeat(move)

    def warp(self) -> Work:
        return self._repeat(lambda: self.augment(self.batch))

    def forward(self) -> Work:
        """The model that trains, in inference mode, on images that are warped."""
        model = self.job.training_model

        @tf.function(jit_compile=self.job.runtime.xla)
        def predict(images):
            return model(images, training=False)[training_model.LOGIT]

        return self._repeat(lambda: predict(self.warped))

    def step(self) -> Work:
        """The complete train step, warp included, on the same batch every time."""
        step = self.job.train_step

        def run() -> tf.Variable:
            step(self.batch)
            return step.sums

        return self._repeat(run)

    def evaluate(self) -> Work:
        """Reads, decodes and evaluates the validation split, in float32."""
        batches = self.job.evaluation_dataset("validation").repeat()

        def work(units: int) -> Timed:
            done, started = 0, time.perf_counter()
            for batch in itertools.islice(batches, units):
                self.job.evaluation_step(batch[IMAGES]).numpy()
                done += int(np.sum(batch[WEIGHTS].numpy()))
            return Timed(done, time.perf_counter() - started)

        return work

    def _repeat(self, do: Callable[[], tf.Tensor]) -> Work:
        """Work of which a unit is one call on a batch; waits for the last one only."""

        def work(units: int) -> Timed:
            started = time.perf_counter()
            for _ in range(units):
                result = do()
            tf.reshape(result, [-1])[0].numpy()  # waits for the device
            seconds = time.perf_counter() - started
            return Timed(units * self.job.config.batch_size, seconds)

        return work


def long_run(job: Job, cache: bool = False) -> tf.data.Dataset:
    """Batches of more epochs than are measured.

    Only a few shards are used: a buffer that takes them all would read each epoch in
    one go, before a turn's clock runs.
    """
    config = job.config
    part = max(1, job.dataset.manifest.num_examples("train") // 8)
    return train_dataset(
        job.dataset,
        config.batch_size,
        config.seed,
        _EPOCHS,
        shuffle_buffer=min(config.shuffle_buffer, part),
        cache=cache,
        as_supervised=False,
    )


def training(job: Job, cache: bool, between: Callable[[], None]) -> Work:
    """Training on a stream of batches, from the second batch on.

    The first was made in a pause, and would flatter the rate.

    Args:
      job: whose step it is.
      cache: keep the decoded images in memory; all are decoded before the first turn.
      between: called twice in every epoch, between two steps; its time counts.
    """
    batches, half = long_run(job, cache), max(1, job.steps_per_epoch // 2)
    if cache:
        next(iter(batches))

    def work(units: int) -> Timed:
        stream = iter(batches)
        batch = next(stream)
        started = time.perf_counter()
        for unit in range(units):
            if unit % half == 0:
                between()
            job.train_step(batch)
            batch = next(stream)
        job.train_step.sums.numpy()  # waits for the device
        seconds = time.perf_counter() - started
        return Timed(units * job.config.batch_size, seconds)

    return work
