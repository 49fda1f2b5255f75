"""Every example exactly once, in an order that (seed, epoch) alone decide."""

import collections
import dataclasses
import errno
import hashlib
import io
import itertools
import os
import resource
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from schemas import example as example_schema
from support import documents, files, framing, images
from support.errors import ExitCode, UserError
from tests.trainer.conftest import COUNTS, HEIGHT, WIDTH, write_dataset
from trainer.augmentation import Warp
from trainer.data import dataset as dataset_module
from trainer.data import (
    evaluation_dataset,
    input_pipeline,
    open_dataset,
    train_dataset,
)

STEPS = COUNTS["train"] // 8


@pytest.fixture(scope="module")
def dataset(dataset_dir):
    return open_dataset(dataset_dir)


def train_rows(dataset, batch_size=8, **options):
    """All that a batch says of each example, as bytes: the image comes first."""
    batches = train_dataset(dataset, batch_size, as_supervised=False, **options)
    rows = []
    for batch in batches:
        values = [batch[key].numpy() for key in ("images", "labels", "attributes")]
        rows += zip(
            *([row.tobytes() for row in value] for value in values), strict=True
        )
    return rows


def epochs_of(rows):
    return [rows[start : start + 48] for start in range(0, len(rows), 48)]


def evaluation_values(dataset, split, batch_size, **options):
    batches = evaluation_dataset(
        dataset, split, batch_size, as_supervised=False, **options
    )
    batches = list(batches)
    return {
        key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
    }


def records_of(dataset, split):
    for shard in dataset.manifest.split(split):
        for record in framing.read_records(dataset.path(shard).read_bytes()):
            yield example_schema.decode(record)


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_evaluation_sees_every_example_exactly_once(dataset, batch_size):
    batches = evaluation_dataset(dataset, "test", batch_size, as_supervised=False)
    names, weights = [], []
    for batch in batches:
        assert batch["images"].shape == (batch_size, HEIGHT, WIDTH, 3)
        names.extend(batch["image_id"].numpy())
        weights.extend(batch["weights"].numpy())
    counted = collections.Counter(
        name.decode() for name, weight in zip(names, weights, strict=True) if weight
    )
    assert counted == {f"test-{i:03d}.jpg": 1 for i in range(COUNTS["test"])}
    assert set(weights) <= {0.0, 1.0}


def test_images_and_labels_belong_together(dataset_dir):
    pairs = itertools.chain(
        evaluation_dataset(dataset_dir, "validation", 4), train_dataset(dataset_dir, 4)
    )
    for pixels, labels in pairs:
        upper = tf.reduce_mean(tf.cast(pixels[:, :20], tf.float32), (1, 2, 3))
        np.testing.assert_array_equal(upper > 130, labels > 0.5)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_padding_has_zero_weight(dataset, batch_size):
    weights = evaluation_values(dataset, "validation", batch_size)["weights"]
    assert weights.sum() == COUNTS["validation"]
    assert weights[: COUNTS["validation"]].all()


def test_supervised_evaluation_is_not_padded(dataset):
    shapes = [
        (pixels.shape, labels.shape)
        for pixels, labels in evaluation_dataset(dataset, "validation", 8)
    ]
    assert shapes == [((8, 40, 32, 3), (8,)), ((5, 40, 32, 3), (5,))]


def test_batches_equal_records(dataset):
    values = evaluation_values(dataset, "test", 8)
    for number, example in enumerate(records_of(dataset, "test")):
        np.testing.assert_array_equal(
            values["images"][number], images.decode_rgb(example.image)
        )
        assert values["labels"][number] == example.label
        assert values["attributes"][number].tolist() == list(example.attributes)
        assert values["image_id"][number] == example.image_id.encode()
        assert values["identity"][number] == example.identity


