"""The ways to take a train step that are compared, and which of them run here."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import turns
from support.errors import ExitCode, UserError, usage_error

#: What others compare with; the same in a second process, which shows the noise; with
#: the warp.
OURS, AGAIN, WARP = "ours", "again", "warp"
TORCHVISION, PYTORCH = "torchvision", "pytorch"
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


_TENSORFLOW, TORCH = (
    "benchmarks.train_step.step_tensorflow",
    "benchmarks.peers.torch_step",
)
#: Name of a case -> how it is done.
KINDS = {
    OURS: Kind(_TENSORFLOW, OURS),
    AGAIN: Kind(_TENSORFLOW, OURS),
    WARP: Kind(_TENSORFLOW, WARP),
    "stock": Kind(_TENSORFLOW, "stock"),
    "onednn_off": Kind(_TENSORFLOW, OURS, environment={"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "keras": Kind(_TENSORFLOW, "keras"),
    PYTORCH: Kind(TORCH, PYTORCH, "torch"),
    TORCHVISION: Kind(TORCH, TORCHVISION, "torchvision"),
}


def backend(*known: str) -> str:
    """Keras' backend, by its environment variable.

    Args:
      known: the backends that a benchmark runs on.

    Raises:
      UserError: another one, or one that is not installed (exit 2).
    """
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    if name not in known:
        raise usage_error(
            f"This needs Keras' backend {' or '.join(known)}, not {name}.",
            f"Set KERAS_BACKEND={known[0]}.",
        )
    if importlib.util.find_spec(name) is None:  # importing Keras would fail
        raise usage_error(
            f"Keras' backend {name} is not installed.",
            f"Run `python -m pip install {name}`, or set KERAS_BACKEND to another.",
        )
    return name


def device() -> dict[str, Any]:
    """What the trainer's step would run on, and the precision that fits it.

    Raises:
      UserError: it cannot run (exit 2, or 7 for want of memory).
    """
    kind = KINDS[OURS]
    try:
        return turns.describe([sys.executable, "-m", kind.module], kind.environment)
    except turns.ProgramFailed as error:
        cause = f"The program that takes the step does not start: {error}."
        if error.out_of_memory:
            raise UserError(
                cause, "End what else takes memory.", ExitCode.OUT_OF_MEMORY
            ) from error
        raise usage_error(
            cause,
            f"`{sys.executable} -m {kind.module}` shows all that it says.",
        ) from error


def available(
    wanted: Mapping[str, Kind], peers_python: str
) -> tuple[dict[str, Kind], dict[str, Any]]:
    """The cases whose packages are installed, and what the peers say of themselves.

    Prints which cases are left out.

    Args:
      wanted: name -> how.
      peers_python: the Python of the peers' environment; empty is this one.

    Raises:
      UserError: it cannot be run (exit 2).
    """
    kinds, peers = {}, {}
    for name, kind in wanted.items():
        path = python(kind, peers_python)
        if kind.needs and not has(path, kind.needs):
            print(f"skipped: {name}, {path} has no {kind.needs}")
            continue
        try:
            if kind.needs and not peers:
                peers = turns.describe([path, "-m", kind.module], kind.environment)
            kinds[name] = kind
        except turns.ProgramFailed as error:
            print(f"skipped: {name}, {error}")
    return kinds, peers


def python(kind: Kind, peers_python: str) -> str:
    """The Python that takes a step."""
    return (peers_python if kind.needs else "") or sys.executable


def has(python: str, package: str) -> bool:
    """Whether a Python has a package.

    Raises:
      UserError: it cannot be run (exit 2).
    """
    try:
        return not subprocess.run([python, "-c", _FIND, package]).returncode
    except OSError as error:
        raise usage_error(
            f"--peers_python={python} cannot be run: {error.strerror}.",
            "Name the python of an environment.",
        ) from error
