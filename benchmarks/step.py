"""Images per second of the train step, for each model, size, precision and batch size.

    python -m benchmarks.step --models=all --sizes=128,224 --precision=auto,float32 \\
        --batch_sizes=16,32 --peers_python=PYTHON

trains on random numbers that are in memory: nothing is read. The case "warp" also
warps its images, 178×218 of uint8, inside the step; the others get float32 images of
the model's size. Compared with the trainer's step, interleaved and each in a process of
its own: "again", the same once more, which shows the noise; "onednn_off"; "keras",
plain Keras' train_on_batch; "pytorch", the same network there; "compiled", the same by
torch.compile on a CPU; "torchvision", its own network.

"MFU" is the fraction of this machine's own matrix products, measured between the rounds
in the same precision, that the operations of the layers reach (model FLOPs
utilization).
"""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any

from benchmarks import harness, programs
from benchmarks.options import POSITIVE, SECONDS, Options, check_choices
from benchmarks.train_step import cases
from benchmarks.train_step.cases import KINDS, OURS, WARP, Kind
from support import command
from trainer.config import INPUT_SIZES, MODELS, PRECISIONS, TrainConfig

ALL = "all"


@dataclasses.dataclass(frozen=True)
class StepConfig(Options):
    """Models, sizes, precisions and cases to measure."""

    models: tuple[str, ...] = command.option((ALL,), "Architectures, or all.")
    sizes: tuple[int, ...] = command.option(
        (128,), "Sides of the input, pixels.", INPUT_SIZES
    )
    precision: tuple[str, ...] = command.option(
        ("auto",), "Some of auto, float32, bfloat16, float16."
    )
    batch_sizes: tuple[int, ...] = command.option((32,), "Examples per step.", POSITIVE)
    cases: tuple[str, ...] = command.option(
        (ALL,),
        "Some of ours, again, warp, onednn_off, keras, pytorch, compiled, torchvision, "
        "or all.",
    )
    round_seconds: float = command.option(
        2.0, "Length of a case's turn, seconds.", SECONDS
    )
    peers_python: str = command.option(
        "", "A Python that has PyTorch and torchvision; empty = this one."
    )

    def __post_init__(self):
        super().__post_init__()
        check_choices("models", self.models, (ALL, *MODELS))
        check_choices("precision", self.precision, PRECISIONS)
        check_choices("cases", self.cases, (ALL, *KINDS))

    @property
    def kinds(self) -> dict[str, Kind]:
        """The cases by name; ours is always there, the others compare with it."""
        return {
            name: kind
            for name, kind in KINDS.items()
            if name == OURS or name in self.cases or ALL in self.cases
        }


def main(argv: list[str]) -> None:
    config = command.parse_config(StepConfig, argv)
    measured, found = measure(config)
    name = "-".join(["step", *config.models, *map(str, config.sizes)])
    settings = dataclasses.asdict(config) | found
    harness.report(name, "images", measured, settings, config.write)


def measure(config: StepConfig) -> tuple[list[harness.Measurement], dict[str, Any]]:
    """Measures everything that the options name; prints what it skips.

    Returns:
      the measurements, and the precision `auto` and what the peers' program runs on.

    Raises:
      UserError: Keras has another backend (exit 2); nothing could be measured (exit 7
        if for want of memory).
    """
    cases.backend("tensorflow")
    import trainer.quiet  # noqa: F401 - before anything imports TensorFlow
    from trainer.loop import runtime

    found = {"auto": runtime.prepare(TrainConfig()).precision, "peers": {}}
    models = MODELS if ALL in config.models else config.models
    precisions = [found["auto"] if p == "auto" else p for p in config.precision]
    options = (models, config.sizes, precisions, config.batch_sizes)
    measured, failures = [], []
    for values in itertools.product(*map(dict.fromkeys, options)):
        names = ("model", "size", "precision", "batch_size")
        task = dict(zip(names, values, strict=True))
        try:
            measured += _measure(config, task, found["peers"])
        except programs.ProgramFailed as error:  # the other tasks may need less memory
            print(f"skipped: {_label(task)}: {error.cause}", flush=True)
            failures.append(error)
    if not measured:
        raise failures[0]
    return measured, found


def _label(task: Mapping[str, Any]) -> str:
    return "{model} {size} {precision} batch {batch_size}".format(**task)


def _measure(
    config: StepConfig, task: Mapping[str, Any], peers: dict[str, str]
) -> list[harness.Measurement]:
    """Measures the cases of one task, all of whose programs run at the same time.

    Cases that do not start are skipped with a message; what those of another framework
    say about themselves is added to `peers`.

    Raises:
      programs.ProgramFailed: ours did not start, or one ended later.
    """
    started: dict[str, programs.Program] = {}
    with contextlib.ExitStack() as stack:
        for name, kind in config.kinds.items():
            message = {"case": kind.case, "round_seconds": config.round_seconds, **task}
            words = [*kind.words(config.peers_python), json.dumps(message)]
            try:
                program = programs.Program(words, kind.environment)
            except programs.ProgramFailed as error:
                if name == OURS:
                    raise
                print(f"skipped: {name}, {_label(task)}: {error.cause}", flush=True)
            else:
                started[name] = stack.enter_context(program)
                peers |= program.about
        turns = [harness.Case(name, one.run) for name, one in started.items()]
        product = functools.partial(started[OURS].run, "matmul")
        turns.append(harness.Case("matmul", product))
        *measured, peak = harness.measure(turns, config.rounds)
    results = []
    for one in measured:
        facts = {"batch": float(task["batch_size"]), **started[one.name].facts}
        facts["peak, GFLOP/s"] = peak.median / 1e9
        facts["MFU"] = one.median * facts["GFLOP/image"] * 1e9 / peak.median
        facts["of ours"] = harness.ratio(one.samples, measured[0].samples)
        if one.name == WARP:
            facts["warp's fraction"] = 1 - facts["of ours"]
        name = f"{_label(task)}, {one.name}"
        print(f"  {name}: {one.median:,.4g} images/s ±{one.spread:.1%}", flush=True)
        results.append(harness.Measurement(name, one.samples, facts))
    return results


if __name__ == "__main__":
    command.run(main)
