"""Byte-identical images under two names are never in two splits."""

import collections
import csv
import hashlib

import numpy as np
import pytest

from schemas import example
from support.errors import ExitCode
from support.framing import read_records
from tests.beam_pipelines.conftest import jpeg


def _splits_of_images(builder) -> dict[str, set[str]]:
    """The splits that contain each image, by the digest of its bytes."""
    splits = collections.defaultdict(set)
    for shard in builder.manifest.shards:
        for record in read_records((builder.output / shard.name).read_bytes()):
            image = example.decode(record).image
            splits[hashlib.sha256(image).hexdigest()].add(shard.split)
    return splits


def _excluded(builder) -> list[dict[str, str]]:
    with (builder.output / "rejected.csv").open() as file:
        return list(csv.DictReader(file))


def _copy(small, source: int, target: int) -> None:
    small.image(target).write_bytes(small.image(source).read_bytes())


def test_smallest_name_stays(small_celeba, builder, capsys):
    """Official: 1 to 36 are train, 37 to 48 validation, 49 to 60 test."""
    for source, target in ((2, 50), (2, 40), (41, 3), (5, 6)):
        _copy(small_celeba, source, target)
    flags = ("--split=official", "--balance=none", "--max_bad_fraction=0")
    assert builder(*flags) == ExitCode.OK
    assert _excluded(builder) == [
        {"name": name, "reason": "duplicate", "detail": f"duplicate of {detail}"}
        for name, detail in (
            ("000040.jpg", "000002.jpg, which is in train"),
            ("000041.jpg", "000003.jpg, which is in train"),
            ("000050.jpg", "000002.jpg, which is in train"),
        )
    ]
    out = capsys.readouterr().out
    assert "excluding 3 images: duplicate 3" in out
    assert "3 images excluded: duplicate 3" in out
    assert sum(shard.records for shard in builder.manifest.shards) == 57


@pytest.mark.parametrize("split", ["identity", "random"])
def test_replacements_are_no_duplicates(small_celeba, builder, split):
    """Most images are copies, and the numbers must still be reached."""
    rng = np.random.default_rng(0)
    for number, source in enumerate(rng.integers(0, 1000, 60), 1):
        small_celeba.image(number).write_bytes(jpeg(source % 45))
    flags = (f"--split={split}", "--num_examples=24", "--num_shards=2")
    assert builder(*flags) == ExitCode.OK
    splits = _splits_of_images(builder)
    assert all(len(names) == 1 for names in splits.values())
    counts = np.array([shard.class_counts for shard in builder.manifest.shards])
    assert counts.sum(0).tolist() == [12, 12]
    assert {row["reason"] for row in _excluded(builder)} == {"duplicate"}
    manifest = builder.manifest
    assert builder(*flags, "--overwrite", "--direct_num_workers=2") == ExitCode.OK
    assert builder.manifest == manifest


def test_keep_duplicates(small_celeba, builder, capsys):
    _copy(small_celeba, 2, 50)
    flags = ("--split=official", "--balance=none", "--keep_duplicates")
    assert builder(*flags) == ExitCode.OK
    assert not _excluded(builder)
    assert {"train", "test"} in _splits_of_images(builder).values()
    assert "1 images are in another split" in capsys.readouterr().out
    assert builder.manifest.config["keep_duplicates"] is True
    assert "under\nanother name" in (builder.output / "report.html").read_text()


def test_duplicates_of_unusable_images(small_celeba, builder):
    """An image that is rejected for another reason does not keep its copy out."""
    small_celeba.image(2).write_bytes(small_celeba.image(50).read_bytes()[:200])
    _copy(small_celeba, 4, 51)
    flags = ("--split=official", "--balance=none", "--max_bad_fraction=0.1")
    assert builder(*flags) == ExitCode.OK
    reasons = {row["name"]: row["reason"] for row in _excluded(builder)}
    assert reasons == {"000002.jpg": "truncated", "000051.jpg": "duplicate"}
