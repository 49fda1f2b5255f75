"""Weights that training starts from: Keras' files, ImageNet's, torchvision's.

Read are Keras' .keras and .h5 files and, for architectures that torchvision has in the
same geometry, its parameters as .safetensors or .npz. PyTorch's own .pth files are
pickles, which can run code when they are read, and are not opened.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy

from support.errors import usage_error
from trainer import npz

#: Our convolution's name -> torchvision's that it consists of, with their filters.
TorchNames = Mapping[str, tuple[tuple[str, int], ...]]

TORCH_SUFFIXES = (".safetensors", ".npz")
_KERAS_SUFFIXES = (".keras", ".h5")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # in Keras' order
_CLASSIFIERS, _COUNTER = ("fc.", "aux1.", "aux2."), ".num_batches_tracked"
_TORCHVISION_REMEDY = "Name a file of torchvision's parameters for this architecture."
#: More than the parameters of any architecture here take.
MOST_BYTES = 1 << 30
_TIMEOUT_SECONDS = 20.0


def require_known_suffix(path: Path, torch: bool) -> None:
    """Refuses files that are not read here.

    Args:
      path: of the weights.
      torch: whether the architecture takes torchvision's parameters, converted.

    Raises:
      UserError: another suffix (exit 2).
    """
    known = (*_KERAS_SUFFIXES, *TORCH_SUFFIXES)
    if path.suffix not in known:
        raise usage_error(
            f"{path} is none of {', '.join(known)}; others may contain code and are "
            "not opened.",
            f"Convert it where PyTorch is installed: {conversion(path)}"
            if torch
            else "Name a Keras file.",
        )


def conversion(path: Path) -> str:
    """The command that turns PyTorch's file of parameters into a .npz next to it."""
    return (
        'python -c "import numpy, torch; '
        f"p = torch.load('{path.name}', map_location='cpu', weights_only=True); "
        f"numpy.savez('{path.stem}.npz', **{{k: v.numpy() for k, v in p.items()}})\""
    )


def read_weights(model: keras.Model, path: Path) -> None:
    """Reads weights, and nothing else, from a .keras or .h5 file.

    Keras refuses files that refer to others, or that unpack to far more than they are.

    Raises:
      UserError: the file does not fit the model (exit 2).
    """
    try:
        model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds
        raise usage_error(
            f"{path} contains no weights of {model.name}: {_reason(error)}",
            "Name a file made for this architecture.",
        ) from error


def read_torchvision(model: keras.Model, path: Path, names: TorchNames | None) -> None:
    """Reads torchvision's parameters into a model's convolutions.

    Each of our convolutions `N`, layers `N_conv` and `N_bn`, takes one or several of
    torchvision's `T`, joined along the filters: `T.conv.weight` (filters, channels,
    height, width), turned to (height, width, channels, filters), and the vectors
    `T.bn.weight`, `bias`, `running_mean` and `running_var`. What belongs to
    torchvision's classifiers is skipped: the classes are others here.

    Raises:
      UserError: a parameter is missing, unknown, not finite or of another shape, or
        the architecture takes none of torchvision's (exit 2).
    """
    if names is None:
        raise usage_error(
            f"{path}: {model.name} takes no parameters of torchvision.",
            "Name a .keras or .h5 file, or use --model=googlenet.",
        )
    arrays = read_arrays(path)
    for problem in _problems(arrays, _expected_shapes(model, names)):
        raise usage_error(f"{path} {problem}.", _TORCHVISION_REMEDY)
    for ours, theirs in names.items():
        joined = [
            np.concatenate([arrays[f"{part}.{suffix}"] for part, _ in theirs])
            for suffix in ("conv.weight", *(f"bn.{vector}" for vector in _BATCH_NORM))
        ]
        model.get_layer(f"{ours}_conv").set_weights([joined[0].transpose(2, 3, 1, 0)])
        model.get_layer(f"{ours}_bn").set_weights(joined[1:])


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a .safetensors or .npz file; nothing is unpickled.

    Raises:
      UserError: another kind of file, or one that is cut or damaged (exit 2).
    """
    try:
        if path.suffix == ".npz":
            return npz.read(path, MOST_BYTES)
        return safetensors.numpy.load_file(path)
    except Exception as error:  # NumPy, zipfile, zlib and safetensors raise a dozen
        raise usage_error(
            f"{path} is no readable {path.suffix} file: {_reason(error).rstrip('.')}.",
            "Write or download it again.",
        ) from error


def _expected_shapes(
    model: keras.Model, names: TorchNames
) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for ours, theirs in names.items():
        height, width, channels, _ = model.get_layer(f"{ours}_conv").kernel.shape
        for part, filters in theirs:
            shapes[f"{part}.conv.weight"] = (filters, channels, height, width)
            shapes |= {f"{part}.bn.{vector}": (filters,) for vector in _BATCH_NORM}
    return shapes


def _problems(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    """Yields what keeps arrays from being a model's parameters of these shapes."""
    for name, shape in shapes.items():
        if name not in arrays:
            yield f"contains no parameter {name}"
        elif arrays[name].shape != shape:
            yield f"contains {name} of shape {arrays[name].shape}, not {shape}"
        elif not np.isfinite(arrays[name]).all():
            yield f"contains numbers in {name} that are not finite"
    for name in arrays.keys() - shapes.keys():
        if not (name.startswith(_CLASSIFIERS) or name.endswith(_COUNTER)):
            yield f"contains a parameter {name}, which the model does not have"


def torchvision_file(name: str, url: str) -> Path:
    """Finds torchvision's ImageNet weights where Keras keeps its own, converted.

    Args:
      name: of the architecture, for messages.
      url: of the .pth file, which is looked for as .safetensors or .npz.

    Raises:
      UserError: there is none (exit 2).
    """
    file = _keras_models() / url.rsplit("/", 1)[1]
    for suffix in TORCH_SUFFIXES:
        if file.with_suffix(suffix).is_file():
            return file.with_suffix(suffix)
    raise usage_error(
        f"There are no ImageNet weights of {name} at {file.with_suffix('.npz')} or "
        ".safetensors.",
        f"Download {url}, convert it where PyTorch is installed and put the result "
        f"there: {conversion(file)}",
    )


@contextlib.contextmanager
def download_errors(name: str) -> Iterator[None]:
    """Surrounds a download by Keras, which gives up after 20 s without an answer.

    Args:
      name: of the architecture, for messages.

    Raises:
      UserError: the download failed, or came damaged (exit 2).
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    except Exception as error:  # Keras raises the base class
        raise usage_error(
            f"The ImageNet weights of {name} could not be fetched: {_reason(error)}.",
            f"Download the file elsewhere and put it into {_keras_models()}.",
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _keras_models() -> Path:
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "models"


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
