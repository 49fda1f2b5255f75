"""Every example exactly once, in an order that (seed, epoch) alone decide."""

import collections
import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from schemas import example as example_schema
from support import framing, images
from support.errors import ExitCode, UserError
from trainer import input_pipeline
from trainer.buffers import Buffers
from trainer.dataset import cache_budget
from trainer.input_pipeline import Augmentation

from .conftest import COUNTS, HEIGHT, WIDTH, write_dataset

AUGMENTATION = Augmentation(20, (0.1, 0.1), True)


@pytest.fixture(scope="module")
def dataset(dataset_dir):
    return input_pipeline.open_dataset(dataset_dir)


def train_rows(dataset, epoch=0, seed=0, skip=0, batch_size=8):
    """All that a batch says of each example, as bytes: the image comes first."""
    batches = input_pipeline.train_batches(
        dataset, batch_size, seed, epoch, AUGMENTATION, skip
    )
    keys = ("images", "parameters", "labels", "attributes")
    rows = []
    for batch in batches:
        values = [batch[key].numpy() for key in keys]
        rows += zip(
            *([row.tobytes() for row in value] for value in values), strict=True
        )
    return rows


def pixels_of(examples, number):
    return images.decode_rgb(examples.read(number).image).tobytes()


def evaluation_values(dataset, split, batch_size):
    batches = list(input_pipeline.evaluation_batches(dataset, split, batch_size))
    return {
        key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
    }


def in_windows(folder, monkeypatch):
    """The dataset, cut into so many shards that an epoch has several windows."""
    write_dataset(folder, num_shards=8)
    dataset = input_pipeline.open_dataset(folder)
    size = dataset.manifest.shards[0].bytes
    monkeypatch.setattr(input_pipeline, "WINDOW_BYTES", int(2.5 * size))
    return dataset


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_evaluation_sees_every_example_exactly_once(dataset, batch_size):
    batches = input_pipeline.evaluation_batches(dataset, "test", batch_size)
    names, weights = [], []
    for batch in batches:
        assert batch["images"].shape == (batch_size, 40, 32, 3)
        names.extend(batch["image_id"].numpy())
        weights.extend(batch["weights"].numpy())
    counted = collections.Counter(
        name.decode() for name, weight in zip(names, weights, strict=True) if weight
    )
    assert counted == {f"test-{i:03d}.jpg": 1 for i in range(COUNTS["test"])}
    assert set(weights) <= {0.0, 1.0}


def test_images_and_labels_belong_together(dataset):
    for batch in input_pipeline.evaluation_batches(dataset, "validation", 4):
        upper = tf.reduce_mean(tf.cast(batch["images"][:, :20], tf.float32), (1, 2, 3))
        np.testing.assert_array_equal(upper > 130, batch["labels"] > 0.5)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_what_fills_up_the_last_batch_has_no_weight(dataset, batch_size):
    values = evaluation_values(dataset, "validation", batch_size)
    weights = values["weights"]
    assert weights.sum() == COUNTS["validation"]
    assert weights[: COUNTS["validation"]].all()
    first = values["images"][: len(weights) - COUNTS["validation"]][:5]
    np.testing.assert_array_equal(values["images"][COUNTS["validation"] :][:5], first)


def test_batches_are_what_the_records_hold(dataset):
    examples = dataset.split("test")
    values = evaluation_values(dataset, "test", 8)
    for number in range(len(examples)):
        example = examples.read(number)
        pixels = tf.io.decode_jpeg(
            example.image, channels=3, dct_method="INTEGER_ACCURATE"
        )
        np.testing.assert_array_equal(values["images"][number], pixels)
        assert values["labels"][number] == example.label
        assert values["attributes"][number].tolist() == list(example.attributes)
        assert values["image_id"][number] == example.image_id.encode()
        assert values["identity"][number] == example.identity


def test_an_epoch_holds_every_example_once(dataset):
    rows = train_rows(dataset)
    assert len({image for image, *_ in rows}) == COUNTS["train"]


def test_order_and_warp_repeat_and_differ_by_epoch_and_seed(dataset):
    first = train_rows(dataset)
    assert train_rows(dataset) == first
    for other in (train_rows(dataset, epoch=1), train_rows(dataset, seed=1)):
        assert [row[0] for row in other] != [row[0] for row in first]
        assert {row[1] for row in other}.isdisjoint({row[1] for row in first})


