"""What a run says while it runs, and how it is asked to stop."""

import signal
import sys
import time
from types import FrameType
from typing import Any

from support.errors import ExitCode, UserError

_INTERVAL = 0.5  # seconds between updates of the line on a terminal


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish that the loop grants between two steps.

    A second Ctrl-C stops at once.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._ask)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


def stopped(number: int, command: str) -> UserError:
    """The end of a stopped run: exit 130 after Ctrl-C, 75 after SIGTERM."""
    interrupted = number == signal.SIGINT
    return UserError(
        f"Stopped by {'Ctrl-C' if interrupted else 'SIGTERM'}.",
        f"Go on with: {command}",
        ExitCode.INTERRUPTED if interrupted else ExitCode.STOPPED,
    )


class Meter:
    """Counts images and the time spent waiting for them, and shows one live line."""

    def __init__(self, epoch: int, epochs: int, steps: int, batch_size: int):
        self._label = f"epoch {epoch}/{epochs}"
        self._steps = steps
        self._batch_size = batch_size
        self._started = self._shown = time.perf_counter()
        self._done = 0
        self._waited = 0.0
        self._live = sys.stdout.isatty()

    def wait(self, iterator: Any) -> Any:
        """The next batch; the time that it takes counts as waiting for input."""
        before = time.perf_counter()
        batch = next(iterator)
        self._waited += time.perf_counter() - before
        return batch

    def step(self) -> None:
        self._done += 1
        now = time.perf_counter()
        if self._live and now - self._shown > _INTERVAL:
            self._shown = now
            self._show()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def images_per_second(self) -> float:
        return self._done * self._batch_size / max(self.seconds, 1e-9)

    @property
    def input_wait(self) -> float:
        """Share of the time spent waiting for input, 0..1."""
        return self._waited / max(self.seconds, 1e-9)

    def close(self) -> None:
        if self._live:
            print("\r\033[K", end="", flush=True)

    def _show(self) -> None:
        left = (self._steps - self._done) * self.seconds / max(self._done, 1)
        print(
            f"\r\033[K{self._label}  step {self._done}/{self._steps}  "
            f"{self.images_per_second:,.0f} images/s  "
            f"input wait {self.input_wait:.1%}  epoch ends in {left:.0f} s",
            end="",
            flush=True,
        )
