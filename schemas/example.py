"""The record: one table of features; encode, decode, and the TensorFlow parser.

A record is a serialized `tf.train.Example`. The writer runs on Beam workers that have
no TensorFlow, and protobuf does not promise the order of map entries, so `encode`
writes the wire format itself: same example, same bytes. This is the only place
where a feature's key is spelt.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Feature:
    """One column of the record.

    Attributes:
      key: its name.
      kind: "bytes" or "int64".
      length: how many values it has; None for one per attribute of the manifest.
    """

    key: str
    kind: str
    length: int | None


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled image.

    Attributes:
      image: the JPEG file's bytes.
      label: 1 if the chosen attribute is perceived in the image, else 0.
      image_id: the image's file name, for example "000001.jpg".
      identity: number of the person shown, -1 if unknown.
      attributes: bytes, each 0 or 1, in the order of the manifest's attributes.
    """

    image: bytes
    label: int
    image_id: str
    identity: int
    attributes: bytes


IMAGE = "image"
LABEL = "label"
IMAGE_ID = "image_id"
IDENTITY = "identity"
ATTRIBUTES = "attributes"

#: In the order in which they are written; `Example` says what they mean.
FEATURES = (
    Feature(IMAGE, "bytes", 1),
    Feature(LABEL, "int64", 1),
    Feature(IMAGE_ID, "bytes", 1),
    Feature(IDENTITY, "int64", 1),
    Feature(ATTRIBUTES, "int64", None),
)

_BYTES_LIST, _INT64_LIST = 1, 3  # field numbers in tf.train.Feature
_LENGTH_DELIMITED = 2


class DecodeError(ValueError):
    """A serialized example does not follow the feature table."""


def encode(example: Example) -> bytes:
    """Serializes an example; the same example always gives the same bytes.

    Raises:
      ValueError: an attribute is neither 0 nor 1, or there is none.
    """
    image, attributes = example.image, example.attributes
    image_id = example.image_id.encode()
    if not attributes or attributes.translate(None, b"\0\1"):
        raise ValueError(f"{ATTRIBUTES}: expected bytes 0 or 1, got {attributes!r}")
    # A number below 128 is its own varint: attributes are written as they are.
    parts = (
        _head(IMAGE, _BYTES_LIST, len(image)),
        image,
        _int64_feature(LABEL, example.label),
        _head(IMAGE_ID, _BYTES_LIST, len(image_id)),
        image_id,
        _int64_feature(IDENTITY, example.identity),
        _head(ATTRIBUTES, _INT64_LIST, len(attributes)),
        attributes,
    )
    # One join: the image is copied once.
    return b"".join((_header(1, sum(map(len, parts))), *parts))


def decode(serialized: bytes) -> Example:
    """Parses one record without TensorFlow; only what `encode` writes is accepted.

    Raises:
      DecodeError: malformed, or with other features or values than those of the table.
    """
    try:
        values = _values(serialized)
        example = Example(
            image=values[IMAGE],
            label=_read_int(values[LABEL]),
            image_id=values[IMAGE_ID].decode(),
            identity=_read_int(values[IDENTITY]),
            attributes=values[ATTRIBUTES],
        )
        same = encode(example) == serialized
    except KeyError as error:
        raise DecodeError(f"feature {error} is missing") from error
    except (IndexError, ValueError) as error:
        raise DecodeError(f"not a serialized tf.train.Example: {error}") from error
    if not same:
        raise DecodeError("its features are not exactly those of the table")
    return example


def peek_image_id(serialized: bytes) -> str | None:
    """The image id of a record that may be damaged, None if it cannot be read."""
    try:
        name = _values(serialized)[IMAGE_ID].decode()
    except (IndexError, KeyError, ValueError):
        return None
    return name if name.isprintable() else None


def feature_spec(attributes: int) -> dict[str, Any]:
    """The table as `tf.io.FixedLenFeature`s: no default, so nothing may be missing."""
    import tensorflow as tf

    dtypes = {"bytes": tf.string, "int64": tf.int64}
    return {
        feature.key: tf.io.FixedLenFeature(
            [] if feature.length == 1 else [attributes], dtypes[feature.kind]
        )
        for feature in FEATURES
    }


def parse(serialized: Any, attributes: int) -> dict[str, Any]:
    """Parses a batch of records inside a TensorFlow graph.

    Args:
      serialized: (batch,) string tensor.
      attributes: how many the manifest names.

    Returns:
      image (batch,) string, label (batch,) int64, image_id (batch,) string,
      identity (batch,) int64, attributes (batch, attributes) int64.
    """
    import tensorflow as tf

    return tf.io.parse_example(serialized, feature_spec(attributes))


@functools.lru_cache(maxsize=1 << 16)
def _head(key: str, kind: int, size: int) -> bytes:
    """What stands before a feature's value of `size` bytes in the map of features."""
    head = _header(kind, len(_header(1, size)) + size) + _header(1, size)
    head = _field(1, key.encode()) + _header(2, len(head) + size) + head
    return _header(1, len(head) + size) + head


@functools.lru_cache(maxsize=1 << 16)
def _int64_feature(key: str, value: int) -> bytes:
    packed = _varint(value)
    return _head(key, _INT64_LIST, len(packed)) + packed


def _field(number: int, payload: bytes) -> bytes:
    return _header(number, len(payload)) + payload


@functools.lru_cache(maxsize=1 << 16)
def _header(number: int, size: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(size)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers: two's complement, ten bytes
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _values(serialized: bytes) -> dict[str, bytes]:
    """The bytes of each feature's value; those of numbers are varints."""
    values = {}
    (features,) = _payloads(serialized)
    for entry in _payloads(features):
        key, feature = _payloads(entry)
        (kind,) = _payloads(feature)
        (values[key.decode()],) = _payloads(kind)
    return values


def _payloads(message: bytes) -> Iterator[bytes]:
    """The fields of a message whose fields are all length-delimited."""
    at = 0
    while at < len(message):
        size, at = _read_varint(message, at + 1)
        if at + size > len(message):
            raise DecodeError("a field runs past the end of the record")
        yield message[at : at + size]
        at += size


def _read_varint(data: bytes, at: int = 0) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while data[at] >= 128:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise DecodeError("a number has more than 64 bits")
    return value | data[at] << shift, at + 1


def _read_int(data: bytes) -> int:
    value, _ = _read_varint(data)
    return value - (1 << 64) if value >> 63 else value
