"""The architectures: one table, one way to build, save and load them.

Every model takes RGB images (batch, side, side, 3) float32 in 0..255 and returns one
logit (batch, 1) float32; the preprocessing that its weights expect is inside. A saved
model is built of stock Keras layers only, and is loaded by building the architecture
by its name and reading weights into it: no code is ever read from a file.

No TensorFlow at import: the models run on Keras' JAX backend too.
"""

import contextlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from support.errors import ExitCode, UserError, usage_error
from support.files import sha256_file, sync_file
from trainer.architectures import (
    ARCHITECTURES,
    CAFFE,
    PREPROCESSING,
    SCALED,
    TORCH,
    Architecture,
    architecture,
)
from trainer.models.weights import (
    TORCH_SUFFIXES,
    download_errors,
    read_torchvision,
    read_weights,
    require_known_suffix,
    torchvision_file,
)
from trainer.runs import BEST, RUN, provenance
from trainer.runs.record import RunRecord, read_run, require

#: Name of the layer between the backbone and the last layer.
POOL = "pool"

_RESTORE = "Restore it from a copy, or train again."
_IMAGENET_BGR_MEAN = np.array([103.939, 116.779, 123.68], "float32")
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], "float32")
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], "float32")


def build(
    name: str,
    input_size: int,
    preprocessing: str = SCALED,
    dropout: float = 0.0,
    seed: int = 0,
    flip_average: bool = False,
) -> keras.Model:
    """Builds an architecture with random weights.

    Args:
      name: key of `ARCHITECTURES`.
      input_size: side of the input, pixels.
      preprocessing: what the backbone's weights expect.
      dropout: before the last layer.
      seed: of the dropout.
      flip_average: whether the logit is the mean of the image's and its mirror image's.
    """
    backbone = architecture(name).backbone
    images = keras.Input((input_size, input_size, 3), name="images")
    x = images
    if flip_average:
        x = keras.ops.concatenate([x, keras.ops.flip(x, axis=2)])
    x = backbone(_preprocess(x, preprocessing))
    x = keras.layers.GlobalAveragePooling2D(name=POOL)(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    # The last layer and the loss stay in float32 under every precision policy.
    logits = keras.layers.Dense(1, dtype="float32", name="logit")(x)
    if flip_average:
        logits = keras.ops.mean(keras.ops.reshape(logits, (2, -1, 1)), axis=0)
    return keras.Model(images, logits, name=name)


def _preprocess(images: Any, preprocessing: str) -> Any:
    # Plain operations: they stay in float32, and Keras' Rescaling needs TensorFlow.
    if preprocessing == SCALED:
        return images * (1 / 127.5) - 1.0
    if preprocessing == CAFFE:
        return keras.ops.flip(images, axis=-1) - _IMAGENET_BGR_MEAN
    if preprocessing == TORCH:
        return (images * (1 / 255) - _IMAGENET_MEAN) / _IMAGENET_DEVIATION
    raise ValueError(f"preprocessing={preprocessing!r}: expected {PREPROCESSING}")


def build_initial(
    name: str,
    input_size: int,
    weights: str,
    dropout: float,
    seed: int,
    flip_average: bool = False,
) -> tuple[keras.Model, str]:
    """Builds a model with the weights that training starts from.

    Args:
      name: key of `ARCHITECTURES`.
      input_size: side of the input, pixels.
      weights: "none", "imagenet", a Keras .h5 file of the backbone without its last
        layer, torchvision's parameters as .safetensors or .npz (GoogLeNet), or the
        best.keras of a run with the same architecture.
      dropout: before the last layer.
      seed: of the dropout.
      flip_average: see `build`.

    Returns:
      The model and the name of its preprocessing.

    Raises:
      UserError: a weights file is missing or does not fit (exit 2), or the one of
        ImageNet is damaged (exit 5).
    """
    entry = architecture(name)

    def built(preprocessing: str) -> keras.Model:
        return build(name, input_size, preprocessing, dropout, seed, flip_average)

    if weights == "none":
        return built(SCALED), SCALED
    if weights == "imagenet" and not entry.torchvision_url:
        model = built(entry.preprocessing)
        with download_errors(name):
            backbone = _backbone(entry, input_size, name, weights="imagenet")
        _set_backbone(model, backbone)
        return model, entry.preprocessing
    path = Path(weights)
    if weights == "imagenet":
        path = torchvision_file(name, entry.torchvision_url)
    if not path.is_file():
        raise usage_error(f"There is no weights file {path}.", "Check --weights.")
    require_known_suffix(path, torch=bool(entry.torchvision_names))
    if path.name == BEST:
        run = read_run(path.parent)
        _require_known(path.parent, run)
        preprocessing = run["preprocessing"]
        model = built(preprocessing)
        read_weights(model, path)
        return model, preprocessing
    model = built(entry.preprocessing)
    if path.suffix in TORCH_SUFFIXES:
        names = entry.torchvision_names
        read_torchvision(model, path, pkgutil.resolve_name(names)() if names else None)
    else:
        backbone = _backbone(entry, input_size, name)
        read_weights(backbone, path)
        _set_backbone(model, backbone)
    return model, entry.preprocessing


def _backbone(
    entry: Architecture, input_size: int, name: str, **options: str
) -> keras.Model:
    images = keras.Input((input_size, input_size, 3))
    return keras.Model(images, entry.backbone(images, **options), name=name)


def _set_backbone(model: keras.Model, backbone: keras.Model) -> None:
    """Copies the backbone's weights: a model's last layer is all that follows them."""
    values = backbone.get_weights()
    model.set_weights(values + model.get_weights()[len(values) :])


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """Builds what is inside in float32, whatever the precision policy is."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def freeze_backbone(model: keras.Model) -> None:
    """Lets only the last layer learn; batch normalization runs in inference mode."""
    for layer in model.layers:
        layer.trainable = layer.name == "logit"


def save(model: keras.Model, path: Path) -> str:
    """Writes a .keras file atomically and returns its sha256."""
    temporary = path.with_name(f"unfinished-{path.name}")
    try:
        model.save(temporary)
        sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256_file(path)


def load(run_dir: str | Path, flip_average: bool = False) -> keras.Model:
    """Loads a run's best model: built by name, its weights checked, then read.

    Args:
      run_dir: the run's folder.
      flip_average: see `build`; so is the model anyway if the run was trained so.

    Raises:
      UserError: not a finished run (exit 3); a damaged or foreign file (exit 5).
    """
    run = read_run(run_dir)
    path = Path(run_dir) / BEST
    recorded = provenance.model_sha256(run)
    if not path.is_file() or recorded is None:
        raise UserError(
            f"{run_dir} contains no finished run: no {BEST}.",
            "Train it to its end first.",
            ExitCode.INPUT_DATA,
        )
    _require_known(run_dir, run)
    if sha256_file(path) != recorded:
        raise UserError(
            f"{path} is not the file that the run wrote (its sha256 differs).",
            _RESTORE,
            ExitCode.INTEGRITY,
        )
    with float32():
        model = build(
            run["model"],
            run["input_size"],
            run["preprocessing"],
            flip_average=flip_average or run.get("flip_average", False),
        )
    try:
        read_weights(model, path)
    except UserError as error:  # nobody chose this file by a flag
        raise UserError(error.cause, _RESTORE, ExitCode.INTEGRITY) from error
    return model


def _require_known(run_dir: str | Path, run: RunRecord) -> None:
    """Checks that run.json names what a model can be built from."""
    known = {"model": ARCHITECTURES, "preprocessing": PREPROCESSING}
    for key, names in known.items():
        if run.get(key) not in names:
            raise UserError(
                f"{Path(run_dir) / RUN}: {key} is {run.get(key)!r}, which is none of "
                f"{', '.join(names)}.",
                _RESTORE,
                ExitCode.INPUT_DATA,
            )
    require(run_dir, run, ("input_size", "attribute"))
