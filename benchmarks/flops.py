"""Floating-point operations of a model, counted from the shapes of its layers."""

import math

import keras
from keras import layers

from benchmarks.train_step.cases import TRAIN_PASSES

_COUNTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def forward(model: keras.Model) -> int:
    """Operations per image of a forward pass, two for each multiply-add.

    Counts convolutions and dense layers, as the literature does; all else is below a
    hundredth of them.

    Args:
      model: a functional model, channels last, without models inside.
    """
    return sum(
        2 * math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
        for layer in model.layers
        if isinstance(layer, _COUNTED)
    )


def training(model: keras.Model) -> int:
    """Operations per image of a train step, by the usual count of passes."""
    return TRAIN_PASSES * forward(model)
