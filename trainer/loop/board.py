"""What TensorBoard shows of a run: scalars by step, and its options as HParams.

A run's events say what its history says: they are written anew when it goes on, so that
an epoch that was done twice is there once, and none is missing.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import summary

from support.errors import ExitCode, UserError
from support.files import full_disk_error
from trainer.config import NOT_COMPARED, TrainConfig

FOLDER = "tensorboard"
_STEP = "step"
_NO_SCALARS = ("epoch", _STEP)
_SUCCESS, _FAILURE = "STATUS_SUCCESS", "STATUS_FAILURE"
_RESUMABLE = (ExitCode.STOPPED, ExitCode.INTERRUPTED)


class Board:
    """Writes a run's events; a context manager that says at last how the run ended."""

    def __init__(
        self,
        run_dir: Path,
        config: TrainConfig,
        started: str,
        history: list[dict[str, Any]],
    ):
        """Begins the events anew with the epochs that are done.

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
        with write_errors(self._folder):
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = tf.summary.create_file_writer(str(self._folder))
        self._write(start)
        for row in history:
            self.add(row)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object):
        # What ended the run says more than that its end could not be written.
        with contextlib.suppress(*([UserError] if error else [])):
            if error is None:
                self._write(summary.session_end_pb(_SUCCESS))
            elif isinstance(error, UserError) and error.exit_code not in _RESUMABLE:
                self._write(summary.session_end_pb(_FAILURE))
            with write_errors(self._folder):
                self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes an epoch's row of the history.

        Raises:
          UserError: the disk is full or not writable (exit 4).
        """
        with write_errors(self._folder), self._writer.as_default(row[_STEP]):
            for name, value in row.items():
                if name not in _NO_SCALARS:
                    tf.summary.scalar(name, value)
            self._writer.flush()

    def _write(self, message: Any) -> None:
        with write_errors(self._folder), self._writer.as_default(0):
            tf.summary.experimental.write_raw_pb(message.SerializeToString())
            self._writer.flush()


def hyperparameters(config: TrainConfig) -> dict[str, bool | float | str]:
    """The options that decide what a run computes, as HParams can hold them."""
    return {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in dataclasses.asdict(config).items()
        if name not in NOT_COMPARED
    }


@contextlib.contextmanager
def write_errors(folder: Path) -> Iterator[None]:
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
