"""A profiler trace of some steps of a run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from support.errors import usage_error
from trainer.config import TrainConfig
from trainer.loop.board import write_errors


def check_steps(config: TrainConfig, total: int) -> None:
    """Refuses a trace of steps that a run of `total` steps does not have (exit 2)."""
    if config.profile_steps[1] > total:
        raise usage_error(
            f"--profile_steps={config.profile_steps[0]},{config.profile_steps[1]}, but "
            f"the run has {total} steps.",
            f"Choose steps in 1..{total}.",
        )


class Trace:
    """Records steps A to B of `--profile_steps=A,B` with TensorFlow's profiler.

    A context manager: a run that ends within these steps leaves what it recorded.
    """

    def __init__(self, config: TrainConfig, folder: Path):
        """Records nothing yet.

        Args:
          config: which steps, counted from 1 over the whole run; 0,0 for none.
          folder: the trace goes to its plugins/profile, where TensorBoard looks for it.
        """
        self._first, self._last = config.profile_steps
        self._folder = folder
        self._running = False

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Surrounds a step, counted from 1 over the whole run."""
        if not self._first <= number <= self._last:
            yield
            return
        if not self._running:
            _wait_for_devices()
            tf.profiler.experimental.start(str(self._folder))
            self._running = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number == self._last:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            _wait_for_devices()
            with write_errors(self._folder):
                tf.profiler.experimental.stop()
            print(f"profile: {self._folder / 'plugins' / 'profile'}", flush=True)


def _wait_for_devices() -> None:
    """Until the steps that were only handed to an accelerator are done there."""
    tf.test.experimental.sync_devices()
