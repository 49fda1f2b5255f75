"""The record: our bytes are what TensorFlow reads and writes; nothing else passes."""

import dataclasses

import pytest

from schemas import celeba, example
from schemas.example import DecodeError, Example

tf = pytest.importorskip("tensorflow")

EXAMPLE = Example(
    image=b"\xff\xd8" + bytes(range(256)) * 40,
    label=1,
    image_id="000001.jpg",
    identity=2880,
    attributes=bytes([0, 1] * 20),
)
VARIANTS = [
    EXAMPLE,
    dataclasses.replace(EXAMPLE, label=0, identity=0),
    dataclasses.replace(EXAMPLE, identity=-1),
    dataclasses.replace(EXAMPLE, identity=2**31 - 1, image_id="ü.jpg"),
    dataclasses.replace(EXAMPLE, image=b"", image_id=""),
    dataclasses.replace(EXAMPLE, image=bytes(127)),
    dataclasses.replace(EXAMPLE, image=bytes(128)),
    dataclasses.replace(EXAMPLE, image=bytes(70_000)),
]


def as_message(**changes):
    """The same example as TensorFlow's own message, with features replaced."""
    features = {
        "image": _bytes(EXAMPLE.image),
        "label": _ints(EXAMPLE.label),
        "image_id": _bytes(EXAMPLE.image_id.encode()),
        "identity": _ints(EXAMPLE.identity),
        "attributes": _ints(*EXAMPLE.attributes),
    } | changes
    features = {key: value for key, value in features.items() if value is not None}
    return tf.train.Example(features=tf.train.Features(feature=features))


def _bytes(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


@pytest.mark.parametrize("variant", VARIANTS)
def test_tensorflow_and_decode_read_what_encode_writes(variant):
    record = example.encode(variant)
    assert example.decode(record) == variant
    message = tf.train.Example.FromString(record)
    features = message.features.feature
    assert sorted(features) == sorted(feature.key for feature in example.FEATURES)
    for feature in example.FEATURES:
        kind = features[feature.key].WhichOneof("kind")
        assert kind == f"{feature.kind}_list"
        count = len(getattr(features[feature.key], kind).value)
        assert count == (feature.length or len(variant.attributes))
    assert features["image"].bytes_list.value[0] == variant.image
    assert features["label"].int64_list.value[0] == variant.label
    assert features["image_id"].bytes_list.value[0].decode() == variant.image_id
    assert features["identity"].int64_list.value[0] == variant.identity
    assert bytes(features["attributes"].int64_list.value) == variant.attributes


def test_parse_gives_the_documented_shapes():
    records = tf.constant([example.encode(each) for each in VARIANTS])
    parsed = example.parse(records, attributes=40)
    assert {key: tuple(value.shape) for key, value in parsed.items()} == {
        "image": (8,),
        "label": (8,),
        "image_id": (8,),
        "identity": (8,),
        "attributes": (8, 40),
    }
    assert parsed["identity"].numpy()[2] == -1
    assert parsed["label"].dtype == tf.int64


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"label": None}, "'label' is missing"),
        ({"extra": _ints(1)}, "not exactly"),
        ({"label": _bytes(b"1")}, "not exactly"),
        ({"image": _ints(1)}, "not exactly"),
        ({"label": _ints(1, 0)}, "not exactly"),
        ({"label": _ints()}, "not a serialized"),
        ({"attributes": _ints()}, "not a serialized"),
        ({"attributes": _ints(*[2] * 40)}, "expected bytes 0 or 1"),
        ({"image_id": _bytes(b"\xff")}, "not a serialized"),
    ],
)
def test_other_features_are_refused(changes, words):
    with pytest.raises(DecodeError, match=words):
        example.decode(as_message(**changes).SerializeToString())


def test_no_cut_record_decodes():
    record = example.encode(dataclasses.replace(EXAMPLE, image=b"1234"))
    for length in range(len(record)):
        with pytest.raises(DecodeError):
            example.decode(record[:length])


@pytest.mark.parametrize("identity", [-1, 0, 127, 128, 10_177])
@pytest.mark.parametrize("name", ["", "1.jpg", "x" * 117, "x" * 118, "ü" * 70])
@pytest.mark.parametrize("size", [0, 90, 120, 127, 128, 129, 16_380, 16_384])
def test_lengths_of_one_to_three_bytes_survive(size, name, identity):
    changes = {"image": b"\n" * size, "image_id": name, "identity": identity}
    changed = dataclasses.replace(EXAMPLE, **changes)
    record = example.encode(changed)
    assert example.decode(record) == changed


def test_missing_features_are_errors_in_tensorflow_too():
    with pytest.raises(tf.errors.InvalidArgumentError, match="label"):
        example.parse(tf.constant([as_message(label=None).SerializeToString()]), 40)


@pytest.mark.parametrize("attributes", [b"", bytes([2] * 40)])
def test_wrong_attributes_are_not_written(attributes):
    with pytest.raises(ValueError, match="expected bytes 0 or 1"):
        example.encode(dataclasses.replace(EXAMPLE, attributes=attributes))


def test_the_bytes_are_pinned():
    """Datasets that exist rely on them; `encode` must never change silently."""
    record = example.encode(dataclasses.replace(EXAMPLE, image=b"J", identity=-1))
    assert record.hex() == (
        "0a94010a0e0a05696d61676512050a030a014a0a0e0a056c6162656c12051a03"
        "0a01010a1a0a08696d6167655f6964120e0a0c0a0a3030303030312e6a70670a"
        "1a0a086964656e74697479120e1a0c0a0affffffffffffffffff010a3a0a0a61"
        "747472696275746573122c1a2a0a280001000100010001000100010001000100"
        "0100010001000100010001000100010001000100010001"
    )
    assert len(celeba.ATTRIBUTES) == 40


def test_an_image_id_is_found_in_a_damaged_record():
    record = example.encode(EXAMPLE)
    assert example.peek_image_id(record) == EXAMPLE.image_id
    cut = len(record) - 1
    damaged = record[:cut] + bytes([record[cut] ^ 255])  # in the last attribute
    assert example.peek_image_id(damaged) == EXAMPLE.image_id
    assert example.peek_image_id(record[:cut]) is None  # its length is wrong
    assert example.peek_image_id(b"") is None
    odd = example.encode(dataclasses.replace(EXAMPLE, image_id="a\x07b"))
    assert example.peek_image_id(odd) is None
