"""A run's TensorBoard directory: scalars by step, options as HParams, a trace.

A run's events say what its history says: they are written again when it resumes, so
that an epoch that was done twice is there once, and none is missing.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import summary

from support.errors import ExitCode, UserError, usage_error
from support.files import full_disk_error
from trainer.config import NOT_COMPARED, TrainConfig

FOLDER = "tensorboard"
_STEP = "step"
_NO_SCALARS = ("epoch", _STEP)
_SUCCESS, _FAILURE = "STATUS_SUCCESS", "STATUS_FAILURE"
_RESUMABLE = (ExitCode.STOPPED, ExitCode.INTERRUPTED)


class Events:
    """Writes a run's events; a context manager that records how the run ended."""

    def __init__(
        self,
        run_dir: Path,
        config: TrainConfig,
        started: str,
        history: list[dict[str, Any]],
    ):
        """Begins the events again with the epochs that are done.

        Args:
          run_dir: the run folder; the events go to its `tensorboard`.
          config: its options are the HParams.
          started: when the run was, ISO 8601.
          history: one row per finished epoch.

        Raises:
          UserError: the disk is full or not writable (exit 4).
        """
        self._folder = run_dir / FOLDER
        start = summary.session_start_pb(
            hyperparameters(config),
            start_time_secs=datetime.datetime.fromisoformat(started).timestamp(),
        )
        with _write_errors(self._folder):
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = tf.summary.create_file_writer(str(self._folder))
        self._write(start)
        for row in history:
            self.add(row)

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object):
        # What ended the run says more than that its end could not be written.
        with contextlib.suppress(*([UserError] if error else [])):
            if error is None:
                self._write(summary.session_end_pb(_SUCCESS))
            elif isinstance(error, UserError) and error.exit_code not in _RESUMABLE:
                self._write(summary.session_end_pb(_FAILURE))
            with _write_errors(self._folder):
                self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes an epoch's row of the history.

        Raises:
          UserError: the disk is full or not writable (exit 4).
        """
        with _write_errors(self._folder), self._writer.as_default(row[_STEP]):
            for name, value in row.items():
                if name not in _NO_SCALARS:
                    tf.summary.scalar(name, value)
            self._writer.flush()

    def _write(self, message: Any) -> None:
        with _write_errors(self._folder), self._writer.as_default(0):
            tf.summary.experimental.write_raw_pb(message.SerializeToString())
            self._writer.flush()


def hyperparameters(config: TrainConfig) -> dict[str, bool | float | str]:
    """The options that decide what a run computes, as HParams can hold them."""
    return {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in dataclasses.asdict(config).items()
        if name not in NOT_COMPARED
    }


def check_profile_steps(config: TrainConfig, total: int) -> None:
    """Refuses a trace of steps that a run of `total` steps does not have (exit 2)."""
    if config.profile_steps[1] > total:
        raise usage_error(
            f"--profile_steps={config.profile_steps[0]},{config.profile_steps[1]}, but "
            f"the run has {total} steps.",
            f"Choose steps in 1..{total}.",
        )


class Trace:
    """Records steps A to B of `--profile_steps=A,B` with TensorFlow's profiler.

    A run that ends within these steps calls `stop`, too.
    """

    def __init__(self, run_dir: Path, config: TrainConfig):
        """Records nothing yet; `tensorboard/plugins/profile` will have the trace."""
        self._first, self._last = config.profile_steps
        self._folder = run_dir / FOLDER
        self._running = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Surrounds a step, counted from 1 over the whole run."""
        if not self._first <= number <= self._last:
            yield
            return
        if not self._running:
            tf.test.experimental.sync_devices()
            tf.profiler.experimental.start(str(self._folder))
            self._running = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number == self._last:
            self.stop()

    def stop(self) -> None:
        """Writes what was recorded, if anything was."""
        if self._running:
            self._running = False
            # An accelerator may still work on steps that were handed to it.
            tf.test.experimental.sync_devices()
            with _write_errors(self._folder):
                tf.profiler.experimental.stop()
            print(f"profile: {self._folder / 'plugins' / 'profile'}", flush=True)


@contextlib.contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Turns what TensorFlow raises when it cannot write into an error of the disk."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise full_disk_error(folder) from error
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            f"{folder} cannot be written: {str(error).splitlines()[0]}.",
            "Make it writable, or use --tensorboard=false and no --profile_steps.",
            ExitCode.OUTPUT,
        ) from error
