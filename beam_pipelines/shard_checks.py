"""One shard and its manifest: is it the listed file, and is all right in it?"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Rules:
    """What holds for every record.

    Attributes:
      attributes: names, in the order of the records.
      attribute: the one that is the label.
      image_shape: (height, width, 3) of every decoded image, pixels.
      full: whether images are decoded completely, or only their headers.
    """

    attributes: tuple[str, ...]
    attribute: str
    image_shape: tuple[int, int, int]
    full: bool


#: Image id and identity of each record.
Contents = list[tuple[str, int]]


def check(folder: Path, shard: Shard, rules: Rules) -> Contents | None:
    """Reads a shard once and checks all that can be checked in it alone.

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
    column = rules.attributes.index(rules.attribute)
    contents, counts = [], [0, 0]
    for index, record in _decoded(data, path):
        where = f"{path}: record {index} (image {record.image_id})"
        if len(record.attributes) != len(rules.attributes):
            raise damaged(
                f"{where}: it has {len(record.attributes)} attributes, the manifest "
                f"names {len(rules.attributes)}."
            )
        if record.label != record.attributes[column]:
            raise damaged(f"{where}: its label is not its {rules.attribute}.")
        _check_image(record.image, where, rules)
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
    digest = hashlib.sha256(data).hexdigest()
    twins = [other.name for other in manifest.shards if other.sha256 == digest]
    if data and twins:
        raise damaged(
            f"{path} is another file than the manifest lists: it is {twins[0]}"
            f"{_first(data)}."
        )
    size = f"{len(data):,} bytes, the manifest lists {shard.bytes:,}"
    note = "" if len(data) == shard.bytes else f"; {size}"
    count, last = 0, b""
    try:
        for record in read_records(data):
            if count == shard.records:
                raise damaged(
                    f"{path}: record {count}{_image(record)} is one too many: the "
                    f"manifest lists {shard.records:,}{note}."
                )
            count, last = count + 1, record
    except DamagedRecord as error:
        raise damaged(f"{path}: {_describe(error, last)}{note}.") from error
    if count < shard.records:
        end = f" and ends after image {example.peek_image_id(last)}" if count else ""
        raise damaged(
            f"{path} holds {count:,} whole records{end}; the manifest lists "
            f"{shard.records:,}{note}."
        )
    raise damaged(
        f"{path} is another file than the manifest lists: its sha256 differs, though "
        f"its records are whole{_first(data)}{note}."
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


def _decoded(data: bytes, path: Path) -> Iterator[tuple[int, example.Example]]:
    index, last = -1, b""
    try:
        for index, record in enumerate(read_records(data)):
            yield index, example.decode(record)
            last = record
    except DamagedRecord as error:
        raise damaged(f"{path}: {_describe(error, last)}.") from error
    except example.DecodeError as error:
        raise damaged(f"{path}: record {index}{_image(record)}: {error}.") from error


def _check_image(image: bytes, where: str, rules: Rules) -> None:
    try:
        shape = (*check_header(image)[:2], 3)
        if rules.full:
            shape = simplejpeg.decode_jpeg(image, "RGB").shape
    except BadImage as error:
        raise damaged(f"{where}: {error.reason}, {error.detail}.") from error
    except ValueError as error:
        message = " ".join(str(error).split())
        raise damaged(f"{where}: it cannot be decoded, {message}.") from error
    if shape != rules.image_shape:
        raise damaged(f"{where}: its shape is {shape}, not {rules.image_shape}.")


def _describe(error: DamagedRecord, last: bytes) -> str:
    """A damaged record with its image, or else with the image of the one before it."""
    name, before = example.peek_image_id(error.payload), example.peek_image_id(last)
    context = ""
    if name:
        context = f" (the payload says image {name})"
    elif before:
        context = f" (after image {before})"
    return f"record {error.index}{context}: {error.what}"


def _first(data: bytes) -> str:
    record = next(read_records(data), b"")
    return f", whose first record is image {example.peek_image_id(record)}"


def _image(record: bytes) -> str:
    name = example.peek_image_id(record)
    return f" (image {name})" if name else ""
