"""What the train step's benchmark does alike on every backend of Keras."""

import dataclasses
from typing import Any

import keras
import numpy as np

from benchmarks import flops
from benchmarks.step_settings import (
    DROPOUT,
    LEARNING_RATE,
    SMOOTHING,
    WEIGHT_DECAY,
)
from trainer import models, warp

#: Of CelebA's aligned images: what the warp stretches.
HEIGHT, WIDTH = 218, 178
ROTATION, SHIFT = 20, (0.1, 0.1)  # of the warp


@dataclasses.dataclass(frozen=True)
class Batch:
    """Random examples.

    Attributes:
      images: (batch, 218, 178, 3) uint8, 0..255.
      parameters: (batch, 5) float32, of the warp.
      warped: (batch, size, size, 3) float32, 0..255: what the model takes.
      labels: (batch,) float32, 0 or 1.
    """

    images: Any
    parameters: Any
    warped: Any
    labels: Any


def draw(size: int, batch_size: int) -> Batch:
    """Draws a batch as NumPy arrays; the same numbers every time."""
    rng = np.random.default_rng(0)
    uniform = rng.uniform(size=(batch_size, warp.NUM_PARAMETERS)).astype("float32")
    parameters = warp.draw(uniform, ROTATION, SHIFT, flip=True)
    return Batch(
        rng.integers(0, 256, (batch_size, HEIGHT, WIDTH, 3), "uint8"),
        keras.ops.convert_to_numpy(parameters),
        rng.uniform(0, 255, (batch_size, size, size, 3)).astype("float32"),
        rng.integers(0, 2, batch_size).astype("float32"),
    )


def facts(model: keras.Model) -> dict[str, float]:
    """Size and cost of a model."""
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return {
        "parameters": float(model.count_params()),
        "trainable": float(trainable),
        "GFLOP/image": flops.training(model) / 1e9,
    }


def compiled_model(model: str, size: int) -> keras.Model:
    """What a user of plain Keras would train: stock layers, AdamW, all by default."""
    built = models.build(model, size, dropout=DROPOUT)
    built.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        loss=keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=SMOOTHING
        ),
    )
    return built


def matrices(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Two (side, side) float32 matrices whose products keep their size."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, side, side)).astype("float32")
    return first, second / np.float32(np.sqrt(side))
