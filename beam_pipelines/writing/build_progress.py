"""The progress of a build, by the receipts that writers leave beside their shards.

They do so whatever runner they work for: nothing has to be sent, and nothing is counted
that could still be lost.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from beam_pipelines.writing.shards import Receipt, ShardPlan, receipt_name
from beam_pipelines.writing.stores import LocalStore, Store
from support.live import LIVE_INTERVAL, Meter


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
            with contextlib.suppress(OSError):  # if it matters, the writers meet it
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
