"""Floating-point operations of a model, counted from the shapes of its layers."""

import math

import keras
from keras import layers

from benchmarks.train_step.step_settings import TRAIN_PASSES


def forward(model: keras.Model) -> int:
    """Operations per image of a forward pass, two for each multiply-add.

    Counts convolutions and dense layers, as the literature does; all else is below a
    hundredth of them.

    Args:
      model: a functional model, channels last, without models inside.
    """
    return sum(_layer(layer) for layer in model.layers)


def training(model: keras.Model) -> int:
    """Operations per image of a train step, by the usual count of passes."""
    return TRAIN_PASSES * forward(model)


def _layer(layer: layers.Layer) -> int:
    if not isinstance(layer, layers.Conv2D | layers.Dense):
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    return 2 * positions * math.prod(layer.kernel.shape)
