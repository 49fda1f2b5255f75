"""Grad-CAM against what it must be where a network is simple enough to say."""

import keras
import numpy as np
import pandas as pd
import pytest
import simplejpeg
import tensorflow as tf
from keras import layers

from trainer import augmentation, models
from trainer.data import open_dataset
from trainer.reporting import gallery, gradcam

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 50, 44, 3), np.uint8)

#: Where the features are that count, and how many cells they have at 48 pixels.
LAST_FEATURES = {
    "vgg16": ("block5_conv3", (3, 3)),
    "vgg19": ("block5_conv4", (3, 3)),
    "googlenet": ("inception5b", (2, 2)),
    "resnet50": ("conv5_block3_out", (2, 2)),
    "resnet101": ("conv5_block3_out", (2, 2)),
    "efficientnetv2b0": ("top_activation", (2, 2)),
}

SLOW = ("vgg19", "resnet101")


def activation_map(model, images, layer):
    """What Grad-CAM is above a mean and a dense layer: Zhou et al., CVPR 2016."""
    features = keras.Model(model.input, [model.get_layer(layer).output, model.output])
    resized = augmentation.resize(tf.constant(images), model.input_shape[1])
    values, logits = (value.numpy() for value in features(resized, training=False))
    weights = model.get_layer("logit").get_weights()[0][:, 0]
    heat = np.maximum(values @ weights * np.where(logits >= 0, 1, -1)[:, None], 0)
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30)


def channels(red: float, blue: float) -> keras.Model:
    """A model whose logit is red · mean red + blue · mean blue, on 4 × 4 cells."""
    images = keras.Input((32, 32, 3))
    x = layers.AveragePooling2D(8)(images)
    x = layers.Conv2D(2, 1, use_bias=False, name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(images, layers.Dense(1, name="logit")(x))
    pick = np.array([[1, 0], [0, 0], [0, 1]], np.float32)[None, None]
    model.set_weights([pick, np.array([[red], [blue]]), np.zeros(1)])
    return model


def test_gradcam_localizes_evidence():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :16, :, 0] = 200  # red above
    image[:, 16:24, :, 2] = 250  # blue below, half of it
    above = np.repeat([[1], [1], [0], [0]], 4, axis=1)
    below = np.repeat([[0], [0], [1], [0]], 4, axis=1)
    for red, blue, expected in (
        (1, -1, above),  # label 1, by the red
        (1, -4, below),  # label 0, by the blue
        (-1, 4, below),  # label 1, by the blue
        (-1, 1, above),  # label 0, by the red
    ):
        np.testing.assert_array_equal(
            gradcam.heat_maps(channels(red, blue), image)[0], expected
        )
    # Both speak for label 1: 0.4 · 250 is half of 200.
    np.testing.assert_allclose(
        gradcam.heat_maps(channels(1, 0.4), image)[0], above + 0.5 * below, rtol=1e-6
    )


def test_gradcam_without_evidence_is_zero():
    model = channels(-1, 0)
    model.get_layer("logit").bias.assign([1e9])
    image = np.full((1, 32, 32, 3), 100, np.uint8)
    np.testing.assert_array_equal(gradcam.heat_maps(model, image), 0)


def test_gradcam_equals_the_activation_map_in_any_batch_and_policy(tiny):
    model = models.build(tiny, 32, seed=1)
    images = np.random.default_rng(1).integers(0, 256, (11, 40, 60, 3), np.uint8)
    heat = gradcam.heat_maps(model, images)
    assert heat.shape == (11, 8, 8) and heat.dtype == np.float32
    assert heat.min() == 0 and (heat.max(axis=(1, 2)) == 1).all()
    expected = activation_map(model, images, "last")
    np.testing.assert_allclose(heat, expected, atol=1e-5)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    np.testing.assert_array_equal(gradcam.heat_maps(model, images), heat)
    alone = gradcam.heat_maps(model, images[10:])
    np.testing.assert_allclose(alone, heat[10:], atol=1e-5)


