"""How records lie in a TFRecord file.

Per record: length (uint64, little endian), masked CRC-32C of those eight bytes, the
record, masked CRC-32C of the record. Source: TensorFlow's `lib/io/record_writer.h`.
"""

import struct
from collections.abc import Iterator

import google_crc32c

_HEADER, _CHECKSUM = 12, 4


class DamagedRecord(ValueError):
    """A record that its framing shows to be damaged.

    Attributes:
      index: counts from 0.
      what: is wrong with it.
      payload: the damaged record, if it is there in full length, else empty.
    """

    def __init__(self, index: int, what: str, payload: bytes = b""):
        super().__init__(f"record {index}: {what}")
        self.index = index
        self.what = what
        self.payload = payload


def frame(record: bytes) -> bytes:
    """A record with its TFRecord header and checksums."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def read_records(data: bytes) -> Iterator[bytes]:
    """Yields the records of a TFRecord file's bytes.

    Raises:
      DamagedRecord: at the first record that is cut or whose checksum differs.
    """
    at, index = 0, 0
    while at < len(data):
        length = _length(data[at : at + _HEADER], index)
        at += _HEADER
        yield _check_record(data[at : at + length + _CHECKSUM], length, index)
        at += length + _CHECKSUM
        index += 1


def _check_record(data: bytes, length: int, index: int) -> bytes:
    """Cuts a record of `length` bytes off its checksum, which follows in `data`.

    Raises:
      DamagedRecord: it is cut, or its checksum differs.
    """
    record, masked = data[:length], data[length:]
    if len(masked) < _CHECKSUM:
        raise DamagedRecord(index, "the file ends inside it")
    if _masked_crc(record) != masked:
        raise DamagedRecord(index, "its checksum differs", record)
    return record


def _length(header: bytes, index: int) -> int:
    if len(header) < _HEADER:
        raise DamagedRecord(index, "the file ends inside its header")
    if _masked_crc(header[:8]) != header[8:]:
        raise DamagedRecord(index, "the checksum of its length differs")
    return struct.unpack("<Q", header[:8])[0]


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)  # Castagnoli's polynomial
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
