"""Images per second of the train step, for each model, size and precision.

    python -m benchmarks.step --models=resnet50 --sizes=128 --peers_python=PYTHON
    KERAS_BACKEND=jax python -m benchmarks.step --models=resnet50 --sizes=224 \\
        --precision=bfloat16 --batch_size=256

trains on random numbers that are there already: nothing is read. Only the case "warp"
warps its images, 178×218 of uint8, inside the step; the others get float32 images of
the model's size. Beside the trainer's step, in turns and each in a process of its own:
"stock", without the fused normalization;
"onednn_off"; "keras", plain Keras' train_on_batch; "pytorch", the same network there;
"torchvision", its own network. On JAX there are no faster layers: XLA fuses them.

"share of matmul" is what of this machine's own matrix products, measured between the
rounds in the same framework and precision, the layers' operations reach.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import harness, turns
from support import command
from support.errors import ExitCode, UserError, did_you_mean, usage_error

ALL = "all"
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_SIDES = (32, 1024)
_FIND = "import importlib.util as u, sys; sys.exit(not u.find_spec(sys.argv[1]))"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to take the step.

    Attributes:
      module: the program that takes it.
      case: what it is told.
      needs: the package that a peer needs; empty for our own.
      environment: changes to it.
    """

    module: str
    case: str
    needs: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


