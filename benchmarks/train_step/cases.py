"""The train steps that are compared, which of them run here, and their settings.

The rates hardly depend on the settings: they are the trainer's own, so that all
frameworks do the same.
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import programs
from support.errors import usage_error

LEARNING_RATE, WEIGHT_DECAY, SMOOTHING, DROPOUT = 1.5e-3, 0.05, 0.1, 0.2

#: The backward pass has two products for each of the forward one: the gradients of the
#: inputs and those of the weights.
TRAIN_PASSES = 3

#: The case that others are compared with; with the warp.
OURS, WARP = "ours", "warp"
TORCHVISION = "torchvision"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A program that takes the step.

    Attributes:
      module: the program.
      case: its task's case.
      needs: the package that a peer needs; empty for our own.
      environment: changes to it.
    """

    module: str
    case: str
    needs: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def words(self, peers_python: str) -> list[str]:
        """The command line without the task; an empty `peers_python` is this one."""
        return [self.python(peers_python), "-m", self.module]

    def python(self, peers_python: str) -> str:
        return (peers_python if self.needs else "") or sys.executable


_TENSORFLOW = "benchmarks.train_step.tensorflow_step"
TORCH = "benchmarks.peers.torch_step"
#: Name of a case -> its program.
KINDS = {
    OURS: Kind(_TENSORFLOW, OURS),
    "again": Kind(_TENSORFLOW, OURS),
    WARP: Kind(_TENSORFLOW, WARP),
    "onednn_off": Kind(_TENSORFLOW, OURS, environment={"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "keras": Kind(_TENSORFLOW, "keras"),
    "pytorch": Kind(TORCH, "pytorch", "torchvision"),
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


def available(
    wanted: Mapping[str, Kind], peers_python: str
) -> tuple[dict[str, Kind], dict[str, Any]]:
    """The cases whose packages are installed, and the peers' own description.

    Prints which cases are skipped.

    Args:
      wanted: name -> program.
      peers_python: the Python of the peers' environment; empty is this one.

    Raises:
      UserError: it cannot be run (exit 2).
    """
    kinds, peers = {}, {}
    for name, kind in wanted.items():
        if kind.needs and not peers:
            if not programs.can_import(name, kind.python(peers_python), kind.needs):
                continue
            peers = programs.describe(kind.words(peers_python), kind.environment)
        kinds[name] = kind
    return kinds, peers
