"""Every example exactly once, in an order that (seed, epoch) alone decide."""

import collections
import shutil

import numpy as np
import pytest
import tensorflow as tf

from support.errors import ExitCode, UserError
from trainer import input_pipeline
from trainer.input_pipeline import Augmentation

from .conftest import COUNTS, write_dataset

AUGMENTATION = Augmentation(20, (0.1, 0.1), True)


@pytest.fixture(scope="module")
def dataset(dataset_dir):
    return input_pipeline.open_dataset(dataset_dir)


def train_rows(dataset, epoch=0, seed=0, skip=0, batch_size=8):
    batches = input_pipeline.train_batches(
        dataset, batch_size, seed, epoch, AUGMENTATION, skip
    )
    rows = []
    for batch in batches.as_numpy_iterator():
        for image, row in zip(batch["images"], batch["parameters"], strict=True):
            rows.append((image.tobytes(), row.tobytes()))
    return rows


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_evaluation_sees_every_example_exactly_once(dataset, batch_size):
    batches = input_pipeline.evaluation_batches(dataset, "test", batch_size)
    names, weights = [], []
    for batch in batches.as_numpy_iterator():
        assert batch["images"].shape == (batch_size, 40, 32, 3)
        names.extend(batch["image_id"])
        weights.extend(batch["weights"])
    counted = collections.Counter(
        name.decode() for name, weight in zip(names, weights, strict=True) if weight
    )
    assert counted == {f"test-{i:03d}.jpg": 1 for i in range(COUNTS["test"])}
    assert set(weights) <= {0.0, 1.0}


def test_images_and_labels_belong_together(dataset):
    for batch in input_pipeline.evaluation_batches(dataset, "validation", 4):
        upper = tf.reduce_mean(tf.cast(batch["images"][:, :20], tf.float32), (1, 2, 3))
        np.testing.assert_array_equal(upper > 130, batch["labels"] > 0.5)


def test_an_epoch_holds_every_example_once(dataset):
    rows = train_rows(dataset)
    assert len({image for image, _ in rows}) == COUNTS["train"]


def test_order_and_warp_repeat_and_differ_by_epoch_and_seed(dataset):
    first = train_rows(dataset)
    assert train_rows(dataset) == first
    for other in (train_rows(dataset, epoch=1), train_rows(dataset, seed=1)):
        assert [image for image, _ in other] != [image for image, _ in first]
        assert {row for _, row in other}.isdisjoint({row for _, row in first})


def test_an_example_s_warp_does_not_depend_on_the_batch(dataset):
    assert train_rows(dataset, batch_size=12) == train_rows(dataset)


def test_skip_goes_on_where_a_run_stopped(dataset):
    assert train_rows(dataset, skip=2) == train_rows(dataset)[16:]


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