_TORCH = "benchmarks.peers.torch_step"
_PEERS = {
    "pytorch": Kind(_TORCH, "pytorch", "torch"),
    "torchvision": Kind(_TORCH, "torchvision", "torchvision"),
}
#: Backend -> name of a case -> how it is done. The first is what others compare with.
KINDS: dict[str, dict[str, Kind]] = {
    "tensorflow": {
        "ours": Kind("benchmarks.step_tensorflow", "ours"),
        "warp": Kind("benchmarks.step_tensorflow", "warp"),
        "stock": Kind("benchmarks.step_tensorflow", "stock"),
        "onednn_off": Kind(
            "benchmarks.step_tensorflow",
            "ours",
            environment={"TF_ENABLE_ONEDNN_OPTS": "0"},
        ),
        "keras": Kind("benchmarks.step_tensorflow", "keras"),
        **_PEERS,
    },
    "jax": {
        # Several processes share a GPU: none may take nearly all of its memory at once.
        name: Kind(
            "benchmarks.step_jax",
            name,
            environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
        for name in ("ours", "warp", "keras")
    }
    | _PEERS,
}
OURS, WARP = "ours", "warp"


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What to measure."""

    models: tuple[str, ...] = command.option((ALL,), "Architectures, or all.")
    sizes: tuple[int, ...] = command.option((128,), "Sides of the input, pixels.")
    precision: tuple[str, ...] = command.option(
        ("auto",), "Some of auto, float32, bfloat16, float16."
    )
    batch_size: int = command.option(32, "Examples per step.")
    cases: tuple[str, ...] = command.option(
        (ALL,),
        "Some of ours, warp, stock, onednn_off, keras, pytorch, torchvision, or all.",
    )
    rounds: int = command.option(5, "Measured rounds; one more warms up.")
    round_seconds: float = command.option(2.0, "Length of a case's turn, seconds.")
    peers_python: str = command.option(
        "", "A Python that has PyTorch; empty = this one, if it has it."
    )
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if self.rounds < 1 or self.batch_size < 1 or not self.round_seconds > 0:
            raise usage_error(
                f"--rounds={self.rounds}, --batch_size={self.batch_size} or "
                f"--round_seconds={self.round_seconds} is too few.",
                "Use 1 round, 1 example and 0.1 seconds or more.",
            )
        for size in self.sizes:
            if not _SIDES[0] <= size <= _SIDES[1]:
                raise usage_error(
                    f"--sizes={size} is not between {_SIDES[0]} and {_SIDES[1]}.",
                    "Try --sizes=128.",
                )
        _check("models", self.models, (ALL, *_architectures()))
        _check("precision", self.precision, PRECISIONS)
        _check("cases", self.cases, (ALL, *KINDS[backend()]))
        if backend() == "jax" and "float16" in self.precision:
            raise usage_error(
                "--precision=float16 needs loss scaling, which the step on JAX lacks.",
                "Use --precision=bfloat16.",
            )

    @property
    def kinds(self) -> dict[str, Kind]:
        """The cases by name; ours is always there, the others compare with it."""
        return {
            name: kind
            for name, kind in KINDS[backend()].items()
            if name == OURS or ALL in self.cases or name in self.cases
        }


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(StepConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(StepConfig, values)
    ours = config.kinds[OURS]
    found = turns.describe([sys.executable, "-m", ours.module], ours.environment)
    kinds, peers = _available(config)
    measurements, failures = [], []
    for task in _tasks(config, found["precision"]):
        try:
            measurements += _measure(config, task, kinds)
        except UserError as error:  # the other tasks may need less memory
            print(f"skipped: {error}", flush=True)
            failures.append(error)
    if not measurements:
        raise failures[0]
    settings = dataclasses.asdict(config) | {"backend": backend(), "peers": peers}
    del settings["write"], settings["peers_python"]
    result = harness.document(_name(config), "images", measurements, settings)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def backend() -> str:
    """Keras' backend, by its environment variable.

    Raises:
      UserError: one that the step is not written for (exit 2).
    """
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    if name not in KINDS:
        raise usage_error(
            f"KERAS_BACKEND={name} is none of those that the step is written for.",
            did_you_mean(name, KINDS),
        )
    return name


def _architectures() -> Sequence[str]:
    if backend() == "tensorflow":
        import trainer.quiet  # noqa: F401 - before Keras imports TensorFlow
    from trainer import models

    return tuple(models.ARCHITECTURES)


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
    """What is measured together: one model, size and precision at a time."""
    names = _architectures() if ALL in config.models else config.models
    resolved = [auto if name == "auto" else name for name in config.precision]
    for model in dict.fromkeys(names):
        for size in dict.fromkeys(config.sizes):
            for precision in dict.fromkeys(resolved):
                yield {
                    "model": model,
                    "size": size,
                    "precision": precision,
                    "batch_size": config.batch_size,
                    "round_seconds": config.round_seconds,
                }


def _available(config: StepConfig) -> tuple[dict[str, Kind], dict[str, Any]]:
    """The cases whose packages are installed, and what the peers say of themselves.

    Prints which cases are left out.
    """
    kinds, peers = {}, {}
    for name, kind in config.kinds.items():
        python = _python(config, kind)
        if kind.needs and not _has(python, kind.needs):
            print(f"skipped: {name}, {python} has no {kind.needs}")
            continue
        try:
            if kind.needs and not peers:
                peers = turns.describe([python, "-m", kind.module], kind.environment)
            kinds[name] = kind
        except turns.ProgramFailed as error:
            print(f"skipped: {name}, {error}")
    return kinds, peers


def _python(config: StepConfig, kind: Kind) -> str:
    return (config.peers_python if kind.needs else "") or sys.executable


def _has(python: str, package: str) -> bool:
    try:
        return not subprocess.run([python, "-c", _FIND, package]).returncode
    except OSError as error:
        raise usage_error(
            f"--peers_python={python} cannot be run: {error.strerror}.",
            "Name the python of an environment.",
        ) from error


def _measure(
    config: StepConfig, task: Mapping[str, Any], kinds: Mapping[str, Kind]
) -> list[harness.Measurement]:
    """Measures the cases of one task, all of whose programs live side by side."""
    label = f"{task['model']} {task['size']} {task['precision']}"
    programs: dict[str, turns.Program] = {}
    rounds: dict[str, list[turns.Round]] = {}
    try:
        for name, kind in kinds.items():
            program = _start(config, task, name, kind)
            if program is not None:
                programs[name], rounds[name] = program, []
        cases = [_case(name, programs[name], rounds[name]) for name in programs]
        measured = harness.measure(cases, config.rounds)
    except turns.ProgramFailed as error:
        raise UserError(
            f"A program that trained {label} ended: {error}.",
            f"Try --batch_size={max(config.batch_size // 2, 1)}, or fewer --cases at a "
            "time.",
            ExitCode.OUT_OF_MEMORY if error.killed else ExitCode.BUG,
        ) from error
    finally:
        for program in programs.values():
            program.close()
    said = {name: program.facts for name, program in programs.items()}
    print(f"{label}: {_parameters(said)}", flush=True)
    return _with_facts(label, measured, said, rounds)


def _with_facts(
    label: str,
    measured: Sequence[harness.Measurement],
    said: Mapping[str, Mapping[str, float]],
    rounds: Mapping[str, Sequence[turns.Round]],
) -> list[harness.Measurement]:
    """The measurements with the task in their names and their facts beside them."""
    results = []
    for case in measured:
        facts = _facts(said[case.name], rounds[case.name], case.median)
        facts["of ours"] = case.median / measured[0].median
        if case.name == WARP:
            facts["warp's share"] = 1 - facts["of ours"]
        results.append(
            harness.Measurement(f"{label}, {case.name}", case.samples, facts)
        )
    return results


def _parameters(said: Mapping[str, Mapping[str, float]]) -> str:
    """The parameters of every case, one word for cases that have the same."""
    cases: dict[str, list[str]] = {}
    for name, facts in said.items():
        text = f"{facts['parameters']:,.0f} ({facts['trainable']:,.0f} trainable)"
        cases.setdefault(text, []).append(name)
    return "; ".join(f"{text} in {', '.join(cases[text])}" for text in cases)


def _start(
    config: StepConfig, task: Mapping[str, Any], name: str, kind: Kind
) -> turns.Program | None:
    """Starts the program of a case; what others cannot do is left out with a word."""
    told = json.dumps({**task, "case": kind.case})
    words = [_python(config, kind), "-m", kind.module, told]
    try:
        return turns.Program(words, kind.environment)
    except turns.ProgramFailed as error:
        if name == OURS:
            raise
        print(f"skipped: {name}, {task['model']} {task['size']}: {error}")
        return None


def _case(name: str, program: turns.Program, rounds: list[turns.Round]) -> harness.Case:
    def do() -> harness.Timed:
        rounds.append(program.round())
        return harness.Timed(rounds[-1].images, rounds[-1].seconds)

    return harness.Case(name, do)


def _facts(
    said: Mapping[str, float], rounds: Sequence[turns.Round], rate: float
) -> dict[str, float]:
    matmul = statistics.median(done.matmul for done in rounds)
    facts = {
        **said,
        "matmul, GFLOP/s": matmul / 1e9,
        "share of matmul": rate * said["GFLOP/image"] * 1e9 / matmul,
        "memory, MiB": rounds[-1].memory,
    }
    if rounds[-1].device_memory:
        facts["GPU memory, MiB"] = rounds[-1].device_memory
    return facts


def _name(config: StepConfig) -> str:
    parts = ["step", *(["jax"] if backend() == "jax" else []), *config.models]
    return "-".join([*parts, *map(str, config.sizes)])


if __name__ == "__main__":
    command.run(main)
