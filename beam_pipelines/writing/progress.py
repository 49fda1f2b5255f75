"""The progress of a build, by the reports that writers leave next to their shards.

They do so on every runner: nothing has to be sent, and nothing is counted that could
still be lost.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from beam_pipelines.writing.shards import ShardPlan, ShardReport, report_name
from beam_pipelines.writing.store import Store
from support.progress import LIVE_INTERVAL, Progress


class ReportCounter:
    """Counts what the reports in a folder say, reading only new ones.

    Attributes:
      images: read so far, the unusable ones included.
      rejected: the unusable ones.
    """

    def __init__(self, store: Store, plans: Sequence[ShardPlan]):
        self._store = store
        self._pending = {report_name(plan.name): plan for plan in plans}
        # Reports of an earlier pass or run, which the writers will replace.
        self._stale = {entry.name: _state(entry) for entry in self._entries()}
        self.images = self.rejected = 0

    def poll(self) -> None:
        """Counts the reports that appeared since the last call."""
        for entry in self._entries():
            if self._stale.get(entry.name) == _state(entry):
                continue
            plan = self._pending[entry.name]
            report = ShardReport.load(self._store, plan.name)
            if report is not None:
                del self._pending[entry.name]
                self.images += report.records + len(report.rejected)
                self.rejected += len(report.rejected)

    def _entries(self) -> list[os.DirEntry]:
        with os.scandir(self._store.location) as entries:
            return [entry for entry in entries if entry.name in self._pending]


@contextlib.contextmanager
def watch(store: Store, plans: Sequence[ShardPlan]) -> Iterator[None]:
    """Shows the progress of the block, which writes shards into a store.

    A remote store is not watched: it would have to be listed again and again.

    Args:
      store: where reports appear.
      plans: of the shards that are to be written.
    """
    if store.is_remote:
        yield
        return
    total = sum(len(plan.names) for plan in plans)
    reports = ReportCounter(store, plans)
    ended = threading.Event()

    def look(line: Progress) -> None:
        while not ended.wait(LIVE_INTERVAL):
            with contextlib.suppress(OSError):  # if it matters, the writers meet it
                reports.poll()
            if not reports.images:  # workers are starting: no part of their speed
                line.unpause()
            if reports.rejected:
                line.set_postfix_str(f"{reports.rejected:,} rejected", refresh=False)
            line.update(reports.images - line.n)

    with Progress(total, "writing", smoothing=0) as line:
        thread = threading.Thread(target=look, args=(line,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _state(entry: os.DirEntry) -> tuple[int, int]:
    """What changes when a file is replaced by a rename."""
    status = entry.stat()
    return status.st_ino, status.st_mtime_ns