def test_gradcam_of_a_model_that_averages_mirror_images(tiny):
    """Where both logits speak for one label, a map is the plain model's."""
    model = models.build(tiny, 32, seed=1)
    averaged = models.build(tiny, 32, flip_average=True)
    for one in (model, averaged):
        one.set_weights(model.get_weights())
        one.get_layer("logit").bias.assign([100.0])
    images = np.random.default_rng(1).integers(0, 256, (9, 32, 32, 3), np.uint8)
    expected = gradcam.heat_maps(model, images)
    np.testing.assert_allclose(gradcam.heat_maps(averaged, images), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in models.ARCHITECTURES
    ],
)
def test_gradcam_of_every_architecture(name):
    assert name in LAST_FEATURES, "add its last feature layer"
    layer, cells = LAST_FEATURES[name]
    model = models.build(name, 48)
    heat = gradcam.heat_maps(model, IMAGES, least_cells=1)
    assert heat.shape == (3, *cells)
    assert np.isfinite(heat).all() and 0 <= heat.min() and heat.max() <= 1
    # Each of VGG's cells goes on to one maximum, so its map has the same weights.
    expected = activation_map(model, IMAGES, layer)
    np.testing.assert_allclose(heat, expected, atol=1e-4)
    keras.utils.clear_session()  # frees the memory of the largest


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [("googlenet", 64, (4, 4)), ("googlenet", 128, (4, 4)), ("resnet50", 64, (4, 4))],
)
def test_gradcam_of_small_inputs_uses_an_earlier_stage(name, size, cells):
    model = models.build(name, size)
    heat = gradcam.heat_maps(model, IMAGES[:1])
    assert heat.shape == (1, *cells)
    assert heat.max() == 1 and heat.min() < 1
    keras.utils.clear_session()


def test_gradcam_does_not_cut_in_a_branch():
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, 2, padding="same", name="trunk")(images)
    branch = layers.Conv2D(4, 3, padding="same", name="branch")(x)
    x = layers.AveragePooling2D(8)(layers.Add(name="sum")([x, branch]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(images, layers.Dense(1, name="logit")(x))
    assert gradcam.heat_maps(model, IMAGES, least_cells=1).shape == (3, 2, 2)
    assert gradcam.heat_maps(model, IMAGES, least_cells=3).shape == (3, 16, 16)
    features, _ = gradcam._split(model, 3)
    assert features is model.get_layer("sum").output
    # Cut in the branch, the sum would still need the trunk.
    with pytest.raises(ValueError):
        keras.Model(model.get_layer("branch").output, model.output)


def test_overlay_color_is_heat():
    image = np.zeros((24, 32, 3), np.uint8)
    image[:] = (0, 100, 255)
    heat = np.zeros((24, 32))
    heat[:, 16:] = 1
    pixels = simplejpeg.decode_jpeg(gallery.overlay(image, heat)).astype(int)
    assert pixels.shape == image.shape
    cold, hot = pixels[:, :12], pixels[:, 20:]
    assert np.ptp(cold, axis=-1).max() <= 12  # the image's color is gone
    assert (hot.mean(axis=(0, 1)) > cold.mean(axis=(0, 1)) + 60).all()


def test_report_images_of_a_dataset(tiny, dataset_dir, monkeypatch):
    dataset = open_dataset(dataset_dir)
    names = [f"test-{number:03d}.jpg" for number in range(21)]
    rows = {"image_id": names, "label": 0, "probability": np.linspace(0, 1, 21)}
    predictions = pd.DataFrame(rows)
    model = models.build(tiny, 32)
    images = gradcam.report_images(model, dataset, "test", predictions)
    assert images.cells == (8, 8)
    assert set(images.jpegs) == set(gallery.image_ids(predictions))
    assert images.overlays.keys() == images.jpegs.keys()
    for image_id, overlay in images.overlays.items():
        image = simplejpeg.decode_jpeg(images.jpegs[image_id])
        heat = gradcam.heat_maps(model, image[None])[..., None]
        resized = tf.image.resize(heat, image.shape[:2]).numpy()[0, ..., 0]
        assert overlay == gallery.overlay(image, resized)
    # One cell would say nothing about where.
    single = models.Architecture("Single", layers.Conv2D(4, 32, name="whole"))
    monkeypatch.setitem(models.ARCHITECTURES, "single", single)
    model = models.build("single", 32)
    images = gradcam.report_images(model, dataset, "test", predictions)
    assert images.jpegs and not images.overlays and images.cells is None
