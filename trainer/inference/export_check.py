"""Runs an exported model as its user would: with the format's own runtime only.

`python -I export_check.py FORMAT MODEL IMAGES PROBABILITIES SIZE...` reads IMAGES, a
.npy file (n, side, side, 3) float32, runs MODEL on all of them in batches of each SIZE,
and writes PROBABILITIES, a .npy file (sizes, n) float32. It imports nothing of this
project, so nothing of it can be what makes the model work.
"""

import sys
from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def load_keras(path: str) -> Function:
    import keras

    return keras.models.load_model(path, safe_mode=True).predict_on_batch


def load_savedmodel(path: str) -> Function:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def function(images):
        # `loaded` owns the variables that its signature uses.
        serve = loaded.signatures["serving_default"]
        return serve(images=tf.constant(images))["probability"].numpy()

    return function


def load_onnx(path: str) -> Function:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probability"], {"images": images})[0]


def load_litert(path: str) -> Function:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(images=images)["probability"]


LOADERS = {
    "keras": load_keras,
    "savedmodel": load_savedmodel,
    "onnx": load_onnx,
    "litert": load_litert,
}


def run(function: Function, images: np.ndarray, size: int) -> np.ndarray:
    """(n, side, side, 3) images to (n,) probabilities, in batches; the last is smaller.

    Raises:
      ValueError: the model gives another shape than (batch, 1).
    """
    parts = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        result = np.asarray(function(batch))
        if result.shape != (len(batch), 1):
            raise ValueError(f"{len(batch)} images gave the shape {result.shape}")
        parts.append(result[:, 0])
    return np.concatenate(parts)


def main(argv: list[str]) -> None:
    kind, model, source, target, *sizes = argv[1:]
    images = np.load(source)
    function = LOADERS[kind](model)
    np.save(target, np.stack([run(function, images, int(size)) for size in sizes]))


if __name__ == "__main__":
    main(sys.argv)
