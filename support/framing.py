"""How records lie in a TFRecord file.

Per record: length (uint64, little endian), masked CRC-32C of those eight bytes, the
record, masked CRC-32C of the record. Source: TensorFlow's `lib/io/record_writer.h`.
"""

import os
import struct
from collections.abc import Iterator

import google_crc32c

_HEADER, _CHECKSUM = 12, 4


_CUT, _DIFFERS = "the file ends inside it", "its checksum differs"


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
        yield check_record(data[at : at + length + _CHECKSUM], length, index)
        at += length + _CHECKSUM
        index += 1


def locate_records(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yields where the records of an open file begin and how long they are, in bytes.

    Only the headers are read.

    Raises:
      DamagedRecord: at the first header that is cut or whose checksum differs.
    """
    at, index, size = 0, 0, os.fstat(descriptor).st_size
    while at < size:
        length = _length(os.pread(descriptor, _HEADER, at), index)
        yield at + _HEADER, length
        at += _HEADER + length + _CHECKSUM
        index += 1


def read_record(descriptor: int, at: int, length: int, index: int) -> bytes:
    """Reads one record that `locate_records` found; `index` is for the message.

    Raises:
      DamagedRecord: it is cut, or its checksum differs.
    """
    return check_record(os.pread(descriptor, length + _CHECKSUM, at), length, index)


def read_again(descriptor: int, at: int, length: int, index: int, crc32c: int) -> bytes:
    """Reads a record whose plain checksum is known from reading it before.

    Raises:
      DamagedRecord: it is cut, or its checksum differs.
    """
    record = os.pread(descriptor, length, at)
    if len(record) < length:
        raise DamagedRecord(index, _CUT)
    if checksum(record) != crc32c:
        raise DamagedRecord(index, _DIFFERS)
    return record


def check_record(data: bytes, length: int, index: int) -> bytes:
    """Cuts a record of `length` bytes off its checksum, which follows in `data`.

    Raises:
      DamagedRecord: it is cut, or its checksum differs.
    """
    record, masked = data[:length], data[length:]
    if len(masked) < _CHECKSUM:
        raise DamagedRecord(index, _CUT)
    if _masked_crc(record) != masked:
        raise DamagedRecord(index, _DIFFERS, record)
    return record


def _length(header: bytes, index: int) -> int:
    if len(header) < _HEADER:
        raise DamagedRecord(index, "the file ends inside its header")
    if _masked_crc(header[:8]) != header[8:]:
        raise DamagedRecord(index, "the checksum of its length differs")
    return struct.unpack("<Q", header[:8])[0]


def checksum(data: bytes) -> int:
    """The plain checksum (Castagnoli's polynomial), 0..2³²-1."""
    return google_crc32c.value(data)


def _masked_crc(data: bytes) -> bytes:
    crc = checksum(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
