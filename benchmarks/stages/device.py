"""Stages on the device: transfer, warp, model, training, evaluation."""

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Timed, Work, steps
from trainer.augmentation import Augmenter
from trainer.data import train_dataset
from trainer.data.input_pipeline import IMAGES, INDEX, STEP, WEIGHTS
from trainer.loop.job import Job
from trainer.models import training_model

_EPOCHS = 1000  # more than are measured


class OnBatch:
    """Works that repeat a step on one batch, which stays on the device."""

    def __init__(self, job: Job):
        """Takes the job as `trainer.main` builds it, and its first batch.

        Raises:
          UserError: the batch is larger than the training split (exit 2).
        """
        self._job, config = job, job.config
        self._batch = next(iter(long_run(job)))
        augmenter = Augmenter(
            config.augment, config.augmentation, config.input_size, config.seed
        )
        self._augment = tf.function(
            lambda batch: augmenter(batch[IMAGES], batch[STEP], batch[INDEX])
        )

    def transfer(self) -> Work:
        """Brings the batch's images from the host to the GPU."""
        with tf.device("CPU:0"):
            images = tf.identity(self._batch[IMAGES])

        def move() -> tf.Tensor:
            with tf.device("GPU:0"):
                return tf.identity(images)

        return self._repeat(move)

    def warp(self) -> Work:
        """The job's augmentation, as the train step compiles it."""
        return self._repeat(lambda: self._augment(self._batch))

    def forward(self) -> Work:
        """The model that trains, in inference mode, on images that are warped."""
        model = self._job.training_model

        @tf.function(jit_compile=self._job.runtime.xla)
        def predict(images):
            return model(images, training=False)[training_model.LOGIT]

        return self._repeat(lambda: predict(self._warped))

    def step(self) -> Work:
        """The complete train step, warp included."""
        step = self._job.train_step

        def run() -> tf.Variable:
            step(self._batch)
            return step.sums

        return self._repeat(run)

    @functools.cached_property
    def _warped(self) -> tf.Tensor:
        return self._augment(self._batch)

    def _repeat(self, do: Callable[[], Any]) -> Work:
        def wait(last: Any) -> None:
            tf.reshape(last, [-1])[0].numpy()

        return steps(do, self._job.config.batch_size, wait)


def evaluation(job: Job) -> Work:
    """Reads, decodes and evaluates the validation split, in float32."""
    batches = job.evaluation_dataset("validation").repeat()

    def work(units: int) -> Timed:
        done, started = 0, time.perf_counter()
        for batch in itertools.islice(batches, units):
            job.evaluation_step(batch[IMAGES]).numpy()
            done += int(np.sum(batch[WEIGHTS].numpy()))
        return Timed(done, time.perf_counter() - started)

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
      cache: keep the decoded images in memory; the first call decodes all of them.
      between: called twice in every epoch, between two steps; its time counts.
    """
    batches, half = long_run(job, cache), max(1, job.steps_per_epoch // 2)

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
