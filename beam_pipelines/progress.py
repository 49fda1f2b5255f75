"""How far a program is: the seconds of its stages, and a line while it works."""

import time
from collections.abc import Callable
from typing import TextIO

from support.live import LiveLine, duration


class Stopwatch:
    """Seconds that each stage took, in order; the first began with the object."""

    def __init__(self):
        self._started = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Ends a stage; the next begins."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._started


class Meter:
    """Shows how many images are done, how fast, and for how long it will go on."""

    def __init__(
        self,
        total: int,
        done: str = "written",
        output: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begins to count.

        Args:
          total: images to do.
          done: the participle that tells what is done to them.
          output: where the lines go; None is standard output.
          clock: seconds.
        """
        self._total = total
        self._done = done
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
            parts.append(f"{rejected:,} rejected")
        return "  ".join(parts)
