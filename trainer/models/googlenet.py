"""GoogLeNet with batch normalization, in torchvision's geometry.

Architecture: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015; batch
normalization: Ioffe and Szegedy, ICML 2015. Where the paper has a 5×5 convolution
torchvision has a 3×3 one, and so has this, so that its pretrained parameters fit.

The three 1×1 convolutions that start an inception block read the same tensor and are
one convolution here, split behind its normalization: the same function and the same
number of parameters, in fewer and larger operations.
"""

from typing import Any

import keras
from keras import layers

#: Per block: 1×1, 3×3 reduce, 3×3, second 3×3 reduce, second 3×3, pool projection;
#: a number alone is the window of a max pooling with stride 2.
BLOCKS: tuple[tuple[str, Any], ...] = (
    ("3a", (64, 96, 128, 16, 32, 32)),
    ("3b", (128, 128, 192, 32, 96, 64)),
    ("pool3", 3),
    ("4a", (192, 96, 208, 16, 48, 64)),
    ("4b", (160, 112, 224, 24, 64, 64)),
    ("4c", (128, 128, 256, 24, 64, 64)),
    ("4d", (112, 144, 288, 32, 64, 64)),
    ("4e", (256, 160, 320, 32, 128, 128)),
    ("pool4", 2),
    ("5a", (256, 160, 320, 32, 128, 128)),
    ("5b", (384, 192, 384, 48, 128, 128)),
)

EPSILON = 1e-3  # of the batch normalization, as in torchvision

#: Auxiliary heads, for training only: where each is attached, and the weight of its
#: loss (section 5 of the paper).
AUXILIARY = {"aux1": "inception4a", "aux2": "inception4d"}
AUXILIARY_WEIGHT = 0.3


def backbone(images: Any) -> Any:
    """Builds GoogLeNet up to its last inception block.

    Args:
      images: Keras tensor (batch, side, side, 3), preprocessed for its weights.

    Returns:
      (batch, about side / 32, about side / 32, 1024).
    """
    x = layers.ZeroPadding2D(3, name="conv1_pad")(images)
    x = _conv(x, 64, 7, "conv1", strides=2, padding="valid")
    x = _max_pool(x, 3, "pool1")
    x = _conv(x, 64, 1, "conv2")
    x = _conv(x, 192, 3, "conv3")
    x = _max_pool(x, 3, "pool2")
    for name, block in BLOCKS:
        if isinstance(block, int):
            x = _max_pool(x, block, name)
        else:
            x = _inception(x, block, f"inception{name}")
    return x


def auxiliary_head(features: Any, name: str, units: int = 1) -> Any:
    """Builds a classifier on features in mid-network, as torchvision's InceptionAux.

    Args:
      features: Keras tensor (batch, side, side, channels).
      name: of the head; its layers' names begin with it and an underscore.
      units: number of logits.

    Returns:
      (batch, units) float32.
    """
    x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(features)
    x = _conv(x, 128, 1, name)
    x = layers.Flatten(name=f"{name}_flat")(x)
    x = layers.Dense(1024, activation="relu", name=f"{name}_fc1")(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return layers.Dense(units, dtype="float32", name=f"{name}_fc2")(x)


def torch_names() -> dict[str, tuple[tuple[str, int], ...]]:
    """Which of torchvision's convolutions are in each of these, with their filters.

    Each has batch normalization behind it, in both. `weights` reads them.
    """
    names = {"conv1": (("conv1", 64),), "conv2": (("conv2", 64),)}
    names["conv3"] = (("conv3", 192),)
    for block, filters in BLOCKS:
        if isinstance(filters, int):
            continue
        ones, reduce3, three, reduce5, five, pool = filters
        name = f"inception{block}"
        names[f"{name}_reduce"] = (
            (f"{name}.branch1", ones),
            (f"{name}.branch2.0", reduce3),
            (f"{name}.branch3.0", reduce5),
        )
        names[f"{name}_branch2"] = ((f"{name}.branch2.1", three),)
        names[f"{name}_branch3"] = ((f"{name}.branch3.1", five),)
        names[f"{name}_branch4"] = ((f"{name}.branch4.1", pool),)
    return names


def _conv(x, filters, kernel, name, strides=1, padding="same"):
    x = layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _max_pool(x, window, name):
    # torchvision pools in ceil mode: a cell more at the far edge, none at the near one.
    # TensorFlow's "same" is that for even sides, "valid" is that for odd ones.
    even_or_two = window == 2 or x.shape[1] % 2 == 0
    padding = "same" if even_or_two else "valid"
    return layers.MaxPooling2D(window, strides=2, padding=padding, name=name)(x)


def _inception(x, filters, name):
    ones, reduce3, three, reduce5, five, pool = filters
    reduced = _conv(x, ones + reduce3 + reduce5, 1, f"{name}_reduce")
    splits = [ones, ones + reduce3]
    branch1, branch2, branch3 = keras.ops.split(reduced, splits, axis=-1)
    branch2 = _conv(branch2, three, 3, f"{name}_branch2")
    branch3 = _conv(branch3, five, 3, f"{name}_branch3")
    branch4 = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branch4 = _conv(branch4, pool, 1, f"{name}_branch4")
    return layers.Concatenate(name=name)([branch1, branch2, branch3, branch4])
