"""Images per second of every stage of training: where the time goes, what to change.

    python -m benchmarks --data_dir=data/tfrecords --budget=60s

measures the stages of a training run: read shards, parse, decode, batch, host to
device, warp, model, train step, training, evaluation, each with its upper bound, in
the same rounds. Training is measured on one batch that stays on the device, on decoded
images in memory, on shards in the page cache and on shards on the disk: what each is
slower than the one before is the price of what was added. One device is used, and of a
large dataset the first shards.
"""

import dataclasses
import sys
import time
from typing import Any

from benchmarks import harness
from benchmarks.stages.config import StagesConfig
from benchmarks.train_step.cases import backend
from support import command, memory

#: With fewer rounds a single disturbance can look like a stall.
_ENOUGH_ROUNDS = 3


def main(argv: list[str]) -> None:
    started = time.perf_counter()
    config = command.parse_config(StagesConfig, argv)
    backend("tensorflow")
    import trainer.quiet  # noqa: F401 - before anything imports TensorFlow
    from benchmarks.stages.breakdown import Breakdown
    from trainer.loop import wakeup

    with wakeup.Watch(), memory.named("Use a smaller --batch_size or --input_size."):
        breakdown = Breakdown(config)
        left = config.seconds - (time.perf_counter() - started)
        raw, rounds = harness.measure_within(breakdown.works, left, _note)
    measurements = breakdown.measurements(raw)
    settings = dataclasses.asdict(config) | breakdown.settings(raw)
    judgement, lines = _judge(breakdown, measurements)
    settings |= {"rounds": rounds} | judgement
    name = f"stages-{config.model}-{config.input_size}"
    harness.report(name, "images", measurements, settings, config.write)
    print(*lines, sep="\n")
    if rounds < _ENOUGH_ROUNDS:
        print(
            f"note: measured in {rounds} round(s) only, so a single disturbance can "
            "look like a stall. Give it a longer --budget, or choose some --stages."
        )


def _judge(
    breakdown: Any, measurements: list[harness.Measurement]
) -> tuple[dict[str, Any], list[str]]:
    """Noise, stalls, verdict and suggestion: for the document, and to be printed."""
    from benchmarks.stages import stalls
    from benchmarks.stages.breakdown import AGAIN

    doubled = breakdown.doubled
    results = {one.name: one for one in measurements}
    again = results[doubled + AGAIN]
    noise = stalls.noise_of(results[doubled].samples, again.samples)
    lines = [f"Noise: the {doubled}, measured twice, differs by {noise:.1%}."]
    if not {stalls.STEP, *stalls.WAYS} <= set(results):
        return {"noise": noise}, [*lines, "The stall analysis needs --stages=train."]
    rates = {name: results[name].median for name in (stalls.STEP, *stalls.WAYS)}
    setting = breakdown.setting(results[stalls.STEP])
    sentence, suggestion, reason = stalls.verdict(rates, setting, noise)
    lines += [stalls.describe(rates, noise), f"Verdict: {sentence}"]
    lines += [f"Suggestion: {suggestion}; {reason}."]
    waiting = {way: stalls.waiting(rates, way) for way in stalls.WAYS}
    found = {"noise": noise, "waiting": waiting, "verdict": sentence}
    return found | {"suggestion": suggestion}, lines


def _note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    command.run(main)
