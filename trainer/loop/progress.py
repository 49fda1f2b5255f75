"""What a run says while it runs, and how it is asked to stop."""

import dataclasses
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from support import command
from support.errors import UserError
from support.live import LiveLine, duration
from trainer.loop.checkpoint import Progress

#: Seconds between lines in a log.
LOG_INTERVAL = 30.0


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish that the loop grants between two steps.

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
            # It came when the loop had ended: whoever handles it now shall have it.
            signal.raise_signal(self.signal)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise command.Stopped(number)
        self.signal = number


def stopped(number: int, words: str) -> UserError:
    """The end of a stopped run, which `words` on a command line resume."""
    return command.stopped(number, f"Go on with: {words}")


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What an epoch is, and how many there are.

    Attributes:
      number: counted from 1.
      epochs: of the run, at most.
      steps: of every epoch.
      batch_size: images per step.
      validation_seconds: what validating is expected to take after each epoch.
    """

    number: int
    epochs: int
    steps: int
    batch_size: int
    validation_seconds: float = 0.0

    @property
    def label(self) -> str:
        return f"epoch {self.number:>{len(str(self.epochs))}}/{self.epochs}"

    def run_seconds(self, step: int, per_step: float) -> float:
        """What the run still takes after a step of this epoch, at a pace."""
        later = self.epochs - self.number
        steps = self.steps - step + later * self.steps
        return steps * per_step + (later + 1) * self.validation_seconds


class Meter:
    """Counts an epoch's steps, across stops: their seconds, and those of waiting."""

    def __init__(
        self,
        line: LiveLine,
        epoch: Epoch,
        progress: Progress,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Begins to measure, or goes on.

        Args:
          line: where `show` writes.
          epoch: which one.
          progress: of the run: steps and times of this epoch are kept there.
          clock: seconds.
        """
        self._line = line
        self._epoch = epoch
        self._progress = progress
        self._first = progress.step
        self._clock = clock
        self._origin = clock() - progress.epoch_seconds
        self._warm = clock()

    def wait(self, iterator: Any) -> Any:
        """The next batch; the time that it takes counts as waiting for input."""
        before = self._clock()
        batch = next(iterator)
        self._progress.epoch_waited += self._clock() - before
        return batch

    def step(self) -> None:
        """Counts a step."""
        self._progress.step += 1
        if self._progress.step == self._first + 1:
            self._warm = self._clock()  # what lies before compiled the step
        self._keep()

    def is_due(self) -> bool:
        """Whether to show a line; the step that compiles says nothing of the speed."""
        return self._progress.step > self._first + 1 and self._line.is_due()

    def row(self) -> dict[str, float]:
        """The epoch's speed for the history: input_wait is a share of its seconds."""
        seconds = self._keep()
        images = self._progress.step * self._epoch.batch_size
        return {
            "images_per_second": images / seconds,
            "input_wait": self._progress.epoch_waited / seconds,
            "seconds": seconds,
        }

    def show(self, loss: float, accuracy: float) -> None:
        """Shows where the epoch is, if `is_due`; loss and accuracy (0..1) so far."""
        epoch, step = self._epoch, self._progress.step
        wait = self._progress.epoch_waited / self._keep()
        per_step = max(self._seconds_per_step(), 1e-9)
        self._line.show(
            f"{epoch.label}  step {step}/{epoch.steps}  "
            f"loss {loss:.4f}  accuracy {accuracy:.2%}  "
            f"{epoch.batch_size / per_step:,.1f} images/s  "
            f"input wait {wait:.1%}  "
            f"{duration((epoch.steps - step) * per_step)} left, "
            f"{duration(epoch.run_seconds(step, per_step))} of the run"
        )

    def _keep(self) -> float:
        """Keeps the times; the epoch's seconds, those between its parts left out."""
        progress, seconds = self._progress, max(self._clock() - self._origin, 1e-9)
        progress.seconds += seconds - progress.epoch_seconds
        progress.epoch_seconds = seconds
        return seconds

    def _seconds_per_step(self) -> float:
        """Without this process' first step, which compiles."""
        return (self._clock() - self._warm) / (self._progress.step - self._first - 1)
