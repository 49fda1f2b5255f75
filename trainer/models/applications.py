"""Backbones of `keras.applications`."""

from typing import Any

import keras
from keras import layers


def backbone(
    images: Any,
    name: str,
    he_normal: bool = False,
    weights: str | None = None,
    **options: Any,
) -> Any:
    """Builds a model of `keras.applications` without its last layers.

    Args:
      images: Keras tensor (batch, side, side, 3), preprocessed.
      name: of the function in `keras.applications`.
      he_normal: random weights as in He et al., "Delving Deep into Rectifiers", ICCV
        2015. From Keras' own (Glorot's), which do not count the half that ReLU cuts
        off, sixteen layers without shortcuts or normalization learn nothing for epochs.
      weights: None for random ones, or "imagenet", which downloads them unless they are
        in Keras' directory, and checks their hash.
      **options: other arguments of the function.

    Returns:
      Keras tensor, the feature map.
    """
    build = getattr(keras.applications, name)
    model = build(include_top=False, weights=weights, input_tensor=images, **options)
    if he_normal and weights is None:
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
    return model.output
