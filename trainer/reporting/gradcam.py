"""Grad-CAM: where in an image the features are that speak for the prediction.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: Visual Explanations
from Deep Networks via Gradient-Based Localization", ICCV 2017.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers

from support import images
from trainer import augmentation, models
from trainer.data import Dataset
from trainer.data.input_pipeline import read_images
from trainer.reporting import gallery
from trainer.reporting.gallery import Images

#: Few enough for the largest architecture and input on a small machine.
_BATCH = 8
#: Below, a map over a face says nothing: GoogLeNet and ResNet end with 3 × 3 cells at
#: 96 pixels, and have 6 × 6 one stage before.
LEAST_CELLS = 4


def report_images(
    model: keras.Model, dataset: Dataset, split: str, predictions: pd.DataFrame
) -> Images:
    """Reads the images of the report's gallery and lays their heat maps over them.

    A map of a single cell points nowhere: then there are no overlays.

    Args:
      model: what `models.build` or `models.load` returned.
      dataset: the dataset that was predicted.
      split: the split that was predicted.
      predictions: columns image_id, label, probability.

    Raises:
      UserError: a shard is damaged (exit 5).
    """
    ids = gallery.image_ids(predictions)
    jpegs = read_images(dataset, split, ids)
    pixels = np.stack([images.decode_rgb(jpegs[image_id]) for image_id in ids])
    heat = heat_maps(model, pixels)
    cells = heat.shape[1:]
    if cells == (1, 1):
        return Images(jpegs)
    overlays = {
        image_id: overlay(image, own)
        for image_id, image, own in zip(ids, pixels, heat, strict=True)
    }
    return Images(jpegs, overlays, cells)


def overlay(image: np.ndarray, heat: np.ndarray) -> bytes:
    """Lays a map of cells over (height, width, 3) uint8; see `gallery.overlay`."""
    # Resized as the image is for the model, so that they align.
    resized = tf.image.resize(heat[..., None], image.shape[:2])[..., 0].numpy()
    return gallery.overlay(image, resized)


def heat_maps(
    model: keras.Model, inputs: Any, least_cells: int = LEAST_CELLS
) -> np.ndarray:
    """Computes Grad-CAM for the label that the model gives each image.

    The mean gradient of the label's score weights each channel of a convolutional
    feature map; what is positive in the weighted sum speaks for the label. The score of
    label 1 is the logit, that of label 0 its negative.

    Args:
      model: what `models.build` or `models.load` returned.
      inputs: (n, height, width, 3) uint8 or float, 0..255, of any size; they are
        resized as in the evaluation.
      least_cells: rows and columns that the map must have at least. The paper takes
        the last one, which small inputs leave with 2 × 2 cells; this is the last one
        that is not smaller.

    Returns:
      (n, rows, columns) float32: 0..1, each map with its own maximum as 1; all 0 where
      nothing speaks for the label.
    """
    backbone, head = _cut(model, least_cells)
    maps = []
    for start in range(0, len(inputs), _BATCH):
        batch = tf.constant(inputs[start : start + _BATCH])
        # Not the compiled warp: that would compile again for this batch size.
        resized = augmentation.resize(batch, model.input_shape[1])
        heat = _explain(backbone, head, resized).numpy()
        maps.append(heat[: len(batch)])  # mirror images follow, see `models.build`
    return np.concatenate(maps)


def explainer(
    model: keras.Model, least_cells: int = LEAST_CELLS
) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles `heat_maps` for many single images, at a tenth of its time for each.

    Returns:
      A function of an image (height, width, 3) uint8 that returns its map (rows,
      columns) float32.
    """
    explain = functools.partial(_explain, *_cut(model, least_cells))
    side = model.input_shape[1]
    compiled = tf.function(explain, [tf.TensorSpec((1, side, side, 3))])
    return lambda image: compiled(augmentation.resize(image[None], side))[0].numpy()


def _cut(model: keras.Model, least_cells: int) -> tuple[keras.Model, keras.Model]:
    """The model up to the features of the map, and from there to the logit."""
    # A model casts its input to the policy of the moment, whatever its layers are.
    with models.float32():
        features, head = _split(model, least_cells)
        return keras.Model(model.input, features), head


def _split(model: keras.Model, least_cells: int) -> tuple[Any, keras.Model]:
    """The last features with enough cells, and the model from there to the logit.

    The output of a max pooling is passed over: it quarters the map that goes into it,
    which the paper takes. So are the branches of a block: the model can be cut only
    where everything passes through.
    """
    pool = model.get_layer(models.POOL)
    kinds = [isinstance(layer, layers.Conv2D) for layer in model.layers]
    first, last = kinds.index(True), model.layers.index(pool)
    for layer in reversed(model.layers[first:last]):
        features = layer.output
        if isinstance(layer, layers.MaxPooling2D) or len(features.shape) != 4:
            continue
        if min(features.shape[1:3]) >= least_cells:
            with contextlib.suppress(ValueError):  # not connected: in a branch
                return features, keras.Model(features, model.output)
    return pool.input, keras.Model(pool.input, model.output)


def _explain(backbone: keras.Model, head: keras.Model, resized: Any) -> tf.Tensor:
    features = backbone(resized, training=False)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logit = head(features, training=False)
        score = tf.where(logit >= 0, logit, -logit)
    gradient = tape.gradient(score, features)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True))
