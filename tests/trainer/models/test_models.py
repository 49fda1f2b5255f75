"""Known sizes, safe loading, fused batch normalization, other backends."""

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from support.errors import ExitCode, UserError
from trainer import models
from trainer.models import training_model
from trainer.runs.record import write_run

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


#: Of the backbones, as keras.applications and torchvision document them.
PARAMETERS = {
    "vgg16": 14_714_688,
    "vgg19": 20_024_384,
    "googlenet": 5_614_464,
    "resnet50": 23_587_712,
    "resnet101": 42_658_176,
    "efficientnetv2b0": 5_919_312,
}


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_parameters_are_the_known_ones(name):
    model = models.build(name, models.ARCHITECTURES[name].smallest_input)
    channels = model.get_layer("logit").kernel.shape[0]
    assert name in PARAMETERS, "add its documented number"
    assert model.count_params() - channels - 1 == PARAMETERS[name]
    # `models.build` preprocesses: a backbone that does so too would do it twice.
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Rescaling", "Normalization"}


@pytest.mark.parametrize(("name", "nearest"), [("resnet5", "resnet50"), ("x", "vgg16")])
def test_an_unknown_architecture_is_refused(name, nearest):
    with pytest.raises(UserError, match=nearest) as raised:
        models.architecture(name)
    assert raised.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ResNet5", {}, "keras.applications has no ResNet5. Did you mean ResNet50"),
        ("densenet", {}, "has no densenet. Did you mean DenseNet"),
        ("MobileNet", {"alfa": 1}, "MobileNet has no option alfa. Did you mean alpha?"),
    ],
)
def test_typos_in_an_entry_are_named(name, options, message):
    entry = models.ARCHITECTURES["resnet50"]
    entry = dataclasses.replace(entry, options={"name": name, **options})
    with pytest.raises(UserError, match=message) as raised:
        entry.backbone(keras.Input((32, 32, 3)))
    assert raised.value.exit_code == ExitCode.USAGE


def test_unknown_preprocessing_is_refused():
    with pytest.raises(ValueError, match="Own: preprocessing='tf': expected one of"):
        models.Architecture("Own", "own:backbone", preprocessing="tf")


def test_preprocessing_is_inside_and_by_weights():
    pixels = np.full((1, 32, 32, 3), [255.0, 127.5, 0.0], "float32")
    wanted = {
        models.SCALED: [1, 0, -1],
        models.CAFFE: [0 - 103.939, 127.5 - 116.779, 255 - 123.68],
        models.TORCH: [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, -0.406 / 0.225],
    }
    for preprocessing, values in wanted.items():
        images = keras.Input((32, 32, 3))
        model = keras.Model(images, models._preprocess(images, preprocessing))
        np.testing.assert_allclose(model(pixels)[0, 0, 0], values, rtol=1e-4, atol=1e-3)


def finished_run(folder, name, preprocessing=models.SCALED):
    """A run folder as a finished run leaves it."""
    model = models.build(name, 32, preprocessing, dropout=0.2)
    digest = models.save(model, folder / models.BEST)
    run = {
        "model": name,
        "attribute": "Male",
        "input_size": 32,
        "preprocessing": preprocessing,
        "files": {models.BEST: digest},
    }
    write_run(folder, run)
    return model


@pytest.mark.parametrize("preprocessing", models.PREPROCESSING)
def test_a_saved_model_opens_in_plain_keras(tiny, tmp_path, preprocessing):
    model = finished_run(tmp_path, tiny, preprocessing)
    np.testing.assert_array_equal(models.load(tmp_path)(IMAGES), model(IMAGES))
    plain = keras.saving.load_model(tmp_path / models.BEST, safe_mode=True)
    np.testing.assert_array_equal(plain(IMAGES), model(IMAGES))


def test_flip_average(tiny, tmp_path):
    model = models.build(tiny, 32, models.CAFFE, seed=1)
    averaged = models.build(tiny, 32, models.CAFFE, flip_average=True)
    averaged.set_weights(model.get_weights())
    expected = (model(IMAGES) + model(IMAGES[:, :, ::-1])) / 2
    assert np.abs(expected - model(IMAGES)).max() > 1e-4
    np.testing.assert_allclose(averaged(IMAGES), expected, atol=1e-6)
    models.save(averaged, tmp_path / models.BEST)
    saved = keras.saving.load_model(tmp_path / models.BEST)
    np.testing.assert_allclose(saved(IMAGES[:1]), expected[:1], atol=1e-6)


def test_a_changed_or_missing_file_is_refused(tiny, tmp_path):
    finished_run(tmp_path, tiny)
    path = tmp_path / models.BEST
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="sha256 differs") as raised:
        models.load(tmp_path)
    assert raised.value.exit_code == ExitCode.INTEGRITY
    path.unlink()
    with pytest.raises(UserError, match="no finished run") as raised:
        models.load(tmp_path)
    assert raised.value.exit_code == ExitCode.INPUT_DATA
    with pytest.raises(UserError, match="not a run folder"):
        models.load(tmp_path / "nowhere")


def test_weights_of_a_run_and_of_a_backbone_file(tiny, tmp_path):
    run = finished_run(tmp_path, tiny)
    model, preprocessing = models.build_initial(
        tiny, 32, str(tmp_path / models.BEST), dropout=0, seed=0
    )
    assert preprocessing == models.SCALED
    np.testing.assert_array_equal(model(IMAGES), run(IMAGES))
    with pytest.raises(UserError, match="contains no weights of"):
        models.build_initial("googlenet", 32, str(tmp_path / models.BEST), 0, seed=0)

    images = keras.Input((32, 32, 3))
    backbone = keras.Model(images, models.ARCHITECTURES[tiny].backbone(images))
    backbone.set_weights(run.get_weights()[:-2])
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    model, _ = models.build_initial(
        tiny, 32, str(tmp_path / "backbone.weights.h5"), dropout=0, seed=0
    )
    for got, want in zip(model.get_weights()[:-2], run.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(got, want)


def test_frozen_backbone_stays_and_normalizes_in_inference_mode(tiny):
    model = training_model.build(models.build(tiny, 32), 0.5)
    models.freeze_backbone(model)
    before = model.get_weights()
    model(IMAGES, training=True)
    assert [v.path.split("/")[0] for v in model.trainable_variables] == ["logit"] * 2
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_models_and_warp_run_without_tensorflow():
    program = """
import sys
sys.modules["tensorflow"] = None  # importing it is now an error
import numpy as np
from trainer import augmentation, models
from trainer.models import googlenet
images = np.full((2, 50, 40, 3), 100, "uint8")
side = augmentation.compiled(32)(images, augmentation.identity(2))
assert np.allclose(side, 100), side
logits = models.build("googlenet", 32).predict_on_batch(side)
print(tuple(logits.shape))
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "(2, 1)", done.stderr
