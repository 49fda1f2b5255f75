"""Images per second of every stage: where the time goes, and which flag to change.

    python -m benchmarks --data_dir=data/tfrecords --budget=60s

climbs the ladder: read shards, parse, decode, batch, host to device, warp, model,
train step, training, evaluation, each beside its own limit, measured in the same
rounds. Training is measured on one batch that is there already, on decoded images in
memory, on shards in the page cache and on shards on the disk: what each way is slower
than the one before is the price of what was added. One device is used, and of a large
dataset the first shards.
"""

import dataclasses
import sys
import time
from typing import Any

from absl import flags

from benchmarks import harness
from benchmarks.ladder.ladder_config import LadderConfig
from benchmarks.train_step.step_cases import backend
from support import command, memory
from support.errors import UserError
from support.files import output_errors

#: Of the budget; the rest is for trying the suggestion, if that is asked for.
_LADDER_SHARE = 0.7
#: With fewer rounds a single disturbance can look like a stall.
_ENOUGH_ROUNDS = 3


def main(argv: list[str]) -> None:
    started = time.perf_counter()
    values = flags.FlagValues()
    command.define_flags(LadderConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(LadderConfig, values)
    backend("tensorflow")
    _climb(config, started)


def _climb(config: LadderConfig, started: float) -> None:
    import trainer.quiet  # noqa: F401 - before anything imports TensorFlow
    from benchmarks.ladder import ladder as ladders
    from benchmarks.ladder import ladder_text, pace
    from trainer.loop import wakeup

    with wakeup.Watch(), memory.named("Use a smaller --batch_size or --input_size."):
        ladder = ladders.Ladder(config)
        share = _LADDER_SHARE if config.try_suggestion else 1
        left = config.seconds * share - (time.perf_counter() - started)
        raw, plan = pace.measure(ladder.works, left, _note)
        measured = ladders.with_limits(ladder, raw)
        print(ladder_text.table(ladder.rungs, measured))
        settings = ladder_text.settings(ladder, raw)
        settings |= {"rounds": plan.rounds, "turn_seconds": plan.turn_seconds}
        settings |= _judge(ladder, measured, started)
    if note := ladder.cold.note():
        print(f"note: {note}")
    if plan.rounds < _ENOUGH_ROUNDS:
        print(
            f"note: measured in {plan.rounds} round(s) only: a single disturbance can "
            "look like a stall. Give it a longer --budget."
        )
    took = time.perf_counter() - started
    if took > config.seconds and not plan.fits:
        print(
            f"note: {took:.0f} s were needed, more than --budget={config.budget}: "
            "choose some --rungs, a smaller --batch_size or a longer budget."
        )
    _write(config, list(measured.values()), settings)


def _judge(ladder: Any, measured: dict, started: float) -> dict[str, Any]:
    """Prints noise, stalls, verdict and suggestion; returns them for the document."""
    from benchmarks.ladder import ladder as ladders
    from benchmarks.ladder import ladder_text, stalls, trial

    again = measured[ladder.doubled + ladders.AGAIN]
    noise = stalls.noise_of(measured[ladder.doubled].samples, again.samples)
    print(ladder_text.noise(ladder.doubled, noise))
    found = {"noise": noise}
    if not set(ladders.TRAIN.values()) <= set(measured):
        print("The stall analysis needs --rungs=train.")
        return found
    rates = stalls.Rates(
        measured[ladders.STEP].median,
        *(measured[name].median for name in ladders.TRAIN.values()),
    )
    setting = ladder.setting(measured)
    verdict = stalls.verdict(rates, setting, noise)
    print(stalls.describe(rates, noise))
    print(f"Verdict: {verdict.sentence}")
    print(f"Suggestion: {verdict.suggestion}; {verdict.reason}.")
    found |= {
        "waiting": {way: rates.waiting(way) for way in ladders.TRAIN},
        "stalls": rates.shares(stalls.COLD),
        "verdict": verdict.sentence,
        "suggestion": verdict.suggestion,
    }
    if not ladder.config.try_suggestion:
        return found
    if not verdict.field:
        print("Nothing to try.")
        return found
    left = ladder.config.seconds - (time.perf_counter() - started)
    try:
        with memory.named("The machine is too small for it."):
            tried = trial.run(ladder, verdict, setting.usual, left)
    except UserError as error:
        print(f"{verdict.suggestion} could not be tried: {error}")
        return found
    print(trial.describe(verdict.suggestion, tried))
    rates = {name: list(measurement.samples) for name, measurement in tried.items()}
    return found | {"tried": rates}


def _write(
    config: LadderConfig,
    measurements: list[harness.Measurement],
    settings: dict[str, Any],
) -> None:
    options = dataclasses.asdict(config)
    del options["write"], options["data_dir"]
    name = f"ladder-{config.model}-{config.input_size}"
    result = harness.document(name, "images", measurements, options | settings)
    harness.check(result)
    if config.write:
        with output_errors(harness.RESULTS):
            print(harness.write(result))


def _note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    command.run(main)