def test_an_example_s_warp_does_not_depend_on_the_batch(dataset):
    assert train_rows(dataset, batch_size=12) == train_rows(dataset)


def test_the_order_is_pinned(dataset):
    """Runs that go on under a later version rely on it."""
    batch = next(input_pipeline.train_batches(dataset, 48, 3, 1, AUGMENTATION))
    examples = dataset.split("train")
    numbers = {pixels_of(examples, number): number for number in range(48)}
    order = [numbers[image.tobytes()] for image in batch["images"].numpy()]
    assert order[:7] == [19, 23, 31, 24, 41, 29, 27]


@pytest.mark.parametrize("skip", range(7))
def test_skip_goes_on_where_a_run_stopped(dataset, skip):
    assert train_rows(dataset, skip=skip) == train_rows(dataset)[8 * skip :]


def test_windows_hold_every_example_once_and_differ_by_epoch(tmp_path, monkeypatch):
    dataset = in_windows(tmp_path / "data", monkeypatch)
    rng = np.random.default_rng(0)
    windows = input_pipeline.shuffle_windows(dataset.split("train").shards, rng)
    assert sorted(sum(windows, [])) == list(range(8))
    assert [len(window) for window in windows] == [2, 2, 2, 2]
    first, second = train_rows(dataset), train_rows(dataset, epoch=1)
    assert len({row[0] for row in first}) == COUNTS["train"]
    assert {row[0] for row in first[:12]} != {row[0] for row in second[:12]}
    for skip in (1, 3, 5):
        assert train_rows(dataset, skip=skip) == first[8 * skip :]


def test_cached_batches_are_those_that_are_read(dataset_dir, dataset, monkeypatch):
    cached = input_pipeline.open_dataset(dataset_dir, 10**9)
    assert cached.cached == ("train", "validation")
    train = cached.split("train")
    jpegs = [train.read(number).image for number in range(COUNTS["train"])]
    expected = [train_rows(dataset, epoch) for epoch in range(2)]
    decode, decoded = images.decode_rgb, collections.Counter()
    monkeypatch.setattr(
        images,
        "decode_rgb",
        lambda jpeg, out: decoded.update([bytes(jpeg)]) or decode(jpeg, out),
    )
    for epoch in range(2):  # the first one decodes
        assert train_rows(cached, epoch) == expected[epoch]
        assert train_rows(cached, epoch, skip=2) == expected[epoch][16:]
    assert decoded == dict.fromkeys(jpegs, 1)
    for split in ("validation", "test"):
        ours = evaluation_values(cached, split, 8)
        for key, value in evaluation_values(dataset, split, 8).items():
            np.testing.assert_array_equal(ours[key], value)


def test_a_record_that_is_read_again_gives_the_same(dataset):
    split = dataset.split("train")
    pixels = np.empty((2, *split.image_shape), np.uint8)
    first, second = (split.load(5, out) for out in pixels)
    assert second is first
    assert first == dataclasses.replace(split.read(5), image=b"")
    np.testing.assert_array_equal(*pixels)


def test_memory_comes_back_when_the_last_array_in_it_is_gone():
    buffers = Buffers()
    pixels = buffers.take((4, 5, 3))
    assert pixels.shape == (4, 5, 3) and pixels.ctypes.data % 64 == 0
    place, row = pixels.ctypes.data, pixels[1]
    tensor = tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())
    del pixels
    assert buffers.take((4, 5, 3)).ctypes.data != place
    del row
    assert buffers.take((4, 5, 3)).ctypes.data != place
    del tensor
    assert buffers.take((3, 20)).ctypes.data == place
    assert buffers.take((7, 7)).ctypes.data != place


@pytest.mark.parametrize(
    ("number", "cached"),
    [
        (0, ()),
        (12, ()),
        (13, ("validation",)),
        (48, ("train",)),
        (60, ("train",)),
        (61, ("train", "validation")),
    ],
)
def test_what_fits_is_decided_before_anything_is_read(dataset_dir, number, cached):
    budget = number * HEIGHT * WIDTH * 3
    assert input_pipeline.open_dataset(dataset_dir, budget).cached == cached


def test_budgets_are_megabytes_or_a_quarter_of_what_is_free():
    assert cache_budget(0) == 0
    assert cache_budget(3) == 3_000_000
    assert 0 < cache_budget(-1) < 2**50


