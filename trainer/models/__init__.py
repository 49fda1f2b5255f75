"""The architectures: one table, one way to build, save and load them.

Every model takes RGB images (batch, side, side, 3) float32 in 0..255 and returns one
logit (batch, 1) float32; the preprocessing that its weights expect is inside. A saved
model is built of stock Keras layers only, and is loaded by building the architecture
by its name and reading weights into it: no code is ever read from a file.

No TensorFlow at import: the models run on Keras' JAX backend too.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from support.errors import ExitCode, UserError, did_you_mean, usage_error
from support.files import atomic_write, sha256_file, sync_file
from trainer.models import googlenet, tensors
from trainer.models.weights import (
    TorchNames,
    imagenet_file,
    read_torchvision,
    read_weights,
    require_known_suffix,
)
from trainer.runs import run_record

BEST = "best.keras"
RUN = "run.json"
#: Name of the layer between the backbone and the last layer.
POOL = "pool"

#: Preprocessing by name: RGB 0..255 to what the backbone expects.
SCALED, CAFFE = "scaled", "caffe"
_RESTORE = "Restore it from a copy, or train again."
_IMAGENET_BGR_MEAN = np.array([103.939, 116.779, 123.68], "float32")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A backbone and what its published ImageNet weights expect.

    Attributes:
      backbone: maps a Keras tensor (batch, side, side, 3) to a feature map.
      preprocessing: of its ImageNet weights.
      imagenet_url: its ImageNet weights: Keras' .h5 file without the last layer, or
        torchvision's parameters.
      parameters: of the backbone.
      imagenet_md5: of Keras' file, as Keras publishes it.
      torch_names: which of torchvision's parameters it takes, if it takes any.
    """

    backbone: Callable[[Any], Any]
    preprocessing: str
    imagenet_url: str
    parameters: int
    imagenet_md5: str = ""
    torch_names: TorchNames | None = None


def _application(name: str) -> Callable[[Any], Any]:
    def backbone(x):
        build = getattr(keras.applications, name)
        return build(include_top=False, weights=None, input_tensor=x).output

    return backbone


def _plain(name: str) -> Callable[[Any], Any]:
    """An application without shortcuts or normalization, started as He et al. do.

    "Delving Deep into Rectifiers", ICCV 2015. From Keras' own start (Glorot's), which
    does not count the half that ReLU cuts off, sixteen layers learn nothing for epochs.
    """

    def backbone(x):
        build = getattr(keras.applications, name)
        model = build(include_top=False, weights=None, input_tensor=x)
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
        return model.output

    return backbone


_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"

