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
from trainer import googlenet

BEST = "best.keras"
RUN = "run.json"

#: Preprocessing by name: RGB 0..255 to what the backbone expects.
SCALED, CAFFE, TORCH = "scaled", "caffe", "torch"
_IMAGENET_BGR_MEAN = np.array([103.939, 116.779, 123.68], "float32")
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], "float32")
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], "float32")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A backbone and what its published ImageNet weights expect.

    Attributes:
      backbone: maps a Keras tensor (batch, side, side, 3) to a feature map.
      preprocessing: of its ImageNet weights.
      imagenet_url: its ImageNet weights without the last layer, Keras' .h5 file.
      parameters: of the backbone.
    """

    backbone: Callable[[Any], Any]
    preprocessing: str
    imagenet_url: str
    parameters: int


def _application(name: str) -> Callable[[Any], Any]:
    def backbone(x):
        build = getattr(keras.applications, name)
        return build(include_top=False, weights=None, input_tensor=x).output

    return backbone


_STORE = "https://storage.googleapis.com/tensorflow/keras-applications"

ARCHITECTURES = {
    "vgg16": Architecture(
        _application("VGG16"),
        CAFFE,
        f"{_STORE}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        14_714_688,
    ),
    "vgg19": Architecture(
        _application("VGG19"),
        CAFFE,
        f"{_STORE}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        20_024_384,
    ),
    "googlenet": Architecture(googlenet.backbone, TORCH, "", 5_614_464),
    "resnet50": Architecture(
        _application("ResNet50"),
        CAFFE,
        f"{_STORE}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        23_587_712,
    ),
    "resnet101": Architecture(
        _application("ResNet101"),
        CAFFE,
        f"{_STORE}/resnet/resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
        42_658_176,
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
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, name="dropout")(x)
    # The last layer and the loss stay in float32 under every precision policy.
    logits = layers.Dense(1, dtype="float32", name="logit")(x)
    return keras.Model(images, logits, name=name)


def _preprocess(images: Any, preprocessing: str) -> Any:
    # Plain operations: they stay in float32, and Keras' Rescaling needs TensorFlow.
    if preprocessing == SCALED:
        return images * (1 / 127.5) - 1.0
    if preprocessing == CAFFE:
        return keras.ops.flip(images, axis=-1) - _IMAGENET_BGR_MEAN
    return (images / 255.0 - _IMAGENET_MEAN) / _IMAGENET_STD


def build_initial(
    name: str, input_size: int, weights: str, dropout: float, seed: int
) -> tuple[keras.Model, str]:
    """Builds a model with the weights that training starts from.

    Args:
      name: key of `ARCHITECTURES`.
      input_size: side of the input, pixels.
      weights: "none", "imagenet", a Keras .h5 file of the backbone without its last
        layer, or the best.keras of a run with the same architecture.
      dropout: before the last layer.
      seed: of the dropout.

    Returns:
      The model and the name of its preprocessing.

    Raises:
      UserError: a weights file is missing or does not fit (exit 2).
    """
    table = architecture(name)
    if weights == "none":
        return build(name, input_size, SCALED, dropout, seed), SCALED
    path = _imagenet_file(name) if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise usage_error(f"There is no weights file {path}.", "Check --weights.")
    if path.name == BEST:
        preprocessing = read_run(path.parent)["preprocessing"]
        model = build(name, input_size, preprocessing, dropout, seed)
        read_weights(model, path)
        return model, preprocessing
    model = build(name, input_size, table.preprocessing, dropout, seed)
    images = keras.Input((input_size, input_size, 3))
    backbone = keras.Model(images, table.backbone(images))
    read_weights(backbone, path)
    values = backbone.get_weights()
    # The backbone's variables come first: only the last layer stands behind them.
    model.set_weights(values + model.get_weights()[len(values) :])
    return model, table.preprocessing


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
    if sha256_file(path) != recorded:
        raise UserError(
            f"{path} is not the file that the run wrote (its sha256 differs).",
            "Restore it from a copy, or train again.",
            ExitCode.INTEGRITY,
        )
    with float32():
        model = build(run["model"], run["input_size"], run["preprocessing"])
    read_weights(model, path)
    return model


def read_run(run_dir: str | Path) -> dict[str, Any]:
    """Reads a run folder's run.json.

    Raises:
      UserError: there is none, or it is damaged (exit 3).
    """
    path = Path(run_dir) / RUN
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{run_dir} is not a run folder: it has no {RUN}.",
            "Name a folder that `python -m trainer.main` wrote.",
            ExitCode.INPUT_DATA,
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not JSON.",
            "Restore it from a copy, or train again.",
            ExitCode.INPUT_DATA,
        ) from error


def write_run(run_dir: str | Path, run: dict[str, Any]) -> None:
    atomic_write(Path(run_dir) / RUN, json.dumps(run, indent=1) + "\n")


def read_weights(model: keras.Model, path: Path) -> None:
    """Reads weights, and nothing else, from a .keras or .h5 file.

    Raises:
      UserError: the file does not fit the model (exit 2).
    """
    try:
        model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds
        raise usage_error(
            f"{path} does not hold weights of {model.name}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "Name a file made for this architecture.",
        ) from error


def _imagenet_file(name: str) -> Path:
    """Finds or fetches the published ImageNet weights of an architecture."""
    url = ARCHITECTURES[name].imagenet_url
    if not url:
        raise usage_error(
            f"Keras publishes no ImageNet weights for {name}.",
            "Use --weights=FILE, or --weights=none --regime=scratch.",
        )
    file = Path.home() / ".keras" / "models" / url.rsplit("/", 1)[1]
    if file.is_file():
        return file
    try:
        return Path(keras.utils.get_file(file.name, url, cache_subdir="models"))
    except Exception as error:  # whatever the network does
        raise usage_error(
            f"The ImageNet weights of {name} could not be fetched.",
            f"Download {url} elsewhere and put it at {file}.",
        ) from error
