"""How records lie in a TFRecord file.

Per record: length (uint64, little endian), masked CRC-32C of those eight bytes, the
record, masked CRC-32C of the record. Source: TensorFlow's `lib/io/record_writer.h`.
"""

import struct
from collections.abc import Iterator

import google_crc32c

_HEADER = 12


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
        header = data[at : at + _HEADER]
        if len(header) < _HEADER:
            raise DamagedRecord(index, "the file ends inside its header")
        if _masked_crc(header[:8]) != header[8:]:
            raise DamagedRecord(index, "the checksum of its length differs")
        (length,) = struct.unpack("<Q", header[:8])
        record = data[at + _HEADER : at + _HEADER + length]
        checksum = data[at + _HEADER + length : at + _HEADER + length + 4]
        if len(checksum) < 4:
            raise DamagedRecord(index, "the file ends inside it")
        if _masked_crc(record) != checksum:
            raise DamagedRecord(index, "its checksum differs", record)
        yield record
        at += _HEADER + length + 4
        index += 1


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