def test_batches_that_nobody_takes_are_let_go(dataset):
    batches = input_pipeline.train_batches(dataset, 8, 0, 0, AUGMENTATION)
    next(batches)
    batches.close()
    assert list(batches) == []


def test_read_images_finds_the_files(dataset):
    found = input_pipeline.read_images(dataset, "test", ["test-003.jpg", "no.jpg"])
    assert list(found) == ["test-003.jpg"]
    assert found["test-003.jpg"][:2] == b"\xff\xd8"


def _missing(folder):
    shutil.rmtree(folder)


def _unfinished(folder):
    (folder / "manifest.json").unlink()


def _foreign(folder):
    (folder / "manifest.json").write_text('{"name": "other"}')


def _cut(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def _shard_missing(folder):
    next(folder.glob("celeba-train*")).unlink()


def _shard_cut(folder):
    path = next(folder.glob("celeba-test*"))
    path.write_bytes(path.read_bytes()[:-100])


def _shard_flipped(folder):
    path = next(folder.glob("celeba-validation*"))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (_missing, ExitCode.INPUT_DATA, "is not a folder"),
        (_unfinished, ExitCode.INPUT_DATA, "has no manifest.json"),
        (_foreign, ExitCode.INTEGRITY, "not a manifest"),
        (_cut, ExitCode.INTEGRITY, "not complete JSON"),
        (_shard_missing, ExitCode.INTEGRITY, "is missing"),
        (_shard_cut, ExitCode.INTEGRITY, "bytes, not"),
        (_shard_flipped, ExitCode.INTEGRITY, "sha256 differs"),
    ],
)
def test_what_is_no_whole_dataset_is_refused(tmp_path, damage, code, words):
    write_dataset(tmp_path / "data")
    damage(tmp_path / "data")
    with pytest.raises(UserError, match=words) as raised:
        input_pipeline.open_dataset(tmp_path / "data")
    assert raised.value.exit_code == code


def test_an_empty_split_is_refused(tmp_path):
    write_dataset(tmp_path / "data", {"train": 8, "test": 4})
    with pytest.raises(UserError, match="no validation examples"):
        input_pipeline.open_dataset(tmp_path / "data")


def _record_flipped(path):
    """One bit of the last record: its checksum tells."""
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(bytes(data))


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-30])


def _jpeg_replaced(path):
    """A record with right checksums whose JPEG is damaged."""
    records = list(framing.read_records(path.read_bytes()))
    example = example_schema.decode(records[-1])
    broken = dataclasses.replace(
        example, image=example.image[:-200] + bytes(198) + b"\xff\xd9"
    )
    records[-1] = example_schema.encode(broken)
    path.write_bytes(b"".join(framing.frame(record) for record in records))


@pytest.mark.parametrize(
    ("damage", "epochs_before", "words"),
    [
        (_record_flipped, 0, "record 23: its checksum differs"),
        (_record_flipped, 1, "record 23: its checksum differs"),
        (_cut_short, 0, "record 23: the file ends inside it"),
        (_cut_short, 1, "record 23: the file ends inside it"),
        (_jpeg_replaced, 0, r"record 23 \(train-047.jpg\): "),
    ],
)
def test_damage_after_opening_names_shard_and_record(
    tmp_path, damage, epochs_before, words
):
    write_dataset(tmp_path / "data")
    dataset = input_pipeline.open_dataset(tmp_path / "data")
    assert len(dataset.split("train")) == COUNTS["train"]
    for epoch in range(epochs_before):
        train_rows(dataset, epoch)
    path = tmp_path / "data" / "celeba-train.tfrecord-00001-of-00002"
    damage(path)
    with pytest.raises(UserError, match=words) as raised:
        train_rows(dataset)
    assert raised.value.exit_code == ExitCode.INTEGRITY
    assert str(path) in raised.value.cause


def test_another_file_in_place_of_a_shard_is_noticed(tmp_path):
    write_dataset(tmp_path / "data")
    dataset = input_pipeline.open_dataset(tmp_path / "data")
    first, second = sorted((tmp_path / "data").glob("celeba-test*"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match="10 records, not 11") as raised:
        dataset.split("test")
    assert raised.value.exit_code == ExitCode.INTEGRITY
