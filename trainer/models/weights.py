"""Weights that training starts from: finding, fetching, checking and reading them.

Read are Keras' .keras and .h5 files and, for architectures that torchvision has in the
same geometry, its parameters as .safetensors or .npz. PyTorch's own .pth files are
pickles, which can run code when they are read, and are not opened.
"""

import hashlib
import http.client
import io
import os
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from support.errors import ExitCode, UserError, usage_error
from support.files import atomic_writer
from trainer.models import tensors

#: Our convolution's name -> torchvision's that it consists of, with their filters.
TorchNames = Mapping[str, tuple[tuple[str, int], ...]]

_KERAS_SUFFIXES = (".keras", ".h5")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")  # in Keras' order
_CLASSIFIERS, _COUNTER = ("fc.", "aux1.", "aux2."), ".num_batches_tracked"
_TORCHVISION_REMEDY = "Name a file of torchvision's parameters for this architecture."
_WEIGHTS_IN_KERAS = "model.weights.h5"
_TIMEOUT_SECONDS = 20.0
#: A file of weights may take so many times the room of the model's own, as float32 (it
#: may hold float64, or an optimizer's state), and this much beside it.
_ROOM, _SPARE_BYTES = 4, 1 << 24


def require_known_suffix(path: Path, torch: bool) -> None:
    """Refuses files that are not read here.

    Args:
      path: of the weights.
      torch: whether the architecture takes torchvision's parameters, converted.

    Raises:
      UserError: another suffix (exit 2).
    """
    known = (*_KERAS_SUFFIXES, *tensors.READERS)
    if path.suffix not in known:
        raise usage_error(
            f"{path} is none of {', '.join(known)}; other files may hold code and are "
            "not opened.",
            f"Convert it where PyTorch is installed: {conversion(path)}"
            if torch
            else "Name a Keras file.",
        )


def conversion(path: Path) -> str:
    """The command that turns PyTorch's file of parameters into a .npz beside it."""
    return (
        'python -c "import numpy, torch; '
        f"p = torch.load('{path.name}', map_location='cpu', weights_only=True); "
        f"numpy.savez('{path.stem}.npz', **{{k: v.numpy() for k, v in p.items()}})\""
    )


def read_weights(model: keras.Model, path: Path) -> None:
    """Reads weights, and nothing else, from a .keras or .h5 file.

    Raises:
      UserError: the file does not fit the model (exit 2).
    """
    try:
        _check_size(path, _ROOM * 4 * model.count_params() + _SPARE_BYTES)
        model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds
        raise usage_error(
            f"{path} does not hold weights of {model.name}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "Name a file made for this architecture.",
        ) from error


def _check_size(path: Path, most: int) -> None:
    """Refuses a file that would unpack to more than the model can take.

    Raises:
      ValueError: it would, or reads from other files.
      OSError, zipfile.BadZipFile: it is damaged.
    """
    file = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            _require_at_most(sum(one.file_size for one in archive.infolist()), most)
            file = io.BytesIO(archive.read(_WEIGHTS_IN_KERAS))
    with h5py.File(file, "r") as content:
        _require_at_most(sum(one.nbytes for one in _datasets(content)), most)


def _require_at_most(unpacked: int, most: int) -> None:
    if unpacked > most:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, more than {most:,}.")


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """All arrays of an HDF5 file, none of which may lie in another file."""
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link to elsewhere.")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _datasets(item)
        elif item.external or item.is_virtual:
            raise ValueError(f"{name} lies in another file.")
        else:
            yield item


