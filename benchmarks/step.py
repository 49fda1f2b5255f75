"""Images per second of the train step, for each model, size, precision and batch size.

    python -m benchmarks.step --models=all --sizes=128,224 --precision=auto,float32 \\
        --batch_sizes=auto --peers_python=PYTHON

trains on random numbers that are in memory: nothing is read. The case "warp" also
warps its images, 178×218 of uint8, inside the step; the others get float32 images of
the model's size. Compared with the trainer's step, interleaved and each in a process of
its own: "again", the same once more, which shows the noise; "onednn_off"; "keras",
plain Keras' train_on_batch; "pytorch", the same network there; "torchvision", its own
network.

"MFU" is the fraction of this machine's own matrix products, measured between the rounds
in the same precision, that the operations of the layers reach (model FLOPs
utilization). --batch_sizes=auto doubles the batch size as long as "ours" trains faster,
from 8 on a CPU and 32 on a GPU, or from the half, a quarter and so on of it that fits
into memory.
"""

import contextlib
import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import harness, programs
from benchmarks.train_step import batch_search, cases
from benchmarks.train_step.cases import KINDS, OURS, WARP, Kind
from support import command
from support.errors import ExitCode, UserError, usage_error
from trainer.config import INPUT_SIZES, MODELS, PRECISIONS

