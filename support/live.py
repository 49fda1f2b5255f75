"""Deprecated: use `support.progress`."""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from support.progress import duration

#: Seconds between lines: on a terminal, where they replace each other, and in a log.
LIVE_INTERVAL, LOG_INTERVAL = 0.5, 10.0

_CLEAR = "\033[K"  # the rest of the line


class LiveLine:
    """A line that replaces itself on a terminal, and repeats itself in a log.

    As a context manager it is cleared however the block ends.
    """

    def __init__(
        self,
        output: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        log_interval: float = LOG_INTERVAL,
    ):
        """Starts to count the time to the first line.

        Args:
          output: where the lines go; None is standard output.
          clock: seconds.
          log_interval: seconds between lines where there is no terminal.
        """
        self._output = sys.stdout if output is None else output
        self._clock = clock
        self._live = self._output.isatty()
        self._interval = LIVE_INTERVAL if self._live else log_interval
        self._shown = clock()
        self._line = False

    def __enter__(self) -> "LiveLine":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def is_due(self) -> bool:
        """Whether the last line is old enough for another."""
        return self._clock() - self._shown >= self._interval

    def show(self, text: str) -> None:
        """Shows a line, due or not."""
        self._shown = self._clock()
        if self._live:
            self.note(text)
        else:
            self._write(f"{text}\n")

    def note(self, text: str) -> None:
        """Shows a line on a terminal; a log has no need of it."""
        if self._live:
            # Written over the old line, then its rest is cleared: that cannot flicker.
            # A longer line than the terminal's would wrap and stay.
            columns = shutil.get_terminal_size().columns
            self._write(f"\r{text[: columns - 1]}{_CLEAR}")
            self._line = True

    def close(self) -> None:
        """Clears the live line."""
        if self._line:
            self._write(f"\r{_CLEAR}")
            self._line = False

    def _write(self, text: str) -> None:
        # A reader that went away, as `| head` does, is the main thread's concern.
        with contextlib.suppress(BrokenPipeError):
            self._output.write(text)
            self._output.flush()


class Meter:
    """Shows how many images are done, how fast, and for how long it will go on."""

    def __init__(
        self,
        total: int,
        done: str = "written",
        output: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        rejected: str = "rejected",
    ):
        """Begins to count.

        Args:
          total: images to do.
          done: the participle that tells what is done to them.
          output: where the lines go; None is standard output.
          clock: seconds.
          rejected: the participle that tells what happens to unusable images.
        """
        self._total = total
        self._done = done
        self._rejected = rejected
        self._line = LiveLine(output, clock)
        self._clock = clock
        self._began = clock()

    def update(self, images: int, rejected: int = 0) -> None:
        """Shows a line if the last one is old enough.

        Args:
          images: done so far.
          rejected: how many of them are unusable.
        """
        now = self._clock()
        if not images:  # workers are starting: that is no part of their speed
            self._began = now
        if self._total and self._line.is_due():
            self._line.show(self._text(images, rejected, now - self._began))

    def close(self) -> None:
        """Clears the live line."""
        self._line.close()

    def _text(self, images: int, rejected: int, seconds: float) -> str:
        parts = [f"{images:,} of {self._total:,} images {self._done}"]
        if images:
            rate = images / max(seconds, 1e-9)
            left = (self._total - images) / rate
            parts += [f"{rate:,.0f} images/s", f"{duration(left)} left"]
        if rejected:
            parts.append(f"{rejected:,} {self._rejected}")
        return "  ".join(parts)
