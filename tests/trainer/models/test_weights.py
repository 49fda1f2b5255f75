"""Weights from files: torchvision's GoogLeNet, safetensors, npz, ImageNet's files."""

import math
import sys

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from support.errors import ExitCode, UserError
from support.files import sha256_file
from trainer import models
from trainer.models import googlenet, weights


def random_parameters(seed=0):
    """Parameters of torchvision's googlenet, as its state_dict names and shapes them.

    The channels are those of its layers, written down apart from the code under test.
    """
    rng = np.random.default_rng(seed)
    parameters = {}

    def conv(name, channels, filters, size):
        scale = math.sqrt(2 / (channels * size * size))
        shape = (filters, channels, size, size)
        parameters[f"{name}.conv.weight"] = rng.normal(0, scale, shape)
        parameters[f"{name}.bn.weight"] = rng.uniform(0.5, 1.5, filters)
        parameters[f"{name}.bn.bias"] = rng.normal(0, 0.2, filters)
        parameters[f"{name}.bn.running_mean"] = rng.normal(0, 0.2, filters)
        parameters[f"{name}.bn.running_var"] = rng.uniform(0.5, 1.5, filters)

    conv("conv1", 3, 64, 7)
    conv("conv2", 64, 64, 1)
    conv("conv3", 64, 192, 3)
    for block, channels, ones, reduce3, three, reduce5, five, pool in BLOCKS:
        name = f"inception{block}"
        conv(f"{name}.branch1", channels, ones, 1)
        conv(f"{name}.branch2.0", channels, reduce3, 1)
        conv(f"{name}.branch2.1", reduce3, three, 3)
        conv(f"{name}.branch3.0", channels, reduce5, 1)
        conv(f"{name}.branch3.1", reduce5, five, 3)
        conv(f"{name}.branch4.1", channels, pool, 1)
    parameters = {k: v.astype(np.float32) for k, v in parameters.items()}
    parameters["conv1.bn.num_batches_tracked"] = np.array(7)
    parameters["fc.weight"] = np.zeros((1000, 1024), np.float32)
    parameters["aux1.fc2.bias"] = np.zeros(1000, np.float32)
    return parameters


BLOCKS = (
    ("3a", 192, 64, 96, 128, 16, 32, 32),
    ("3b", 256, 128, 128, 192, 32, 96, 64),
    ("4a", 480, 192, 96, 208, 16, 48, 64),
    ("4b", 512, 160, 112, 224, 24, 64, 64),
    ("4c", 512, 128, 128, 256, 24, 64, 64),
    ("4d", 512, 112, 144, 288, 32, 64, 64),
    ("4e", 528, 256, 160, 320, 32, 128, 128),
    ("5a", 832, 256, 160, 320, 32, 128, 128),
    ("5b", 832, 384, 192, 384, 48, 128, 128),
)


