"""How far a build is: one live line on a terminal, plain lines now and then in a log.

What counts are the receipts that writers leave beside their shards, whatever runner
they work for; so nothing has to be sent, and nothing is counted that could be lost.
"""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from beam_pipelines.shards import Receipt, ShardPlan, receipt_name
from beam_pipelines.stores import LocalStore, Store

#: Seconds between lines: on a terminal, where they replace each other, and in a log.
LIVE_INTERVAL, LOG_INTERVAL = 0.5, 10.0

_CLEAR = "\033[K"  # the rest of the line


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
        self._output = sys.stdout if output is None else output
        self._clock = clock
        self._live = self._output.isatty()
        self._interval = LIVE_INTERVAL if self._live else LOG_INTERVAL
        self._began = self._shown = clock()
        self._line = False

    def update(self, images: int, rejected: int = 0) -> None:
        """Shows a line if the last one is old enough.

        Args:
          images: done so far.
          rejected: how many of them are unusable.
        """
        now = self._clock()
        if not images:  # workers are starting: that is no part of their speed
            self._began = now
        if not self._total or now - self._shown < self._interval:
            return
        self._shown = now
        text = self._text(images, rejected, now - self._began)
        if self._live:
            # Written over the old line, then its rest is cleared: that cannot flicker.
            # A longer line than the terminal's would wrap and stay.
            columns = shutil.get_terminal_size().columns
            self._write(f"\r{text[: columns - 1]}{_CLEAR}")
            self._line = True
        else:
            self._write(f"{text}\n")

    def close(self) -> None:
        """Clears the live line."""
        if self._line:
            self._write(f"\r{_CLEAR}")
            self._line = False

    def _text(self, images: int, rejected: int, seconds: float) -> str:
        parts = [f"{images:,} of {self._total:,} images {self._done}"]
        if images:
            rate = images / max(seconds, 1e-9)
            left = (self._total - images) / rate
            parts += [f"{rate:,.0f} images/s", f"{_duration(left)} left"]
        if rejected:
            parts.append(f"{rejected:,} rejected")
        return "  ".join(parts)

    def _write(self, text: str) -> None:
        # A reader that went away, as `| head` does, is the main thread's concern.
        with contextlib.suppress(BrokenPipeError):
            self._output.write(text)
            self._output.flush()


class Receipts:
    """Counts what the receipts in a folder say, looking only at new ones.

    Attributes:
      images: read so far, the unusable ones included.
      rejected: the unusable ones.
    """

    def __init__(self, store: LocalStore, plans: Sequence[ShardPlan]):
        self._store = store
        self._waiting = {receipt_name(plan.name): plan for plan in plans}
        # Receipts of an earlier round or run, which the writers will replace.
        self._stale = {entry.name: _state(entry) for entry in self._entries()}
        self.images = self.rejected = 0

    def poll(self) -> None:
        """Counts the receipts that appeared since the last call."""
        for entry in self._entries():
            if self._stale.get(entry.name) == _state(entry):
                continue
            receipt = Receipt.load(self._store, self._waiting[entry.name].name)
            if receipt is not None:
                del self._waiting[entry.name]
                self.images += receipt.records + len(receipt.rejected)
                self.rejected += len(receipt.rejected)

    def _entries(self) -> list[os.DirEntry]:
        with os.scandir(self._store.folder) as entries:
            return [entry for entry in entries if entry.name in self._waiting]


@contextlib.contextmanager
def watch(store: Store, plans: Sequence[ShardPlan]) -> Iterator[None]:
    """Shows the progress of the block, which writes shards into a store.

    A remote store is not watched: it would have to be listed again and again.

    Args:
      store: where receipts appear.
      plans: of the shards that are not yet as they shall be.
    """
    if not isinstance(store, LocalStore):
        yield
        return
    receipts = Receipts(store, plans)
    meter = Meter(sum(len(plan.names) for plan in plans))
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LIVE_INTERVAL):
            with contextlib.suppress(FileNotFoundError):  # the writers will notice
                receipts.poll()
            meter.update(receipts.images, receipts.rejected)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        meter.close()


def _state(entry: os.DirEntry) -> tuple[int, int]:
    """What changes when a file is replaced by a rename."""
    status = entry.stat()
    return status.st_ino, status.st_mtime_ns


def _duration(seconds: float) -> str:
    """200 -> "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
