"""Backbones of `keras.applications`."""

import inspect
import warnings
from typing import Any

import keras
from keras import layers

from support.errors import did_you_mean, usage_error


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

    Raises:
      UserError: Keras has no such function, or that has no such option (exit 2).
    """
    models = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in models:
        raise usage_error(
            f"keras.applications has no {name}.", did_you_mean(name, models)
        )
    build = getattr(keras.applications, name)
    known = inspect.signature(build).parameters
    for option in options.keys() - known.keys():
        raise usage_error(
            f"keras.applications.{name} has no option {option}.",
            did_you_mean(option, known),
        )
    with warnings.catch_warnings():
        # Without the last layers the weights fit every size.
        warnings.filterwarnings("ignore", "`input_shape` is undefined")
        model = build(
            include_top=False, weights=weights, input_tensor=images, **options
        )
    if he_normal and weights is None:
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
    return model.output