ALL, AUTO = "all", "auto"
#: Where --batch_sizes=auto begins, on a CPU and on a GPU.
_FIRST_BATCH, _FIRST_BATCH_GPU = 8, 32


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Models, sizes, precisions and cases to measure."""

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
        "Some of ours, again, warp, onednn_off, keras, pytorch, torchvision, or all.",
    )
    rounds: int = command.option(5, "Measured rounds; one more warms up.")
    round_seconds: float = command.option(2.0, "Length of a case's turn, seconds.")
    peers_python: str = command.option(
        "", "A Python that has PyTorch and torchvision; empty = this one."
    )
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if self.rounds < 1 or not self.round_seconds > 0 or not self.search_seconds > 0:
            raise usage_error(
                f"--rounds={self.rounds}, --round_seconds={self.round_seconds} or "
                f"--search_seconds={self.search_seconds} is too few.",
                "Use 1 round and 0.1 seconds or more.",
            )
        low, high = INPUT_SIZES
        for size in self.sizes:
            if not low <= size <= high:
                raise usage_error(
                    f"--sizes={size} is not between {low} and {high}.",
                    "Try --sizes=128.",
                )
        for size in self.batch_sizes or ("",):
            if size != AUTO and not (size.isdecimal() and int(size)):
                raise usage_error(
                    f"--batch_sizes={size} is neither auto nor a number above 0.",
                    "Write it like --batch_sizes=32,64.",
                )
        harness.check_choices("models", self.models, (ALL, *MODELS))
        harness.check_choices("precision", self.precision, PRECISIONS)
        harness.check_choices("cases", self.cases, (ALL, *KINDS))

    @property
    def kinds(self) -> dict[str, Kind]:
        """The cases by name; ours is always there, the others compare with it."""
        return {
            name: kind
            for name, kind in KINDS.items()
            if name == OURS or name in self.cases or ALL in self.cases
        }


@dataclasses.dataclass(frozen=True)
class Task:
    """Cases that are measured together: one model, size, precision and batch size."""

    model: str
    size: int
    precision: str
    batch_size: int | str
    round_seconds: float

    def __str__(self):
        return f"{self.model} {self.size} {self.precision} batch {self.batch_size}"


def main(argv: list[str]) -> None:
    config = command.parse_config(StepConfig, argv)
    harness.report(measure(config), config.write)


def measure(config: StepConfig) -> dict[str, Any]:
    """Measures everything that the options name; prints what it skips.

    Returns:
      The result, a document of `harness`.

    Raises:
      UserError: Keras has another backend (exit 2); nothing could be measured (exit 7
        if for want of memory).
    """
    cases.backend("tensorflow")
    device = cases.device()
    kinds, peers = cases.available(config.kinds, config.peers_python)
    measurements, searches, failures = [], {}, []
    for task in _tasks(config, device["precision"]):
        try:
            if task.batch_size == AUTO:
                measurements += _measure_best(config, task, kinds, device, searches)
            else:
                measurements += _measure(config, task, kinds)
        except programs.ProgramFailed as error:  # the other tasks may need less memory
            print(f"skipped: {task}: {error}", flush=True)
            failures.append((task, error))
    if not measurements:
        raise _nothing_measured(*failures[0])
    found = {"device": device, "peers": peers, "batch_searches": searches}
    name = "-".join(["step", *config.models, *map(str, config.sizes)])
    settings = dataclasses.asdict(config) | found
    return harness.document(name, "images", measurements, settings)


def _tasks(config: StepConfig, auto: str) -> Iterator[Task]:
    """Every combination of the options; `auto` is the precision that fits here."""
    names = MODELS if ALL in config.models else config.models
    precisions = [auto if name == AUTO else name for name in config.precision]
    batches = [size if size == AUTO else int(size) for size in config.batch_sizes]
    for model in dict.fromkeys(names):
        for size in dict.fromkeys(config.sizes):
            for precision in dict.fromkeys(precisions):
                for batch_size in dict.fromkeys(batches):
                    yield Task(model, size, precision, batch_size, config.round_seconds)


def _nothing_measured(task: Task, error: programs.ProgramFailed) -> UserError:
    size = task.batch_size
    # auto has tried small ones already.
    less = "smaller --sizes" if size in (AUTO, 1) else f"--batch_sizes={size // 2}"
    return UserError(
        f"The program that trains {task} ended: {error}.",
        f"Try {less}, or fewer --cases at a time.",
        ExitCode.OUT_OF_MEMORY if error.out_of_memory else ExitCode.BUG,
    )


def _measure_best(
    config: StepConfig,
    task: Task,
    kinds: Mapping[str, Kind],
    device: Mapping[str, Any],
    searches: dict[str, str],
) -> list[harness.Measurement]:
    """Finds the best batch size by ours alone, then measures all cases with it.

    Adds the reason to `searches`.

    Raises:
      programs.ProgramFailed: ours ran out of memory even with one example, or ended for
        another reason.
    """

    def measure(size: int, kinds: Mapping[str, Kind]) -> list[harness.Measurement]:
        return _measure(config, dataclasses.replace(task, batch_size=size), kinds)

    first = _FIRST_BATCH_GPU if device.get("gpu") else _FIRST_BATCH
    only = {OURS: kinds[OURS]}
    found = batch_search.search(
        lambda size: measure(size, only)[0], first, config.search_seconds
    )
    searches[str(task)] = f"{found.best} is best, because {found.ended}"
    print(f"{task}: {searches[str(task)]}", flush=True)
    size, together = found.best, []
    while kinds.keys() != only.keys() and not together:
        try:
            together = measure(size, kinds)
        except programs.ProgramFailed as error:
            # All programs side by side need more memory than one.
            if not error.out_of_memory or size == 1:
                raise
            print(f"{task}: {size} side by side: {error}", flush=True)
            size //= 2
    names = {one.name for one in together}
    return [one for one in found.tried.values() if one.name not in names] + together


def _measure(
    config: StepConfig, task: Task, kinds: Mapping[str, Kind]
) -> list[harness.Measurement]:
    """Measures the cases of one task, all of whose programs live side by side.

    Cases that fail are skipped with a message.

    Raises:
      programs.ProgramFailed: ours ended.
    """
    started: dict[str, programs.Program] = {}
    with contextlib.ExitStack() as stack:
        for name, kind in kinds.items():
            message = json.dumps(dataclasses.asdict(task) | {"case": kind.case})
            words = [*kind.words(config.peers_python), message]
            try:
                program = programs.Program(words, kind.environment)
            except programs.ProgramFailed as error:
                if name == OURS:
                    raise
                print(f"skipped: {name}, {task}: {error}", flush=True)
            else:
                started[name] = stack.enter_context(program)
        measured = _interleave(config.rounds, str(task), started)
    results = _with_facts(task, measured, started)
    for one in results:
        print(f"  {one.name}: {one.median:,.4g} images/s ±{one.spread:.1%}", flush=True)
    return results


def _interleave(
    rounds: int, label: str, started: dict[str, programs.Program]
) -> list[harness.Measurement]:
    """The rates; a program that ends is removed from `started`, the rest restarts."""
    while True:
        for program in started.values():
            program.rounds.clear()
        try:
            return harness.measure(
                [harness.Case(name, one.run) for name, one in started.items()], rounds
            )
        except programs.ProgramFailed as error:
            if started[OURS].ended:
                raise
            for name in [name for name in started if started[name].ended]:
                print(f"skipped: {name}, {label}: {error}", flush=True)
                del started[name]


def _with_facts(
    task: Task,
    measured: Sequence[harness.Measurement],
    started: Mapping[str, programs.Program],
) -> list[harness.Measurement]:
    """The measurements with the task in their names, and sizes, costs and ratios.

    The peak is that of the fastest product in a round, a median of the rounds: a
    machine that is slow for a while is so for both.
    """
    by_round = zip(*(program.rounds for program in started.values()), strict=True)
    peak = statistics.median(max(one.matmul for one in each) for each in by_round)
    ours = next(one for one in measured if one.name == OURS)
    results = []
    for one in measured:
        program = started[one.name]
        facts = {"batch": float(task.batch_size), **program.facts}
        facts["peak, GFLOP/s"] = peak / 1e9
        facts["MFU"] = one.median * facts["GFLOP/image"] * 1e9 / peak
        facts[batch_search.MEMORY] = program.rounds[-1].memory
        if program.rounds[-1].device_memory:
            facts["GPU memory, MiB"] = program.rounds[-1].device_memory
        facts["of ours"] = harness.ratio(one.samples, ours.samples)
        if one.name == WARP:
            facts["warp's fraction"] = 1 - facts["of ours"]
        results.append(harness.Measurement(f"{task}, {one.name}", one.samples, facts))
    return results


if __name__ == "__main__":
    command.run(main)