def odd_jpegs():
    """Name -> JPEG file: color subsamplings, odd sides, gray, progressive, EXIF."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(47) * 3, np.arange(41) * 2)[..., None]
    pixels = np.uint8((smooth + rng.integers(0, 120, (47, 41, 3))) % 256)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # turned: not the decoder's business
    cases = {
        f"{name}, quality {quality}": {"quality": quality, **options}
        for quality in (1, 50, 75, 100)
        for name, options in {
            "4:4:4": {"subsampling": 0},
            "4:2:2": {"subsampling": 1},
            "4:2:0": {"subsampling": 2},
            "progressive": {"subsampling": 2, "progressive": True},
            "restart markers": {"restart_marker_blocks": 2},
            "EXIF": {"exif": exif},
        }.items()
    }
    written = {name: io.BytesIO() for name in (*cases, "gray", "one pixel")}
    for name, options in cases.items():
        image.save(written[name], "JPEG", **options)
    image.convert("L").save(written["gray"], "JPEG")
    image.crop((0, 0, 1, 1)).save(written["one pixel"], "JPEG")
    return {name: file.getvalue() for name, file in written.items()}


@pytest.mark.parametrize("name", odd_jpegs())
def test_decoder_equals_that_of_prediction(name):
    jpeg = odd_jpegs()[name]
    got = input_pipeline.decode_jpeg(tf.constant(jpeg)).numpy()
    np.testing.assert_array_equal(got, images.decode_rgb(jpeg))
    np.testing.assert_array_equal(got, Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_batch_carries_its_step_and_positions(dataset):
    batches = train_dataset(dataset, 8, epochs=2, start=4, as_supervised=False)
    assert len(batches) == 2 * STEPS - 4
    for number, batch in enumerate(batches, start=4):
        assert batch["step"] == number
        np.testing.assert_array_equal(batch["index"], np.arange(8))


@pytest.mark.parametrize("cache", [False, True])
def test_epoch_has_every_example_once(dataset, cache):
    for rows in epochs_of(train_rows(dataset, epochs=2, cache=cache)):
        assert len({image for image, *_ in rows}) == COUNTS["train"]


@pytest.mark.parametrize("cache", [False, True])
def test_order_depends_on_seed_and_epoch_alone(dataset, cache):
    options = {"epochs": 2, "cache": cache}
    first, second = epochs_of(train_rows(dataset, **options))
    assert [row[0] for row in first] != [row[0] for row in second]
    other = train_rows(dataset, seed=2**32 - 1, **options)
    assert [row[0] for row in other] != [row[0] for row in first + second]
    tf.random.set_seed(7)
    try:
        assert train_rows(dataset, **options) == first + second
    finally:
        tf.random.set_seed(0)
    assert train_rows(dataset, batch_size=12, **options) == first + second


@pytest.mark.parametrize(
    ("cache", "order"),
    [(False, [17, 23, 29, 38, 41, 24, 4]), (True, [35, 47, 10, 28, 34, 0, 9])],
)
def test_order_is_pinned(dataset, cache, order):
    """Runs that are resumed under a later version rely on it."""
    names = [
        images.decode_rgb(example.image).tobytes()
        for example in records_of(dataset, "train")
    ]
    rows = train_rows(dataset, 48, seed=3, epochs=2, start=1, cache=cache)
    assert [names.index(image) for image, *_ in rows[:7]] == order


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("start", [0, 1, STEPS - 1, STEPS, STEPS + 2, 3 * STEPS])
def test_start_resumes_at_a_step(dataset, start, cache):
    options = {"epochs": 3, "cache": cache, "shuffle_buffer": 20}
    rows = train_rows(dataset, start=start, **options)
    assert rows == train_rows(dataset, **options)[8 * start :]


def test_prefetched_onto_a_device_the_batches_are_the_same(dataset):
    batches = train_dataset(dataset, 8, as_supervised=False)
    moved = input_pipeline.prefetch_onto(batches, "CPU:1")
    for got, want in zip(moved, batches, strict=True):
        assert got["images"].device.endswith("CPU:1")
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize("batch_size", [0, 49])
def test_batch_of_impossible_size_is_refused(dataset, batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: expected 1..48"):
        train_dataset(dataset, batch_size)
    if not batch_size:
        with pytest.raises(ValueError, match="batch_size=0: expected 1 or more"):
            evaluation_dataset(dataset, "test", batch_size)


def test_folder_whose_name_is_not_utf8_is_read(dataset_dir, tmp_path):
    folder = shutil.copytree(dataset_dir, tmp_path / os.fsdecode(b"q\xff"))
    batches = evaluation_dataset(folder, "test", 8)
    assert sum(len(labels) for _, labels in batches) == COUNTS["test"]


def test_small_shuffle_buffer_keeps_every_example(tmp_path):
    write_dataset(tmp_path / "data", num_shards=24)
    rows = train_rows(tmp_path / "data", shuffle_buffer=3, epochs=2)
    first, second = epochs_of(rows)
    assert {row[0] for row in first} == {row[0] for row in second}
    assert len({row[0] for row in first}) == COUNTS["train"]
    assert {row[0] for row in first[:12]} != {row[0] for row in second[:12]}


def test_no_graph_is_traced_per_epoch(dataset, monkeypatch):
    decode, traced = input_pipeline.decode_batch, []
    monkeypatch.setattr(
        input_pipeline, "decode_batch", lambda *args: traced.append(1) or decode(*args)
    )
    assert len(train_rows(dataset, epochs=5)) == 5 * COUNTS["train"]
    assert len(traced) == 1


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("cache", [False, True])
def test_cached_images_are_decoded_once(dataset, monkeypatch, split, cache):
    decode, decoded = input_pipeline.decode_jpeg, collections.Counter()

    def count(jpeg):
        decoded.update([bytes(jpeg)])
        return np.int64(0)

    def counted(jpeg):
        with tf.control_dependencies([tf.numpy_function(count, [jpeg], tf.int64)]):
            return decode(tf.identity(jpeg))

    monkeypatch.setattr(input_pipeline, "decode_jpeg", counted)
    if split == "train":
        rows = train_rows(dataset, epochs=2, cache=cache)
        assert len(rows) == 2 * COUNTS["train"]
    else:
        batches = evaluation_dataset(dataset, split, 13, cache)
        for _ in range(2):
            assert len(list(batches)) == 1
    jpegs = [example.image for example in records_of(dataset, split)]
    assert decoded == dict.fromkeys(jpegs, 1 if cache else 2)


def test_cached_evaluation_equals_streamed(dataset):
    batches = evaluation_dataset(dataset, "test", 8, cache=True, as_supervised=False)
    first, second = list(batches), list(batches)
    streamed = evaluation_dataset(dataset, "test", 8, as_supervised=False)
    for rows in zip(first, second, streamed, strict=True):
        for key in rows[0]:
            np.testing.assert_array_equal(rows[1][key], rows[0][key])
            np.testing.assert_array_equal(rows[2][key], rows[0][key])


@pytest.mark.parametrize(
    ("number", "fit"),
    [
        (0, ()),
        (12, ()),
        (47, ()),  # the validation images would fit
        (48, ("train",)),
        (60, ("train",)),
        (61, ("train", "validation")),
    ],
)
def test_splits_that_fit_into_memory(dataset, number, fit, monkeypatch):
    free = dataset_module._CACHE_FRACTION * number * HEIGHT * WIDTH * 3
    monkeypatch.setattr(dataset_module, "available_memory", lambda: free)
    assert dataset_module.splits_that_fit(dataset.manifest, -1) == fit


def test_cache_budget_is_in_megabytes(dataset):
    assert dataset_module.splits_that_fit(dataset.manifest, 0) == ()
    everything = ("train", "validation")
    assert dataset_module.splits_that_fit(dataset.manifest, 1) == everything


def test_read_images_finds_the_files(dataset):
    found = input_pipeline.read_images(dataset, "test", ["test-003.jpg", "no.jpg"])
    assert list(found) == ["test-003.jpg"]
    assert found["test-003.jpg"][:2] == b"\xff\xd8"


# Keras says so of every tf.data.Dataset.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_keras_fits_on_the_dataset_behind_the_layer(dataset_dir):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            Warp(32, rotation=5, horizontal_flip=False),
            keras.layers.Rescaling(1 / 255),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    accuracy = keras.metrics.BinaryAccuracy(threshold=0.0)
    model.compile(keras.optimizers.Adam(0.03), loss, metrics=[accuracy])
    model.fit(train_dataset(dataset_dir, 8, epochs=20), verbose=0)
    test = evaluation_dataset(dataset_dir, "test", 8)
    assert model.evaluate(test, verbose=0, return_dict=True)["binary_accuracy"] > 0.9
    assert len(model.predict(test, verbose=0)) == COUNTS["test"]


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position:][1:]


@pytest.mark.parametrize(
    ("file", "change", "code", "words"),
    [
        ("", None, ExitCode.INPUT_DATA, "is not a directory"),
        ("manifest.json", None, ExitCode.INPUT_DATA, "has no manifest.json"),
        (
            *("manifest.json", lambda data: b'{"name": "other"}'),
            *(ExitCode.INTEGRITY, "not a manifest"),
        ),
        (
            *("manifest.json", lambda data: data[: len(data) // 2]),
            *(ExitCode.INTEGRITY, "not complete JSON"),
        ),
        ("celeba-train*0-of*", None, ExitCode.INTEGRITY, "is missing"),
        (
            *("celeba-test*0-of*", lambda data: data[:-100]),
            *(ExitCode.INTEGRITY, "bytes, not"),
        ),
        (
            *("celeba-validation*0-of*", lambda data: _flipped(data, 200)),
            *(ExitCode.INTEGRITY, "sha256 differs"),
        ),
    ],
)
def test_incomplete_dataset_is_refused(tmp_path, file, change, code, words):
    folder = tmp_path / "data"
    write_dataset(folder)
    (path,) = folder.glob(file) if file else [folder]
    if change:
        path.write_bytes(change(path.read_bytes()))
    else:
        shutil.move(path, tmp_path / "away")
    with pytest.raises(UserError, match=words) as raised:
        open_dataset(folder)
    assert raised.value.exit_code == code


def test_empty_split_is_refused(tmp_path):
    write_dataset(tmp_path / "data", {"train": 8, "test": 4})
    with pytest.raises(UserError, match="no validation examples"):
        open_dataset(tmp_path / "data")
    with pytest.raises(UserError, match="no validation examples"):
        evaluation_dataset(tmp_path / "data", "validation", 4)
    assert len(list(train_dataset(tmp_path / "data", 4))) == 2


def _with_records(change):
    """The change of a shard's bytes that a change of its records is."""

    def changed(data):
        records = change(list(framing.read_records(data)))
        return b"".join(framing.frame(record) for record in records)

    return changed


