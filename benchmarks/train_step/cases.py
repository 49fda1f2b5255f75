"""The train steps that are compared, which of them run here, and their settings.

The rates hardly depend on the settings: they are the trainer's own, so that all
frameworks do the same.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from support.errors import usage_error

LEARNING_RATE, WEIGHT_DECAY, SMOOTHING, DROPOUT = 1.5e-3, 0.05, 0.1, 0.2

#: The backward pass has two products for each of the forward one: the gradients of the
#: inputs and those of the weights.
TRAIN_PASSES = 3

#: The case that others are compared with; with the warp.
OURS, WARP = "ours", "warp"
TORCHVISION, COMPILED = "torchvision", "compiled"


class Kind(NamedTuple):
    """A program that takes the step.

    Attributes:
      module: the program.
      case: its task's case.
      environment: changes to it.
    """

    module: str
    case: str
    environment: Mapping[str, str] = {}

    def words(self, peers_python: str) -> list[str]:
        """The command line without the task; an empty `peers_python` is this one."""
        python = peers_python if self.module == TORCH else ""
        return [python or sys.executable, "-m", self.module]


_TENSORFLOW = "benchmarks.train_step.tensorflow_step"
TORCH = "benchmarks.peers.torch_step"
#: Name of a case -> its program.
KINDS = {
    OURS: Kind(_TENSORFLOW, OURS),
    "again": Kind(_TENSORFLOW, OURS),
    WARP: Kind(_TENSORFLOW, WARP),
    "onednn_off": Kind(_TENSORFLOW, OURS, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "keras": Kind(_TENSORFLOW, "keras"),
    "pytorch": Kind(TORCH, "pytorch"),
    COMPILED: Kind(TORCH, COMPILED),
    TORCHVISION: Kind(TORCH, TORCHVISION),
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
