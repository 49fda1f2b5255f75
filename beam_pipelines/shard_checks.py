"""One shard and its manifest: is it the listed file, and is all right in it?"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import simplejpeg

from schemas import example
from schemas.manifest import Manifest, Shard
from support.errors import ExitCode, UserError
from support.framing import DamagedRecord, read_records
from support.images import BadImage, check_header

#: Image id and identity of each record.
Contents = list[tuple[str, int]]


def check(
    folder: Path, manifest: Manifest, full: bool, shard: Shard
) -> Contents | None:
    """Reads a shard once and checks all that can be checked in it alone.

    Args:
      folder: of the dataset.
      manifest: its manifest.
      full: whether images are decoded completely, or only their headers.
      shard: one of the manifest's.

    Returns:
      who is in it; None if it is not the file that the manifest lists, see `locate`.

    Raises:
      UserError: exit 5, the file is missing or a record breaks the rules.
      OSError: it cannot be read.
    """
    path = folder / shard.name
    data = _read(path)
    if len(data) != shard.bytes or hashlib.sha256(data).hexdigest() != shard.sha256:
        return None
    column = manifest.attributes.index(manifest.attribute)
    contents, counts = [], [0, 0]
    for index, serialized in enumerate(_records(data, path)):
        try:
            record = example.decode(serialized)
        except example.DecodeError as error:
            where = f"{path}: record {index}{_image(serialized)}"
            raise damaged(f"{where}: {error}.") from error
        where = f"{path}: record {index} (image {record.image_id})"
        if len(record.attributes) != len(manifest.attributes):
            raise damaged(
                f"{where}: it has {len(record.attributes)} attributes, the manifest "
                f"names {len(manifest.attributes)}."
            )
        if record.label != record.attributes[column]:
            raise damaged(f"{where}: its label is not its {manifest.attribute}.")
        shape = _shape(record.image, where, full)
        if shape != manifest.image_shape:
            raise damaged(f"{where}: its shape is {shape}, not {manifest.image_shape}.")
        counts[record.label] += 1
        contents.append((record.image_id, record.identity))
    if tuple(counts) != shard.class_counts:
        raise damaged(
            f"{path} has {counts[0]:,} and {counts[1]:,} records of label 0 and 1, "
            f"the manifest lists {shard.class_counts[0]:,} and "
            f"{shard.class_counts[1]:,}."
        )
    return contents


def locate(path: Path, shard: Shard, manifest: Manifest) -> NoReturn:
    """Names the first damage of a file that is not the one the manifest lists.

    Raises:
      UserError: exit 5, always.
    """
    data = _read(path)
    note = f"; {len(data):,} bytes, the manifest lists {shard.bytes:,}"
    note = "" if len(data) == shard.bytes else note
    records = list(_records(data, path, note))
    digest, count = hashlib.sha256(data).hexdigest(), len(records)
    twins = [other.name for other in manifest.shards if other.sha256 == digest]
    other = f"{path} is another file than the manifest lists"
    name = example.peek_image_id(b"".join(records[:1]))
    first = f", whose first record is image {name}"
    if data and twins:
        raise damaged(f"{other}: it is {twins[0]}{first}.")
    listed = f"the manifest lists {shard.records:,}{note}"
    if count > shard.records:
        extra = f"record {shard.records}{_image(records[shard.records])}"
        raise damaged(f"{path}: {extra} is one too many: {listed}.")
    if count < shard.records:
        last = example.peek_image_id(b"".join(records[-1:]))
        end = f" and ends after image {last}" if count else ""
        raise damaged(f"{path} holds {count:,} whole records{end}; {listed}.")
    raise damaged(
        f"{other}: its sha256 differs, though its records are whole{first}{note}."
    )


def damaged(cause: str) -> UserError:
    """The error of a damaged dataset."""
    remedy = "Copy the dataset again from where it is whole, or build it again."
    return UserError(cause, remedy, ExitCode.INTEGRITY)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise damaged(f"{path} is missing.") from error


def _records(data: bytes, path: Path, note: str = "") -> Iterator[bytes]:
    """Yields the records of a shard; the error for a damaged one ends with `note`."""
    last = b""
    try:
        for record in read_records(data):
            yield record
            last = record
    except DamagedRecord as error:
        raise damaged(f"{path}: {_describe(error, last)}{note}.") from error


def _shape(image: bytes, where: str, full: bool) -> tuple[int, ...]:
    """(height, width, 3) of an image, which is decoded if it is to be checked fully."""
    try:
        shape = (*check_header(image)[:2], 3)
        return simplejpeg.decode_jpeg(image, "RGB").shape if full else shape
    except BadImage as error:
        raise damaged(f"{where}: {error.reason}, {error.detail}.") from error
    except ValueError as error:
        message = " ".join(str(error).split())
        raise damaged(f"{where}: it cannot be decoded, {message}.") from error


def _describe(error: DamagedRecord, last: bytes) -> str:
    """A damaged record with its image, or else with the image of the one before it."""
    name, before = example.peek_image_id(error.payload), example.peek_image_id(last)
    context = ""
    if name:
        context = f" (the payload says image {name})"
    elif before:
        context = f" (after image {before})"
    return f"record {error.index}{context}: {error.what}"


def _image(record: bytes) -> str:
    name = example.peek_image_id(record)
    return f" (image {name})" if name else ""
