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


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda document: document["shards"].pop(), "digest differs"),
        (lambda document: document.pop("config"), "config: "),
        (lambda document: document.pop("digest"), "digest differs"),
        (lambda document: document.update(extra=1), "extra: "),
        (lambda document: document.update(shards=[1]), r"shards\.0: "),
        (lambda document: document.update(shards=None), "shards: "),
        (lambda document: document.update(version=1), "is of version 1; "),
        (lambda document: document.update(image_shape=[8, 8, 4]), r"shape\.2: "),
        (lambda document: document.update(attribute="Large"), "'Large' is not one"),
        (lambda document: document["dataset"].update(name=""), r"dataset\.name: "),
        (lambda document: document["dataset"].update(extra=1), r"dataset\.extra: "),
        (lambda document: document["shards"].append(document["shards"][0]), "twice"),
        (lambda document: document["attributes"].append("Male"), "listed twice"),
    ],
)
def test_lost_and_added_parts_are_named(change, words):
    document = json.loads(MANIFEST.to_json())
    change(document)
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "key, value, words",
    [
        *(("name", name, "name") for name in ("../a", "/a", "a/b", "a\\b", "", "..")),
        ("split", "training", "'train', 'validation' or 'test'"),
        ("records", 9, "do not add up to 9"),
        ("records", True, "records"),
        ("bytes", -1, "bytes"),
        ("sha256", "ab", "sha256"),
        ("class_counts", [3, 5, 0], "class_counts"),
        ("extra", 1, "extra"),
    ],
)
def test_impossible_shards_are_named(key, value, words):
    document = json.loads(MANIFEST.to_json())
    document["shards"][0][key] = value
    with pytest.raises(ManifestError, match=rf"shards\.0.*{words}"):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "JSON"),
        (MANIFEST.to_json()[:-20], "JSON"),
        ("[]", "should be an object"),
        ('{"a":' * 300, "JSON"),
        ('{"format": "other"}', "not a manifest"),
    ],
)
def test_other_files_are_refused(text, words):
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json(text)
