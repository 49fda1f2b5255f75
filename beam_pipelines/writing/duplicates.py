"""Images with the same bytes under several names, which must not be in two splits."""

from collections.abc import Sequence

import numpy as np

from beam_pipelines.planning.selection import Plan
from beam_pipelines.writing.shards import ShardReport
from beam_pipelines.writing.staging import Rejection
from schemas import celeba

REASON = "duplicate"


def find(plan: Plan, reports: Sequence[ShardReport]) -> list[Rejection]:
    """Finds the images to exclude so that equal ones are in one split only.

    Of equal images the one with the smallest name stays, and those in its split.

    Args:
      plan: what was written.
      reports: on all its shards, in order.
    """
    rows, splits = [], []
    for report, (_, split, members) in zip(reports, plan.shards(), strict=True):
        if report.rejected:
            bad = [name.encode() for name, _, _ in report.rejected]
            members = members[~np.isin(plan.rows.names[members], bad)]
        rows.append(members)
        splits.append(np.full(len(members), celeba.SPLITS.index(split)))
    names, split = plan.rows.names[np.concatenate(rows)], np.concatenate(splits)
    # Strings of bytes compare without their last zeros; all have one length, so
    # equal is equal.
    digests = np.frombuffer(
        bytes.fromhex("".join(report.images_sha256 for report in reports)), "S32"
    )
    order = np.lexsort((names, digests))
    names, split, digests = names[order], split[order], digests[order]
    is_first = np.append(True, digests[1:] != digests[:-1])[: len(digests)]
    kept = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]  # of each image's group
    return [
        (names[i].decode(), REASON, _detail(names[kept[i]], split[kept[i]]))
        for i in np.flatnonzero(split != split[kept])
    ]


def _detail(name: bytes, split: int) -> str:
    return f"duplicate of {name.decode()}, which is in {celeba.SPLITS[split]}"