class Reference:
    """torchvision's forward pass, layer by layer, nothing joined; checked by hand
    against PyTorch 2.13 at eight sizes from 32 to 224 pixels."""

    def __init__(self, parameters):
        self._parameters = parameters

    def __call__(self, images):
        """(batch, side, side, 3), 0..255, to the pooled features (batch, 1024)."""
        normal = (images / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        # `transform_input` of torchvision's googlenet, True with its weights.
        scale = np.array([0.229, 0.224, 0.225]) / 0.5
        x = normal * scale + (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
        x = pool(self._conv(x.astype("float32"), "conv1", 2, 3), 3)
        x = pool(self._conv(self._conv(x, "conv2"), "conv3", padding=1), 3)
        for block, *_ in BLOCKS:
            x = self._inception(x, f"inception{block}")
            x = {"3b": pool(x, 3), "4e": pool(x, 2)}.get(block, x)
        return x.mean((1, 2))

    def _inception(self, x, name):
        branch2 = self._conv(x, f"{name}.branch2.0")
        branch3 = self._conv(x, f"{name}.branch3.0")
        edge = [(0, 0), (1, 1), (1, 1), (0, 0)]
        pooled = pool(np.pad(x, edge, constant_values=-np.inf), 3, stride=1)
        branches = [
            self._conv(x, f"{name}.branch1"),
            self._conv(branch2, f"{name}.branch2.1", padding=1),
            self._conv(branch3, f"{name}.branch3.1", padding=1),
            self._conv(pooled, f"{name}.branch4.1"),
        ]
        return np.concatenate(branches, axis=-1)

    def _conv(self, x, name, stride=1, padding=0):
        kernel = self._parameters[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        x = tf.nn.conv2d(np.pad(x, edges), kernel, stride, "VALID").numpy()
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (
            self._parameters[f"{name}.bn.{n}"] for n in names
        )
        return np.maximum((x - mean) / np.sqrt(variance + 0.001) * weight + bias, 0)


def pool(x, window, stride=2):
    """Max pooling in ceil mode: windows may end outside, as PyTorch's do."""
    count = math.ceil((x.shape[1] - window) / stride) + 1
    reach = (count - 1) * stride + window - x.shape[1]
    padded = np.pad(
        x, [(0, 0), (0, reach), (0, reach), (0, 0)], constant_values=-np.inf
    )
    starts = np.arange(count) * stride
    rows = np.max([padded[:, starts + i] for i in range(window)], axis=0)
    return np.max([rows[:, :, starts + i] for i in range(window)], axis=0)


@pytest.fixture(scope="module")
def parameters():
    return random_parameters()


@pytest.fixture(scope="module")
def torch_file(parameters, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "googlenet.npz"
    np.savez(path, **parameters)
    return path


@pytest.fixture(scope="module")
def model():
    return models.build("googlenet", 32)


@pytest.mark.parametrize("size", [45, 96, 224])
def test_googlenet_computes_what_torchvision_s_does(parameters, torch_file, size):
    model, preprocessing = models.build_initial(
        "googlenet", size, str(torch_file), dropout=0, seed=0
    )
    assert preprocessing == models.SCALED
    images = np.random.default_rng(size).integers(0, 256, (1, size, size, 3))
    features = keras.Model(model.input, model.get_layer("pool").output)
    got = features(images.astype("float32"))
    want = Reference(parameters)(images)
    assert want.max() > 1
    np.testing.assert_allclose(got, want, atol=2e-5 * want.max())


def test_torchvision_s_parameters_are_all_there(parameters):
    names = [part for parts in googlenet.torch_names().values() for part in parts]
    sizes = {
        name: np.size(value)
        for name, value in parameters.items()
        if name.split(".bn.")[-1] in ("weight", "bias") or name.endswith("conv.weight")
    }
    sizes.pop("aux1.fc2.bias", None)
    assert len(sizes) == 3 * len(names)
    assert sum(sizes.values()) + 1000 * 1025 == 6_624_904


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_safetensors_are_read(parameters, model, tmp_path, dtype):
    arrays = {
        name: np.asarray(value, dtype if value.ndim else None)
        for name, value in parameters.items()
    }
    save_file(arrays, tmp_path / "x.safetensors")
    weights.read_torchvision(model, tmp_path / "x.safetensors", googlenet.torch_names())
    want = arrays["conv3.bn.running_mean"].astype("float32")
    np.testing.assert_array_equal(model.get_layer("conv3_bn").moving_mean, want)


def refused(path, model="googlenet", exit_code=ExitCode.USAGE):
    """The one line that a file is refused with."""
    with pytest.raises(UserError) as raised:
        models.build_initial(model, 32, str(path), dropout=0, seed=0)
    assert raised.value.exit_code == exit_code
    assert "\n" not in str(raised.value)
    return str(raised.value)


def without(name):
    return lambda arrays: arrays.pop(name)


def replaced(name, array):
    return lambda arrays: arrays.update({name: array})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("conv3.bn.bias"), "contains no parameter conv3.bn.bias"),
        (
            replaced("inception4a.branch3.0.conv.weight", np.zeros((16, 480, 3, 3))),
            r"branch3.0.conv.weight of shape \(16, 480, 3, 3\), not \(16, 480, 1, 1\)",
        ),
        (replaced("conv1.conv.bias", np.zeros(64)), "parameter conv1.conv.bias, which"),
        (replaced("conv1.bn.bias", np.full(64, np.nan)), "conv1.bn.bias that are not"),
        (replaced("conv1.bn.bias", np.array([None] * 64)), "no readable .npz file"),
    ],
)
def test_parameters_that_do_not_fit_are_named(
    parameters, model, tmp_path, change, message
):
    arrays = dict(parameters)
    change(arrays)
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(UserError, match=message) as raised:
        weights.read_torchvision(model, tmp_path / "wrong.npz", googlenet.torch_names())
    assert raised.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(raised.value)


def test_files_of_other_kinds_are_refused(torch_file, tiny, tmp_path):
    (tmp_path / "googlenet.pth").write_bytes(b"\x80\x02.")
    message = refused(tmp_path / "googlenet.pth")
    assert "may contain code and are not opened" in message
    assert "numpy.savez('googlenet.npz'" in message
    assert "Name a Keras file." in refused(tmp_path / "googlenet.pth", tiny)
    assert "takes no parameters of torchvision" in refused(torch_file, tiny)
    assert "There is no weights file" in refused(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: b"",
        lambda data: data.replace(b"[2,3]", b"[2,4]"),
        lambda data: data.replace(b'"F32"', b'"F8 "'),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((2, 3), np.float32)}, path)
    path.write_bytes(damage(path.read_bytes()))
    assert "is no readable .safetensors file" in refused(path)


