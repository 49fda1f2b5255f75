"""TFRecord framing against TensorFlow, plans and reports against what was written."""

import dataclasses

import numpy as np
import pytest

from beam_pipelines.sources.images import FolderSource
from beam_pipelines.writing import shards
from beam_pipelines.writing.shards import ShardPlan, ShardReport
from beam_pipelines.writing.store import Store
from schemas import celeba, example
from support.framing import DamagedRecord, frame, read_records

NAME = "celeba-train.tfrecord-00000-of-00001"


def make_plan(numbers, name=NAME):
    count = len(numbers)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (count, len(celeba.ATTRIBUTES)), np.uint8)
    return ShardPlan(
        name=name,
        names=np.array([f"{number:06d}.jpg" for number in numbers], "S"),
        labels=bits[:, 0],
        identities=np.arange(count, dtype=np.int32) - 1,
        attributes=np.packbits(bits, axis=1),
    )


def write(plan, small_celeba, folder, size=None):
    source = FolderSource(str(small_celeba.folder / celeba.IMAGE_FOLDER))
    return shards.write_shard(plan, shards.Task(source, Store(str(folder)), size, 40))


def test_tensorflow_reads_the_framing(tmp_path):
    tf = pytest.importorskip("tensorflow")
    records = [b"", b"a", bytes(1000), b"\xff" * 70_000]
    ours = b"".join(frame(record) for record in records)
    (tmp_path / "ours").write_bytes(ours)
    read = tf.data.TFRecordDataset(str(tmp_path / "ours"))
    assert [record.numpy() for record in read] == records
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert (tmp_path / "theirs").read_bytes() == ours
    assert list(read_records(ours)) == records


def test_every_flip_and_every_cut_is_found():
    records = [b"one", b"", b"three"]
    data = b"".join(frame(record) for record in records)
    ends = np.cumsum([len(record) + 16 for record in records])
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 4
        with pytest.raises(DamagedRecord) as caught:
            list(read_records(bytes(flipped)))
        assert caught.value.index == np.searchsorted(ends, at, side="right")
        if at in (0, *ends):  # whole records: only the manifest can tell
            continue
        with pytest.raises(DamagedRecord, match="ends inside"):
            list(read_records(data[:at]))


def test_report_describes_the_shard(small_celeba, tmp_path):
    plan = make_plan([3, 1, 2, 99])
    small_celeba.image(2).write_bytes(b"GIF89a")
    report = write(plan, small_celeba, tmp_path)
    data = (tmp_path / NAME).read_bytes()
    found = [example.decode(record) for record in read_records(data)]
    assert [record.image_id for record in found] == ["000003.jpg", "000001.jpg"]
    assert [record.identity for record in found] == [-1, 0]
    assert report.records == 2 and report.bytes == len(data)
    assert report.class_counts == tuple(
        np.bincount([record.label for record in found], minlength=2)
    )
    assert report.image_sizes == {"24x20": 2}
    assert report.rejected == (
        ("000002.jpg", "not a JPEG", "it is a GIF image"),
        ("000099.jpg", "missing", "the file is gone"),
    )
    assert ShardReport.load(Store(str(tmp_path)), NAME) == report


def test_right_shards_are_kept_and_others_written_again(small_celeba, tmp_path):
    plan = make_plan([1, 2, 3])
    report = write(plan, small_celeba, tmp_path)
    path = tmp_path / NAME
    first = path.stat().st_mtime_ns
    assert write(plan, small_celeba, tmp_path) == report
    assert path.stat().st_mtime_ns == first
    good = path.read_bytes()
    for damaged in (good[:-1], good[:50] + b"?" + good[51:]):
        path.write_bytes(damaged)
        assert write(plan, small_celeba, tmp_path) == report
        assert path.read_bytes() == good
    (tmp_path / shards.report_name(NAME)).write_text("{}")
    assert write(plan, small_celeba, tmp_path) == report
    other = dataclasses.replace(plan, labels=1 - plan.labels)
    assert write(other, small_celeba, tmp_path).sha256 != report.sha256


def test_plans_survive_their_file(tmp_path):
    plans = [make_plan([1, 2, 3], "a"), make_plan([], "b"), make_plan([4], "c")]
    shards.save_plans(Store(str(tmp_path)), plans)
    for numbers in ([0, 1, 2], [2], [1]):
        loaded = list(shards.load_plans(Store(str(tmp_path)), numbers))
        expected = [plans[number] for number in numbers]
        assert [plan.name for plan in loaded] == [plan.name for plan in expected]
        assert [plan.digest for plan in loaded] == [plan.digest for plan in expected]


def test_turned_images_are_counted(small_celeba, tmp_path):
    data = small_celeba.image(1).read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03" + bytes(7)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    small_celeba.image(1).write_bytes(data[:2] + segment + data[2:])
    report = write(make_plan([1, 2]), small_celeba, tmp_path)
    assert (report.turned, report.image_sizes) == (1, {"24x20": 2})
