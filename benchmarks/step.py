"""Images per second of the train step, for each model, size, precision and batch size.

    python -m benchmarks.step --models=all --sizes=128,224 --precision=auto,float32 \\
        --batch_sizes=auto --peers_python=PYTHON

trains on random numbers that are there already: nothing is read. The case "warp" also
warps its images, 178×218 of uint8, inside the step; the others get float32 images of
the model's size. Next to the trainer's step, in turns and each in a process of its own:
"again", the same once more, which shows the noise; "stock", without the fused
normalization; "onednn_off"; "keras", plain Keras' train_on_batch; "pytorch", the same
network there; "torchvision", its own network.

"MFU" is what of this machine's own matrix products, measured between the rounds in the
same precision, the operations of the layers reach (model FLOPs utilization).
--batch_sizes=auto doubles the batch size as long as "ours" trains faster, from 8 on a
CPU and 32 on a GPU, or from the half, a quarter and so on of it that fits into memory.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import batch_search, harness, turns
from benchmarks.train_step import step_cases, step_facts
from benchmarks.train_step.step_cases import KINDS, OURS, Kind, backend
from support import command
from support.errors import ExitCode, UserError, did_you_mean, usage_error
from trainer.config import MODELS, PRECISIONS

ALL, AUTO = "all", "auto"
_SIDES = (32, 1024)
#: Where --batch_sizes=auto begins, on a CPU and on a GPU.
_FIRST_BATCH, _FIRST_BATCH_GPU = 8, 32


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What to measure."""

    models: tuple[str, ...] = command.option((ALL,), "Architectures, or all.")
    sizes: tuple[int, ...] = command.option((128,), "Sides of the input, pixels.")
    precision: tuple[str, ...] = command.option(
        (AUTO,), "Some of auto, float32, bfloat16, float16."
    )
    batch_sizes: tuple[str, ...] = command.option(
        ("32",), "Examples per step; auto looks for the fastest number."
    )
    search_seconds: float = command.option(
        300.0, "The longest that auto looks for one model, size and precision."
    )
    cases: tuple[str, ...] = command.option(
        (ALL,),
        "Some of ours, again, warp, stock, onednn_off, keras, pytorch, torchvision, or "
        "all.",
    )
    rounds: int = command.option(5, "Measured rounds; one more warms up.")
    round_seconds: float = command.option(2.0, "Length of a case's turn, seconds.")
    peers_python: str = command.option(
        "", "A Python that has PyTorch; empty = this one, if it has it."
    )
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if self.rounds < 1 or not self.round_seconds > 0 or not self.search_seconds > 0:
            raise usage_error(
                f"--rounds={self.rounds}, --round_seconds={self.round_seconds} or "
                f"--search_seconds={self.search_seconds} is too few.",
                "Use 1 round and 0.1 seconds or more.",
            )
        for size in self.sizes:
            if not _SIDES[0] <= size <= _SIDES[1]:
                raise usage_error(
                    f"--sizes={size} is not between {_SIDES[0]} and {_SIDES[1]}.",
                    "Try --sizes=128.",
                )
        for size in self.batch_sizes or ("",):
            if size != AUTO and not (size.isdecimal() and int(size)):
                raise usage_error(
                    f"--batch_sizes={size} is neither auto nor a number above 0.",
                    "Write it like --batch_sizes=32,64.",
                )
        _check("models", self.models, (ALL, *MODELS))
        _check("precision", self.precision, PRECISIONS)
        _check("cases", self.cases, (ALL, *KINDS))

    @property
    def kinds(self) -> dict[str, Kind]:
        """The cases by name; ours is always there, the others compare with it."""
        return {
            name: kind
            for name, kind in KINDS.items()
            if name == OURS or name in self.cases or ALL in self.cases
        }


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(StepConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(StepConfig, values)
    result = measure(config)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def measure(config: StepConfig) -> dict[str, Any]:
    """Measures everything that the options name; prints what it leaves out.

    Returns:
      The result, a document of `harness`.

    Raises:
      UserError: Keras has another backend (exit 2); nothing could be measured (exit 7
        if for want of memory).
    """
    backend("tensorflow")
    device = step_cases.device()
    kinds, peers = step_cases.available(config.kinds, config.peers_python)
    measurements, searches, failures = [], {}, []
    for task in _tasks(config, device["precision"]):
        try:
            if task["batch_size"] == AUTO:
                measurements += _measure_best(config, task, kinds, device, searches)
            else:
                measurements += _measure(config, task, kinds)
        except turns.ProgramFailed as error:  # the other tasks may need less memory
            print(f"skipped: {_label(task)}: {error}", flush=True)
            failures.append((task, error))
    if not measurements:
        raise _nothing_measured(*failures[0])
    settings = dataclasses.asdict(config) | {
        "device": device,
        "peers": peers,
        "batch_searches": searches,
    }
    del settings["write"], settings["peers_python"]
    name = "-".join(["step", *config.models, *map(str, config.sizes)])
    return harness.document(name, "images", measurements, settings)


def _check(flag: str, values: Sequence[str], choices: Sequence[str]) -> None:
    if not values:
        raise usage_error(f"--{flag} is empty.", f"Choose of {', '.join(choices)}.")
    for value in values:
        if value not in choices:
            raise usage_error(
                f"--{flag}={value} is none of {', '.join(choices)}.",
                did_you_mean(value, choices),
            )


def _tasks(config: StepConfig, auto: str) -> Iterator[dict[str, Any]]:
    """What is measured together: one model, size, precision and batch size at a time.

    Args:
      config: the options.
      auto: the precision that fits the machine.
    """
    names = MODELS if ALL in config.models else config.models
    resolved = [auto if name == AUTO else name for name in config.precision]
    batches = [size if size == AUTO else int(size) for size in config.batch_sizes]
    for model in dict.fromkeys(names):
        for size in dict.fromkeys(config.sizes):
            for precision in dict.fromkeys(resolved):
                for batch_size in dict.fromkeys(batches):
                    yield {
                        "model": model,
                        "size": size,
                        "precision": precision,
                        "batch_size": batch_size,
                        "round_seconds": config.round_seconds,
                    }


def _label(task: Mapping[str, Any]) -> str:
    return "{model} {size} {precision} batch {batch_size}".format(**task)


def _nothing_measured(task: Mapping[str, Any], error: turns.ProgramFailed) -> UserError:
    size = task["batch_size"]
    # auto has tried small ones already.
    less = "smaller --sizes" if size in (AUTO, 1) else f"--batch_sizes={size // 2}"
    return UserError(
        f"The program that trains {_label(task)} ended: {error}.",
        f"Try {less}, or fewer --cases at a time.",
        ExitCode.OUT_OF_MEMORY if error.out_of_memory else ExitCode.BUG,
    )


def _measure_best(
    config: StepConfig,
    task: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    device: Mapping[str, Any],
    searches: dict[str, str],
) -> list[harness.Measurement]:
    """Finds the best batch size by ours alone, then measures all cases with it.

    Adds to `searches` what was found.

    Raises:
      turns.ProgramFailed: ours ran out of memory even with one example, or ended for
        another reason.
    """

    def ours(batch_size: int) -> harness.Measurement:
        only = {OURS: kinds[OURS]}
        return _measure(config, {**task, "batch_size": batch_size}, only)[0]

    first = _FIRST_BATCH_GPU if device.get("gpu") else _FIRST_BATCH
    found = batch_search.search(ours, first, config.search_seconds)
    said = f"{found.best} is best, because {found.ended}"
    searches[_label(task)] = said
    print(f"{_label(task)}: {said}", flush=True)
    tried = list(found.tried.values())
    if len(kinds) == 1:
        return tried
    batch_size = batch_search.fits(found, len(kinds))
    while True:
        try:
            beside = _measure(config, {**task, "batch_size": batch_size}, kinds)
        except turns.ProgramFailed as error:
            if not error.out_of_memory or batch_size == 1:
                raise
            print(f"{_label(task)}: {batch_size} side by side: {error}", flush=True)
            batch_size //= 2
        else:
            names = {measured.name for measured in beside}
            return [one for one in tried if one.name not in names] + beside


def _measure(
    config: StepConfig, task: Mapping[str, Any], kinds: Mapping[str, Kind]
) -> list[harness.Measurement]:
    """Measures the cases of one task, all of whose programs live side by side.

    What ends on the way is left out with a word.

    Raises:
      turns.ProgramFailed: ours ended.
    """
    programs: dict[str, turns.Program] = {}
    try:
        for name, kind in kinds.items():
            program = _start(config, task, name, kind)
            if program is not None:
                programs[name] = program
        measured, rounds = _take_turns(config, task, programs)
        said = {name: program.facts for name, program in programs.items()}
    finally:
        for program in programs.values():
            program.close()
    print(f"{_label(task)}: {step_facts.parameters(said)}", flush=True)
    results = step_facts.add(_label(task), task["batch_size"], measured, said, rounds)
    for one in results:
        print(f"  {one.name}: {one.median:,.4g} images/s ±{one.spread:.1%}", flush=True)
    return results


def _start(
    config: StepConfig, task: Mapping[str, Any], name: str, kind: Kind
) -> turns.Program | None:
    """Starts the program of a case; what others cannot do is left out with a word."""
    told = json.dumps({**task, "case": kind.case})
    words = [step_cases.python(kind, config.peers_python), "-m", kind.module, told]
    try:
        return turns.Program(words, kind.environment)
    except turns.ProgramFailed as error:
        if name == OURS:
            raise
        print(f"skipped: {name}, {_label(task)}: {error}", flush=True)
        return None


def _take_turns(
    config: StepConfig, task: Mapping[str, Any], programs: dict[str, turns.Program]
) -> tuple[list[harness.Measurement], dict[str, list[turns.Round]]]:
    """The rates and, by name, the rounds; takes programs that end out of `programs`."""
    while True:
        rounds: dict[str, list[turns.Round]] = {name: [] for name in programs}
        cases = [case(name, programs[name], rounds[name]) for name in programs]
        try:
            return harness.measure(cases, config.rounds), rounds
        except turns.ProgramFailed as error:
            if programs[OURS].ended:
                raise
            for name in [name for name in programs if programs[name].ended]:
                print(f"skipped: {name}, {_label(task)}: {error}", flush=True)
                programs.pop(name).close()


def case(name: str, program: turns.Program, rounds: list[turns.Round]) -> harness.Case:
    """A case that is one turn of a program, and is added to `rounds`."""

    def do() -> harness.Timed:
        rounds.append(program.round())
        return harness.Timed(rounds[-1].images, rounds[-1].seconds)

    return harness.Case(name, do)


if __name__ == "__main__":
    command.run(main)
