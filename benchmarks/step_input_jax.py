"""The trainer's input for the train step on JAX: shards to arrays on the device."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks import step_worker


class Reader(Iterator[list[jax.Array]]):
    """Batches of a dataset's training split, without end.

    An epoch begins to read while the one before it is trained on: a small dataset
    stands in for a large one, whose epochs seldom end.

    Args:
      task: `data_dir` is read, `batch_size` examples at a time.

    Yields:
      images (batch, height, width, 3) uint8, parameters of the warp (batch, 5) float32
      and labels (batch,) float32, on the device or on the way to it.

    Attributes:
      waited: seconds that it took to give the batches, all of them so far.

    Raises:
      UserError: not a dataset, or a damaged one.
      ValueError: its training split has less than a batch.
    """

    def __init__(self, task: dict[str, Any]):
        # Here, since the other cases need no JPEG library.
        from trainer.dataset import open_dataset

        self._dataset = open_dataset(task["data_dir"])
        self._batch_size = task["batch_size"]
        count = self._dataset.manifest.num_examples("train")
        if count < self._batch_size:
            raise ValueError(f"{count} training examples are less than a batch")
        self._epochs = itertools.count()
        self._current, self._following = self._begin(), self._begin()
        self._ahead = self._put()
        self.waited = 0.0

    def __next__(self) -> list[jax.Array]:
        started = time.perf_counter()
        # The copy of the batch after this one runs beside this one's step.
        batch, self._ahead = self._ahead, self._put()
        self.waited += time.perf_counter() - started
        return batch

    def _begin(self) -> Iterator[dict[str, Any]]:
        from trainer.input_pipeline import Augmentation, train_batches

        ranges = Augmentation(step_worker.ROTATION, step_worker.SHIFT, flip=True)
        return train_batches(
            self._dataset, self._batch_size, 0, next(self._epochs), ranges
        )

    def _put(self) -> list[jax.Array]:
        from trainer.input_pipeline import IMAGES, LABELS, PARAMETERS

        batch = next(self._current, None)
        if batch is None:
            self._current, self._following = self._following, self._begin()
            batch = next(self._current)
        return [jax.device_put(batch[name]) for name in (IMAGES, PARAMETERS, LABELS)]
