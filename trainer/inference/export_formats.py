"""The formats that a model is exported to: one table.

Every format takes `images` (batch, side, side, 3) float32, RGB 0..255, with any batch
size, and gives `probability` (batch, 1) float32, 0..1.
"""

import dataclasses
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from support.errors import usage_error

#: What the input and the output of an export are called, where a format has names.
IMAGES, PROBABILITY = "images", "probability"
#: The file by which a SavedModel is known.
SAVED_MODEL_FILE = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class Format:
    """How one format is written.

    Attributes:
      default_name: of the export in its run's directory.
      suffix: what the name of an export ends in; "": a directory of any name.
      write: writes a model (`probability_model`) to a path.
      packages: module -> package, what is needed next to TensorFlow and Keras to write
        the export and to run it.
    """

    default_name: str
    suffix: str
    write: Callable[[keras.Model, Path], None]
    packages: dict[str, str] = dataclasses.field(default_factory=dict)


def probability_model(model: keras.Model, temperature: float) -> keras.Model:
    """Puts temperature and sigmoid behind a model's logit; all layers are stock.

    Args:
      model: images (batch, side, side, 3) float32 to logits (batch, 1).
      temperature: that logits are divided by.

    Returns:
      A model of the same images to probabilities of label 1, (batch, 1) float32.
    """
    # Plain operations, as in the preprocessing: they load on every Keras backend.
    probability = keras.layers.Activation("sigmoid", dtype="float32", name=PROBABILITY)(
        model.output * (1.0 / temperature)
    )
    return keras.Model(model.input, probability, name=model.name)


def require_packages(name: str) -> None:
    """Refuses a format whose packages are not installed.

    Raises:
      UserError: exit 2, naming them.
    """
    missing = [
        package
        for module, package in FORMATS[name].packages.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise usage_error(
            f"--format={name} needs {' and '.join(missing)}, not installed here.",
            "Install the extra: pip install -e '.[export]'",
        )


def _named(model: keras.Model) -> keras.Model:
    """The same model with a name for its output, which exporters keep."""
    return keras.Model(model.input, {PROBABILITY: model.output}, name=model.name)


def _write_keras(model: keras.Model, path: Path) -> None:
    model.save(path)


def _write_savedmodel(model: keras.Model, path: Path) -> None:
    _named(model).export(str(path), format="tf_saved_model", verbose=False)


def _write_onnx(model: keras.Model, path: Path) -> None:
    # Not through `model.export`: for older releases of tf2onnx that puts a function of
    # its own into NumPy and other modules.
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    named = _named(model)
    function = tf.function(lambda images: named(images, training=False))
    signature = [tf.TensorSpec(model.input_shape, tf.float32, name=IMAGES)]
    tf2onnx.convert.from_function(function, signature, output_path=str(path))


def _write_litert(model: keras.Model, path: Path) -> None:
    # Only LiteRT's own operations: with TensorFlow's, a plain interpreter would fail.
    _named(model).export(
        str(path),
        format="litert",
        verbose=False,
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
    )


FORMATS = {
    "keras": Format("export.keras", ".keras", _write_keras),
    "savedmodel": Format("export-savedmodel", "", _write_savedmodel),
    "onnx": Format(
        "export.onnx",
        ".onnx",
        _write_onnx,
        {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"},
    ),
    "litert": Format(
        "export.tflite",
        ".tflite",
        _write_litert,
        {"ai_edge_litert": "ai-edge-litert"},
    ),
}