def read_torchvision(model: keras.Model, path: Path, names: TorchNames | None) -> None:
    """Reads torchvision's parameters into a model's convolutions.

    Each of our convolutions `N`, layers `N_conv` and `N_bn`, takes one or several of
    torchvision's `T`, joined along the filters: `T.conv.weight` (filters, channels,
    height, width), turned to (height, width, channels, filters), and the vectors
    `T.bn.weight`, `bias`, `running_mean` and `running_var`. What belongs to
    torchvision's classifiers is left out: the classes are others here.

    Raises:
      UserError: a parameter is missing, unknown, not finite or of another shape, or
        the architecture takes none of torchvision's (exit 2).
    """
    if names is None:
        raise usage_error(
            f"{path}: {model.name} takes no parameters of torchvision.",
            "Name a .keras or .h5 file, or use --model=googlenet.",
        )
    arrays = tensors.read_arrays(path)
    expected = _expected_shapes(model, names)
    for name, shape in expected.items():
        _check_parameter(path, name, arrays.get(name), shape)
    for name in arrays:
        left_out = name.startswith(_CLASSIFIERS) or name.endswith(_COUNTER)
        if name not in expected and not left_out:
            raise usage_error(
                f"{path} holds a parameter {name}, which {model.name} does not have.",
                _TORCHVISION_REMEDY,
            )
    for ours, theirs in names.items():
        joined = [
            np.concatenate([arrays[f"{part}.{suffix}"] for part, _ in theirs])
            for suffix in ("conv.weight", *(f"bn.{vector}" for vector in _BATCH_NORM))
        ]
        model.get_layer(f"{ours}_conv").set_weights([joined[0].transpose(2, 3, 1, 0)])
        model.get_layer(f"{ours}_bn").set_weights(joined[1:])


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


def _check_parameter(
    path: Path, name: str, array: np.ndarray | None, shape: tuple[int, ...]
) -> None:
    if array is None:
        problem = f"holds no parameter {name}"
    elif array.shape != shape:
        problem = f"holds {name} of shape {array.shape}, not {shape}"
    elif not np.isfinite(array).all():
        problem = f"holds numbers in {name} that are not finite"
    else:
        return
    raise usage_error(f"{path} {problem}.", _TORCHVISION_REMEDY)


def imagenet_file(name: str, url: str, md5: str) -> Path:
    """Finds, or fetches, the published ImageNet weights of an architecture.

    They lie where Keras keeps them: ~/.keras/models, or $KERAS_HOME/models.

    Args:
      name: of the architecture, for messages.
      url: of the published file; a .pth is looked for as .safetensors or .npz, and
        never fetched.
      md5: of the published file.

    Raises:
      UserError: there is none, and it cannot be fetched (exit 2); the file there is
        damaged (exit 5).
    """
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    file = home / "models" / url.rsplit("/", 1)[1]
    if file.suffix == ".pth":
        return _converted(name, url, file)
    if not file.is_file():
        _fetch(name, url, md5, file)
    elif _md5(file) != md5:
        raise UserError(
            f"{file} is not the published file (its md5 differs).",
            f"Delete it and download {url} again.",
            ExitCode.INTEGRITY,
        )
    return file


def _converted(name: str, url: str, file: Path) -> Path:
    for suffix in tensors.READERS:
        if file.with_suffix(suffix).is_file():
            return file.with_suffix(suffix)
    raise usage_error(
        f"There are no ImageNet weights of {name} at {file.with_suffix('.npz')} or "
        ".safetensors.",
        f"Download {url}, convert it where PyTorch is installed and put the result "
        f"there: {conversion(file)}",
    )


def _fetch(name: str, url: str, md5: str, file: Path) -> None:
    # Keras' get_file waits without a limit, and a process killed in it leaves a part
    # of the file under its final name.
    print(f"fetching {url}", flush=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
            atomic_writer(file) as target,
        ):
            digest = hashlib.md5(usedforsecurity=False)
            while block := response.read(1 << 20):
                digest.update(block)
                target.write(block)
            if digest.hexdigest() != md5:
                raise OSError("it came damaged: its md5 differs")
    except (OSError, http.client.HTTPException) as error:
        raise usage_error(
            f"The ImageNet weights of {name} could not be fetched "
            f"({getattr(error, 'reason', error)}).",
            f"Download {url} elsewhere and put it at {file}.",
        ) from error


def _md5(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()