def write_keras_h5(path, model):
    """Weights as Keras' published files hold them: groups of layers, in their order."""
    with h5py.File(path, "w") as file:
        own = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in own]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.4.0"
        for layer in own:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


@pytest.fixture
def published(tiny, tmp_path, monkeypatch):
    """Publishes ImageNet weights of `tiny` as Keras does; its directory is empty."""
    path = tmp_path / "published" / "tiny_notop.h5"
    path.parent.mkdir()
    build = models.ARCHITECTURES[tiny].builder

    def backbone(images, weights=None):
        model = keras.Model(keras.utils.get_source_inputs(images), build(images))
        if weights:
            file = keras.utils.get_file(
                origin=path.as_uri(), file_hash=digest, cache_subdir="models"
            )
            model.load_weights(file)
        return model.output

    images = keras.Input((32, 32, 3))
    source = keras.Model(images, backbone(images))
    write_keras_h5(path, source)
    digest = sha256_file(path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()
    entry = models.Architecture("Tiny", backbone, preprocessing=models.CAFFE)
    monkeypatch.setitem(models.ARCHITECTURES, tiny, entry)
    return source, path


def test_imagenet_weights_are_downloaded_once(published, tiny):
    source, path = published
    for _ in range(2):
        model, preprocessing = models.build_initial(tiny, 32, "imagenet", 0, 0)
        assert preprocessing == models.CAFFE
        for got, want in zip(
            model.get_weights()[:-2], source.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(got, want)
        # The second time the file is taken from where the first one put it.
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_failed_download_names_file_and_place(published, tiny, tmp_path, damage):
    path = published[1]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"x")
    message = refused("imagenet", tiny)
    assert "The ImageNet weights of tiny could not be fetched: " in message
    assert "tiny_notop.h5" in message or "hash does not match" in message
    assert f"put it into {tmp_path}/keras/models." in message


def test_googlenet_s_imagenet_weights_are_looked_for(parameters, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = refused("imagenet")
    assert "https://download.pytorch.org/models/googlenet-1378be20.pth" in message
    assert f"{tmp_path}/models/googlenet-1378be20.npz" in message
    assert "torch.load('googlenet-1378be20.pth'" in message
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "googlenet-1378be20.safetensors"
    save_file(parameters, path)
    model, preprocessing = models.build_initial("googlenet", 32, "imagenet", 0, 0)
    assert preprocessing == models.SCALED
    np.testing.assert_array_equal(
        model.get_layer("conv3_bn").moving_mean, parameters["conv3.bn.running_mean"]
    )


PUBLISHED_BY_KERAS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name != "efficientnetv2b0"))
    for name, entry in models.ARCHITECTURES.items()
    if not entry.torchvision_url
]


@pytest.mark.parametrize("name", PUBLISHED_BY_KERAS)
def test_imagenet_preprocessing_is_applied_once(name, tmp_path, monkeypatch):
    """Features equal those of Keras' own model behind its own preprocessing."""
    build = getattr(keras.applications, models.ARCHITECTURES[name].options["name"])
    own = build(include_top=False, weights=None, input_shape=(64, 64, 3))
    path = tmp_path / "own.h5"
    write_keras_h5(path, own)
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    prepare = sys.modules[build.__module__].preprocess_input
    want = own(prepare(images.copy())).numpy().mean((1, 2))
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    for weights_from in ("imagenet", str(path)):
        model, preprocessing = models.build_initial(name, 64, weights_from, 0, seed=0)
        assert preprocessing == models.ARCHITECTURES[name].preprocessing
        features = keras.Model(model.input, model.get_layer("pool").output)
        np.testing.assert_allclose(features(images), want, atol=1e-4 * want.max())
