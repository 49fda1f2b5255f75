"""Trying what the ladder suggests: training as it is, again, and with the flag."""

import dataclasses

from benchmarks import harness
from benchmarks.harness import Measurement
from benchmarks.ladder import pace, rungs_model, stalls
from benchmarks.ladder.ladder import Ladder

AS_IT_IS, AGAIN = "as it is", "as it is, again"


def run(
    ladder: Ladder, verdict: stalls.Verdict, way: str, seconds: float
) -> dict[str, Measurement]:
    """Measures training from shards with a suggested flag and without, in turns.

    Args:
      ladder: whose dataset and step are used.
      verdict: with a suggestion.
      way: how `trainer.main` would read, see `stalls.Setting`.
      seconds: for all of it.

    Raises:
      UserError: the data do not allow the suggestion (exit 2).
    """
    job, waited = ladder.parts.job, []
    works = {AS_IT_IS: ladder.training(job, way, waited)}
    works[AGAIN] = works[AS_IT_IS]
    if verdict.field == "cache_mb":
        changed = ladder.training(job, stalls.CACHED, waited)
    else:
        config = dataclasses.replace(job.config, **{verdict.field: verdict.value})
        other = rungs_model.Parts.build(config, ladder.part).job
        changed = ladder.training(other, way, waited)
    works[verdict.suggestion] = changed
    return pace.measure(works, seconds)[0]


def describe(suggestion: str, measured: dict[str, Measurement]) -> str:
    """One sentence on what a flag changed, held against the noise."""
    before, after = measured[AS_IT_IS], measured[suggestion]
    noise = stalls.noise_of(before.samples, measured[AGAIN].samples)
    gain = after.median / before.median - 1
    said = (
        f"Tried {suggestion}: {harness.rate(before.median)} images/s as it is, "
        f"{harness.rate(after.median)} with it"
    )
    if abs(gain) < noise:
        return f"{said}: noise (±{noise:.1%})."
    return f"{said}: {gain:+.1%} (noise ±{noise:.1%})."