def _with_last_jpeg_cut(records):
    """The checksums are right."""
    *others, last = records
    example = example_schema.decode(last)
    broken = dataclasses.replace(example, image=example.image[:200])
    return [*others, example_schema.encode(broken)]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: _flipped(data, len(data) - 10), "sha256 differs"),
        (lambda data: data[:-30], "bytes, not"),
        (_with_records(lambda records: records[:-1]), "bytes, not"),
        (_with_records(lambda records: [*records, records[0]]), "bytes, not"),
        (_with_records(_with_last_jpeg_cut), "bytes, not"),
        (None, "is missing"),
    ],
)
def test_damage_after_opening_names_the_shard(tmp_path, split, change, words):
    write_dataset(tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    path = tmp_path / "data" / f"celeba-{split}.tfrecord-00001-of-00002"
    data = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(data))
    batches = (
        train_dataset(dataset, 8, epochs=2)
        if split == "train"
        else evaluation_dataset(dataset, split, 8)
    )
    with pytest.raises(UserError, match=words) as raised:
        list(dataset.iterate(split, batches))
    assert raised.value.exit_code == ExitCode.INTEGRITY
    assert str(path) in raised.value.cause


def test_few_shards_are_open_at_once(tmp_path):
    write_dataset(tmp_path / "data", num_shards=40)
    dataset = open_dataset(tmp_path / "data")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 24, hard))
    try:
        dataset.check()
        assert len(train_rows(dataset)) == COUNTS["train"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["PermissionDenied", "ResourceExhausted"])
