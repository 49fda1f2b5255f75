"""The ladder's rungs on the device: transfer, warp, model, training, evaluation."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.harness import Timed
from benchmarks.ladder.limits import Work
from trainer.augmentation import Augmenter
from trainer.config import TrainConfig
from trainer.data import Dataset, train_dataset
from trainer.data.input_pipeline import IMAGES, INDEX, STEP, WEIGHTS
from trainer.loop import runtime
from trainer.loop.job import Job, build_job
from trainer.models import training_model

Batch = dict[str, Any]
_EPOCHS = 1000


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the rungs on the device share.

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
        job = build_job(config, runtime.prepare(config), dataset)
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


def transfer(parts: Parts) -> Work:
    """Brings a batch's images from the host to the GPU."""
    with tf.device("CPU:0"):
        images = tf.identity(parts.batch[IMAGES])

    def move() -> Any:
        with tf.device("GPU:0"):
            return tf.identity(images)

    return _repeat(parts, move, lambda moved: moved[0, 0, 0, 0].numpy())


def warping(parts: Parts) -> Work:
    return _repeat(
        parts,
        lambda: parts.augment(parts.batch),
        lambda warped: warped[0, 0, 0, 0].numpy(),
    )


def forward(parts: Parts) -> Work:
    """The model that trains, in inference mode, on images that are warped already."""
    model = parts.job.training_model

    @tf.function(jit_compile=parts.job.runtime.xla)
    def predict(images):
        return model(images, training=False)[training_model.LOGIT]

    return _repeat(
        parts, lambda: predict(parts.warped), lambda logits: logits[0, 0].numpy()
    )


def stepping(parts: Parts) -> Work:
    """The whole train step, warp included, on the same batch again and again."""
    step = parts.job.train_step
    return _repeat(parts, lambda: step(parts.batch), lambda _: step.sums.numpy())


def training(
    job: Job,
    batches: tf.data.Dataset,
    waited: list[float],
    between: Callable[[], None] = lambda: None,
) -> Work:
    """Training from batches, from the second one on: what was made ahead in a pause
    would flatter it.

    Args:
      job: whose step it is.
      batches: see `long_run`.
      waited: takes the share of the time that each turn waited for batches.
      between: called twice in every epoch, between two steps; its time counts.
    """

    half = max(1, job.steps_per_epoch // 2)

    def work(units: int) -> Timed:
        stream = iter(batches)
        batch, waiting = next(stream), 0.0
        started = time.perf_counter()
        for unit in range(units):
            if unit % half == 0:
                between()
            job.train_step(batch)
            asked = time.perf_counter()
            batch = next(stream)
            waiting += time.perf_counter() - asked
        job.train_step.sums.numpy()  # waits for the device
        seconds = time.perf_counter() - started
        waited.append(waiting / seconds)
        return Timed(units * job.config.batch_size, seconds)

    return work


def evaluating(job: Job, split: str = "validation") -> Work:
    """Reads, decodes and evaluates, in float32, with the averaged weights' model."""
    batches = job.evaluation_dataset(split)

    def work(units: int) -> Timed:
        done, started = 0, time.perf_counter()
        for batch in itertools.islice(batches.repeat(), units):
            job.evaluation_step(batch[IMAGES]).numpy()
            done += int(np.sum(batch[WEIGHTS].numpy()))
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
