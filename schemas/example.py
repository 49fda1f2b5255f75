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
    """Parses one record without TensorFlow, strictly by the feature table.

    Raises:
      DecodeError: malformed, or a feature missing, unknown, doubled, of another kind
        or of another length.
    """
    try:
        values = dict(_decode_features(serialized))
    except (IndexError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a serialized tf.train.Example: {error}") from error
    missing = [feature.key for feature in FEATURES if feature.key not in values]
    if missing:
        raise DecodeError(f"feature {missing[0]!r} is missing")
    if not set(values[ATTRIBUTES]) <= {0, 1}:
        raise DecodeError(f"feature {ATTRIBUTES!r} has a value other than 0 and 1")
    return Example(
        image=values[IMAGE][0],
        label=values[LABEL][0],
        image_id=values[IMAGE_ID][0],
        identity=values[IDENTITY][0],
        attributes=bytes(values[ATTRIBUTES]),
    )


def peek_image_id(serialized: bytes) -> str | None:
    """The image id of a record that may be damaged, None if it cannot be read."""
    try:
        for key, values in _decode_features(serialized):
            if key == IMAGE_ID:
                return values[0] if values[0].isprintable() else None
    except (DecodeError, IndexError, UnicodeDecodeError):
        return None
    return None


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


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
        shift += 7
        if shift > 63:
            raise DecodeError("a number longer than 64 bits")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (field number, payload) of a message of length-delimited fields."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 != _LENGTH_DELIMITED:
            raise DecodeError(f"wire type {tag & 7}, expected {_LENGTH_DELIMITED}")
        size, at = _read_varint(data, at)
        if at + size > len(data):
            raise DecodeError("a field runs past the end of the record")
        yield tag >> 3, data[at : at + size]
        at += size


def _only(fields: Iterator[tuple[int, bytes]], number: int) -> Iterator[bytes]:
    for found, payload in fields:
        if found != number:
            raise DecodeError(f"field {found} where only {number} belongs")
        yield payload


def _decode_features(serialized: bytes) -> Iterator[tuple[str, list[Any]]]:
    table = {feature.key: feature for feature in FEATURES}
    seen = set()
    for features in _only(_fields(serialized), 1):
        for entry in _only(_fields(features), 1):
            parts = dict(_fields(entry))
            key = parts.get(1, b"").decode()
            feature = table.get(key)
            if feature is None or key in seen:
                state = "unknown" if feature is None else "doubled"
                raise DecodeError(f"feature {key!r} is {state}")
            seen.add(key)
            values = list(_decode_values(parts.get(2, b""), feature))
            if len(values) != (feature.length or max(len(values), 1)):
                raise DecodeError(
                    f"feature {key!r} has {len(values)} values, not "
                    f"{feature.length or 'one per attribute'}"
                )
            yield key, values


def _decode_values(message: bytes, feature: Feature) -> Iterator[Any]:
    kind = _BYTES_LIST if feature.kind == "bytes" else _INT64_LIST
    for body in _only(_fields(message), kind):
        for payload in _only(_fields(body), 1):
            if feature.kind == "int64":
                yield from _unpack(payload)
            elif feature.key == IMAGE_ID:
                yield payload.decode()
            else:
                yield payload


def _unpack(packed: bytes) -> Iterator[int]:
    if packed.isascii():  # numbers below 128 are their own varints
        yield from packed
        return
    at = 0
    while at < len(packed):
        value, at = _read_varint(packed, at)
        yield value - (1 << 64) if value >> 63 else value
