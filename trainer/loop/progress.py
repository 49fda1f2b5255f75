"""What a run shows while it trains, and how it is asked to stop."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

from support import command
from support.progress import Progress as ProgressLine
from support.progress import duration
from trainer.config import TrainConfig
from trainer.loop.checkpoint import Progress


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a request that the loop grants between two steps.

    A second one stops at once.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._ask)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, kind: type | None, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.signal is not None:
            # It came after the loop's last look: the outer handler gets it.
            signal.raise_signal(self.signal)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise command.Stopped(number)
        self.signal = number


class Meter:
    """Counts and shows an epoch's steps; their times add up across stops.

    A context manager: on a terminal the line is cleared however the block ends.
    """

    def __init__(
        self,
        config: TrainConfig,
        steps: int,
        progress: Progress,
        output: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Begins to measure where the run stopped.

        Args:
          config: of the run.
          steps: of every epoch.
          progress: of the run: steps and times of this epoch are kept there.
          output: where the lines go; None is standard error.
          clock: seconds.
        """
        self._config = config
        self._progress = progress
        self._clock = clock
        self._first = progress.step
        self._origin = clock() - progress.epoch_seconds
        self._line = ProgressLine(
            steps * config.batch_size,
            epoch_label(config, progress),
            output=output,
            initial=progress.step * config.batch_size,
            smoothing=0,
        )

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._line.close()

    def wait(self, iterator: Any) -> Any:
        """The next batch; the time that it takes counts as waiting for input."""
        before = self._clock()
        batch = next(iterator)
        self._progress.epoch_waited += self._clock() - before
        return batch

    def step(self) -> None:
        """Counts a step."""
        self._progress.step += 1
        self._line.n += self._config.batch_size
        if self._progress.step == self._first + 1:
            # This step compiled: it says nothing of the speed.
            self._line.initial = self._line.n
            self._line.unpause()
        self._keep()

    def is_due(self) -> bool:
        """Tells whether to show a line."""
        return self._progress.step > self._first + 1 and self._line.is_due()

    def show(self, loss: float, accuracy: float) -> None:
        """Shows a line, if `is_due`, with loss and accuracy (0..1) so far."""
        waited = self._progress.epoch_waited / self._keep()
        self._line.set_postfix_str(
            f"loss {loss:.4f}, accuracy {accuracy:.2%}, input wait {waited:.1%}, "
            f"{duration(self._run_seconds())} of the run",
            refresh=False,
        )
        self._line.update(0)

    def row(self) -> dict[str, float]:
        """The epoch's speed for the history; input_wait is a fraction of 1."""
        seconds = self._keep()
        return {
            "images_per_second": self._line.n / seconds,
            "input_wait": self._progress.epoch_waited / seconds,
            "seconds": seconds,
        }

    def _keep(self) -> float:
        """Keeps the times; returns the epoch's seconds without those between stops."""
        progress, seconds = self._progress, max(self._clock() - self._origin, 1e-9)
        progress.seconds += seconds - progress.epoch_seconds
        progress.epoch_seconds = seconds
        return seconds

    def _run_seconds(self) -> float:
        """What the rest of the run takes at this pace, if it does not end early."""
        line, history = self._line, self._progress.history
        pace = line.format_dict["elapsed"] / (line.n - line.initial)
        later = self._config.epochs - self._progress.epoch - 1
        images = line.total - line.n + later * line.total
        validation = history[-1]["validation_seconds"] if history else 0.0
        return images * pace + (later + 1) * validation


def epoch_label(config: TrainConfig, progress: Progress) -> str:
    """The epoch that is under way, for example "epoch  3/40"."""
    width = len(str(config.epochs))
    return f"epoch {progress.epoch + 1:>{width}}/{config.epochs}"
