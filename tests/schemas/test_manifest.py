"""The manifest survives the way to JSON and back, and notices every edit."""

import dataclasses
import json

import pytest

from schemas.dataset import About
from schemas.manifest import Manifest, ManifestError, Shard


def shard(name="celeba-train.tfrecord-00000-of-00001", split="train", counts=(3, 5)):
    return Shard(name, split, sum(counts), 100, "ab" * 32, counts)


MANIFEST = Manifest(
    dataset=About("shapes", "Shapes", "Anyone may use them.", "https://example.org"),
    attributes=("Round", "Male"),
    attribute="Male",
    image_shape=(218, 178, 3),
    config={"seed": 0, "split_fractions": [0.64, 0.16, 0.2], "image_size": None},
    class_weights=(0.75, 1.5),
    sources={"images": {"count": 8, "sha256": "cd" * 32}},
    shards=(
        shard(),
        shard("celeba-validation.tfrecord-00000-of-00001", "validation", (1, 1)),
        shard("celeba-test.tfrecord-00000-of-00001", "test", (2, 0)),
    ),
)


def test_json_both_ways():
    again = Manifest.from_json(MANIFEST.to_json())
    assert again == MANIFEST
    assert again.digest == MANIFEST.digest
    assert again.to_json() == MANIFEST.to_json()


def test_counts_per_split():
    assert MANIFEST.num_examples("train") == 8
    assert MANIFEST.class_counts("test") == (2, 0)
    assert [each.name for each in MANIFEST.split("validation")] == [
        "celeba-validation.tfrecord-00000-of-00001"
    ]


def test_digest_does_not_depend_on_the_order_of_keys():
    turned = dict(reversed(MANIFEST.config.items()))
    assert dataclasses.replace(MANIFEST, config=turned).digest == MANIFEST.digest


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path


@pytest.mark.parametrize("path", list(_leaves(json.loads(MANIFEST.to_json()))), ids=str)
def test_every_edit_is_noticed(path):
    document = json.loads(MANIFEST.to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    place[path[-1]] = old + 1 if isinstance(old, int | float) else f"{old}x"
    with pytest.raises(ManifestError):
        Manifest.from_json(json.dumps(document))


def test_lost_and_added_parts_are_noticed():
    for change in (
        lambda document: document["shards"].pop(),
        lambda document: document["shards"].append(document["shards"][0]),
        lambda document: document.pop("config"),
        lambda document: document["shards"][0].pop("sha256"),
        lambda document: document["shards"][0].update(extra=1),
        lambda document: document.update(shards=[1]),
        lambda document: document.update(shards=None),
        lambda document: document.update(extra=1),
    ):
        document = json.loads(MANIFEST.to_json())
        change(document)
        with pytest.raises(ManifestError):
            Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "JSON"),
        (MANIFEST.to_json()[:-20], "JSON"),
        ("[]", "not a manifest"),
        ('{"format": "other"}', "not a manifest"),
        (MANIFEST.to_json().replace('"version": 2', '"version": 1'), "version 1"),
    ],
)
def test_other_files_are_refused(text, words):
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json(text)


def test_impossible_manifests_cannot_be_made():
    for shards in ((shard(), shard()), (shard(split="training"),)):
        with pytest.raises(ManifestError):
            dataclasses.replace(MANIFEST, shards=shards)


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "a\\b"])
def test_shards_lie_in_the_folder(name):
    with pytest.raises(ManifestError, match="plain file name"):
        shard(name)


def test_class_counts_add_up():
    with pytest.raises(ManifestError, match="add up"):
        dataclasses.replace(shard(), records=9)
