"""How far a program is: the seconds of its stages."""

import time


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