ARCHITECTURES = {
    "vgg16": Architecture(
        _plain("VGG16"),
        CAFFE,
        f"{_STORE}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        14_714_688,
        "6d6bbae143d832006294945121d1f1fc",
    ),
    "vgg19": Architecture(
        _plain("VGG19"),
        CAFFE,
        f"{_STORE}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        20_024_384,
        "253f8cb515780f3b799900260a226db6",
    ),
    # Ported from TensorFlow, where it was trained on -1..1: torchvision turns its usual
    # normalization into that first (`transform_input`, True with its weights).
    "googlenet": Architecture(
        googlenet.backbone,
        SCALED,
        "https://download.pytorch.org/models/googlenet-1378be20.pth",
        5_614_464,
        torch_names=googlenet.torch_names(),
    ),
    "resnet50": Architecture(
        _application("ResNet50"),
        CAFFE,
        f"{_STORE}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        23_587_712,
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "resnet101": Architecture(
        _application("ResNet101"),
        CAFFE,
        f"{_STORE}/resnet/resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
        42_658_176,
        "88cf7a10940856eca736dc7b7e228a21",
    ),
}


def architecture(name: str) -> Architecture:
    """Looks an architecture up.

    Raises:
      UserError: there is none of that name (exit 2).
    """
    if name not in ARCHITECTURES:
        raise usage_error(
            f"There is no architecture {name!r}.", did_you_mean(name, ARCHITECTURES)
        )
    return ARCHITECTURES[name]


def build(
    name: str,
    input_size: int,
    preprocessing: str = SCALED,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Builds an architecture with random weights.

    Args:
      name: key of `ARCHITECTURES`.
      input_size: side of the input, pixels.
      preprocessing: what the backbone's weights expect.
      dropout: before the last layer.
      seed: of the dropout.
    """
    backbone = architecture(name).backbone
    images = keras.Input((input_size, input_size, 3), name="images")
    x = backbone(_preprocess(images, preprocessing))
    x = layers.GlobalAveragePooling2D(name=POOL)(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, name="dropout")(x)
    # The last layer and the loss stay in float32 under every precision policy.
    logits = layers.Dense(1, dtype="float32", name="logit")(x)
    return keras.Model(images, logits, name=name)


def _preprocess(images: Any, preprocessing: str) -> Any:
    # Plain operations: they stay in float32, and Keras' Rescaling needs TensorFlow.
    if preprocessing == SCALED:
        return images * (1 / 127.5) - 1.0
    return keras.ops.flip(images, axis=-1) - _IMAGENET_BGR_MEAN


def build_initial(
    name: str, input_size: int, weights: str, dropout: float, seed: int
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

    Returns:
      The model and the name of its preprocessing.

    Raises:
      UserError: a weights file is missing or does not fit (exit 2), or the one of
        ImageNet is damaged (exit 5).
    """
    table = architecture(name)
    if weights == "none":
        return build(name, input_size, SCALED, dropout, seed), SCALED
    path = Path(weights)
    if weights == "imagenet":
        path = imagenet_file(name, table.imagenet_url, table.imagenet_md5)
    if not path.is_file():
        raise usage_error(f"There is no weights file {path}.", "Check --weights.")
    require_known_suffix(path, torch=table.torch_names is not None)
    if path.name == BEST:
        run = read_run(path.parent)
        _require_known(path.parent, run)
        preprocessing = run["preprocessing"]
        model = build(name, input_size, preprocessing, dropout, seed)
        read_weights(model, path)
        return model, preprocessing
    model = build(name, input_size, table.preprocessing, dropout, seed)
    if path.suffix in tensors.READERS:
        read_torchvision(model, path, table.torch_names)
    else:
        _read_backbone(model, path, table)
    return model, table.preprocessing


def _read_backbone(model: keras.Model, path: Path, table: Architecture) -> None:
    images = keras.Input((*model.input_shape[1:3], 3))
    backbone = keras.Model(images, table.backbone(images), name=model.name)
    read_weights(backbone, path)
    values = backbone.get_weights()
    # The backbone's variables come first: only the last layer stands behind them.
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
    """Lets only the last layer learn; batch normalisation runs in inference mode."""
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


def load(run_dir: str | Path) -> keras.Model:
    """Loads a run's best model: built by name, its weights checked, then read.

    Raises:
      UserError: not a finished run (exit 3); a damaged or foreign file (exit 5).
    """
    run = read_run(run_dir)
    path = Path(run_dir) / BEST
    recorded = run.get("files", {}).get(BEST)
    if not path.is_file() or recorded is None:
        raise UserError(
            f"{run_dir} holds no finished run: no {BEST}.",
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
        model = build(run["model"], run["input_size"], run["preprocessing"])
    try:
        read_weights(model, path)
    except UserError as error:  # nobody chose this file by a flag
        raise UserError(error.cause, _RESTORE, ExitCode.INTEGRITY) from error
    return model


def _require_known(run_dir: str | Path, run: dict[str, Any]) -> None:
    """Checks that run.json names what a model can be built from."""
    known = {"model": ARCHITECTURES, "preprocessing": (SCALED, CAFFE)}
    for key, names in known.items():
        if run.get(key) not in names:
            raise UserError(
                f"{Path(run_dir) / RUN}: {key} is {run.get(key)!r}, which is none of "
                f"{', '.join(names)}.",
                _RESTORE,
                ExitCode.INPUT_DATA,
            )
    run_record.require(run_dir, run, ("input_size", "attribute"))


def read_run(run_dir: str | Path) -> dict[str, Any]:
    """Reads a run folder's run.json, see `run_record.read`."""
    return run_record.read(run_dir)


def write_run(run_dir: str | Path, run: dict[str, Any]) -> None:
    atomic_write(Path(run_dir) / RUN, json.dumps(run, indent=1) + "\n")
