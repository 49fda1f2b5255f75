"""What the ladder prints, and what its document says beside the rates."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import harness
from benchmarks.harness import Measurement
from benchmarks.ladder.ladder import Ladder, Rung

_COLUMNS = ("rung", "images/s", "spread", "limit", "share")


def table(rungs: Sequence[Rung], measured: Mapping[str, Measurement]) -> str:
    """The rungs as a table in plain text that is a Markdown table, too."""
    rows = [_COLUMNS, *(_row(rung, measured[rung.name]) for rung in rungs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [_line(row, widths) for row in rows]
    rule = [f"{'-' * (width - 1)}{':' if i else '-'}" for i, width in enumerate(widths)]
    return "\n".join([lines[0], _line(rule, widths), *lines[1:]])


def noise(doubled: str, share: float) -> str:
    return (
        f"Noise: the {doubled}, measured twice, differs by {share:.1%}; a difference "
        "smaller than that is called noise."
    )


def settings(ladder: Ladder, measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """The data, the machine's settings and the limits, each in its own unit."""
    manifest = ladder.part.manifest
    cases = dict.fromkeys(rung.limit.case for rung in ladder.rungs if rung.limit)
    names = {rung.name for rung in ladder.rungs}
    return {
        "image_shape": list(manifest.image_shape),
        "images": manifest.num_examples("train"),
        "record_bytes": round(ladder.records.record_bytes),
        "effective": ladder.parts.job.runtime.describe(),
        "limits_per_second": {
            case: measured[case].median for case in cases if case not in names
        },
        "noise_of": ladder.doubled,
    }


def _row(rung: Rung, measurement: Measurement) -> tuple[str, ...]:
    limit = share = ""
    if rung.limit:
        limit = f"{harness.rate(measurement.facts['limit'])} ({rung.limit.words})"
        share = f"{measurement.facts['share of limit']:.0%}"
    rate, spread = harness.rate(measurement.median), f"±{measurement.spread:.0%}"
    return rung.name, rate, spread, limit, share


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return f"| {' | '.join(cells)} |"
