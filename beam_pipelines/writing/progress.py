"""The progress of a build, by the reports that writers leave next to their shards.

They do so on every runner: nothing has to be sent, and nothing is counted that could
still be lost.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence

from beam_pipelines.writing.shards import ShardPlan, ShardReport, report_name
from beam_pipelines.writing.store import Store
from support.progress import LIVE_INTERVAL, Progress


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
    pending = {plan.name: plan.digest for plan in plans}
    ended = threading.Event()

    def look(line: Progress) -> None:
        rejected = 0
        while not ended.wait(LIVE_INTERVAL):
            reports = new_reports(store, pending)
            rejected += sum(len(report.rejected) for report in reports)
            if not line.n:  # workers are starting: no part of their speed
                line.unpause()
            if rejected:
                line.set_postfix_str(f"{rejected:,} rejected", refresh=False)
            line.update(sum(report.images for report in reports))

    total = sum(len(plan.names) for plan in plans)
    with Progress(total, "writing", smoothing=0) as line:
        thread = threading.Thread(target=look, args=(line,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def new_reports(store: Store, pending: dict[str, str]) -> list[ShardReport]:
    """The reports that appeared since the last call.

    Args:
      store: where they appear; a folder that cannot be read has none.
      pending: names of shards -> digests of their plans; those reported are removed.
    """
    with contextlib.suppress(OSError):  # if it matters, the writers meet it
        existing = store.sizes()
        names = [name for name in pending if report_name(name) in existing]
        loaded = [ShardReport.load(store, name) for name in names]
        # Others are of an earlier pass or run: the writers will replace them.
        new = [part for part in loaded if part and part.plan == pending[part.name]]
        for report in new:
            del pending[report.name]
        return new
    return []
