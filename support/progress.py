"""Progress of long work: tqdm's live line on a terminal, a line now and then in a log.

Everything goes to standard error, so that standard output stays for results.
"""

import sys
import threading
import time
from typing import Any, TextIO

from tqdm import tqdm

#: Seconds between lines: on a terminal, where they replace each other, and in a log.
LIVE_INTERVAL, LOG_INTERVAL = 0.5, 30.0


class Progress(tqdm):
    """Shows how many items are done, how fast, and how long the rest will take.

    A context manager: on a terminal the line is cleared however the block ends.
    `update(n)` counts; `set_postfix_str(text, refresh=False)` adds free text;
    `unpause()` leaves the time since the last line out of the rate.
    """

    monitor_interval = 0  # no thread of tqdm's own

    def __init__(
        self,
        total: int,
        action: str,
        unit: str = "images",
        output: TextIO | None = None,
        **options: Any,
    ):
        """Starts the clock; the first line comes after the first interval.

        Args:
          total: items to do.
          action: what is done, such as "writing"; the line begins with it.
          unit: what is counted.
          output: where the lines go; None is standard error.
          **options: tqdm's, for example `initial`, or `smoothing=0` for the mean rate.
        """
        output = output or sys.stderr
        self._live = output.isatty()
        interval = LIVE_INTERVAL if self._live else LOG_INTERVAL
        super().__init__(
            total=total,
            desc=action,
            unit=f" {unit}",
            file=output,
            leave=False,
            dynamic_ncols=self._live,
            mininterval=interval,
            delay=interval,
            miniters=0,  # `update(0)` shows a line, too
            **options,
        )

    def is_due(self) -> bool:
        """Tells whether the next `update` shows a line: only then text is needed."""
        return self._time() - self.last_print_t >= self.mininterval

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Replaces the line on a terminal; a log gets lines of its own."""
        if self._live:
            return super().display(msg, pos)
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return None


# tqdm's default also locks between processes, for which it may start one.
Progress.set_lock(threading.RLock())


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


def duration(seconds: float) -> str:
    """Formats seconds for people: 200 -> "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