def test_shard_that_the_system_refuses_is_not_damaged(dataset, kind):
    def batches():
        error = getattr(tf.errors, f"{kind}Error")
        raise error(None, None, "/data/shard-3; Too many open files\n[[node]]")
        yield

    with pytest.raises(UserError, match="shard-3; Too many open files[.]") as raised:
        list(dataset.iterate("train", batches()))
    assert raised.value.exit_code == ExitCode.INPUT_DATA


@pytest.mark.parametrize("name", ["manifest.json", "celeba-test.tfrecord-00001-of"])
def test_unreadable_file_is_named_with_the_reason(dataset_dir, monkeypatch, name):
    def refuse(path, *arguments, **options):
        if name in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(documents, "open", refuse, raising=False)
    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(UserError, match=f"{name}.* cannot be read: Perm") as raised:
        open_dataset(dataset_dir)
    assert raised.value.exit_code == ExitCode.INPUT_DATA


def test_undecodable_image_of_an_undamaged_shard_is_named(tmp_path):
    """The manifest agrees: the dataset was written so."""
    manifest = write_dataset(tmp_path / "data")
    path = tmp_path / "data" / manifest.split("test")[1].name
    data = _with_records(_with_last_jpeg_cut)(path.read_bytes())
    path.write_bytes(data)
    shards = [
        dataclasses.replace(
            shard, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )
        if shard.name == path.name
        else shard
        for shard in manifest.shards
    ]
    manifest = dataclasses.replace(manifest, shards=tuple(shards))
    (tmp_path / "data" / "manifest.json").write_text(manifest.to_json())
    dataset = open_dataset(tmp_path / "data")
    with pytest.raises(UserError, match="test split cannot be read") as raised:
        list(dataset.iterate("test", evaluation_dataset(dataset, "test", 8)))
    assert raised.value.exit_code == ExitCode.INTEGRITY
