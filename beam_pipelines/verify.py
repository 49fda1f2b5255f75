"""Compares a dataset with its manifest.

    python -m beam_pipelines.verify --dataset_dir=data/tfrecords

Sizes, sha256, record counts, checksums and features of every shard; the first damage is
named by shard, record and image. Exit 5 if there is any.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from absl import flags

from beam_pipelines import dataset_info
from beam_pipelines.shards import DamagedRecord, read_records
from schemas import celeba, example
from schemas.manifest import FILE_NAME, Manifest, ManifestError, Shard
from support import command
from support.errors import ExitCode, UserError
from support.files import input_errors
from support.images import BadImage, check_header, require_local


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """What to verify."""

    dataset_dir: str = command.option("data/tfrecords", "Folder of the dataset.")

    def __post_init__(self):
        require_local(self.dataset_dir, "dataset_dir")


@dataclasses.dataclass
class _Seen:
    """Where people and images were met so far."""

    people: dict[int, str] = dataclasses.field(default_factory=dict)
    images: dict[str, str] = dataclasses.field(default_factory=dict)


def main(argv: list[str]) -> None:
    """Parses flags, verifies, prints one line."""
    values = flags.FlagValues()
    command.define_flags(VerifyConfig, values)
    words = command.parse(argv, values)
    command.refuse_words(words)
    folder = Path(command.from_flags(VerifyConfig, values).dataset_dir)
    manifest = verify(folder)
    counts = ", ".join(
        f"{split} {manifest.num_examples(split):,}" for split in celeba.SPLITS
    )
    print(f"{folder} is whole: {counts} records in {len(manifest.shards)} shards")


def verify(folder: Path) -> Manifest:
    """Verifies a dataset folder and returns its manifest.

    Raises:
      UserError: exit 5 for the first damage, exit 3 if there is no such folder or it
        cannot be read.
    """
    with input_errors(folder):
        return _verify(folder)


def _verify(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    seen = _Seen()
    for shard in manifest.shards:
        data = _read(folder / shard.name, shard)
        records = _records(data, folder / shard.name, shard)
        _check_records(records, folder / shard.name, shard, manifest, seen)
    _check_info(folder, manifest)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
      UserError: exit 3 without such a folder; exit 5 if the manifest is missing,
        damaged, edited or foreign.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"The dataset folder {folder} {state}.",
            "Build it with python -m beam_pipelines.build.",
            ExitCode.INPUT_DATA,
        )
    path = folder / FILE_NAME
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        unfinished = any(folder.glob("*.tfrecord-*"))
        what = "an unfinished dataset, or one whose manifest was lost"
        raise _damaged(
            f"{folder} has no {FILE_NAME}: it is "
            f"{what if unfinished else 'not a dataset'}."
        ) from error
    except (ManifestError, UnicodeDecodeError) as error:
        raise _damaged(f"{path} is damaged: {error}.") from error


def _check_info(folder: Path, manifest: Manifest) -> None:
    """Compares the files for TensorFlow Datasets with what the manifest makes."""
    for name, make in (
        (dataset_info.INFO_FILE, dataset_info.info_json),
        (dataset_info.FEATURES_FILE, dataset_info.features_json),
    ):
        path = folder / name
        if not path.is_file():
            raise _damaged(f"{path} is missing.")
        if path.read_bytes() != make(manifest).encode():
            raise _damaged(f"{path} does not say what the manifest says.")


def _read(path: Path, shard: Shard) -> bytes:
    if not path.is_file():
        raise _damaged(f"{path} is missing.")
    size = os.stat(path).st_size
    data = path.read_bytes()
    if size == shard.bytes and hashlib.sha256(data).hexdigest() == shard.sha256:
        return data
    _locate(path, data, shard)


def _locate(path: Path, data: bytes, shard: Shard) -> NoReturn:
    """Names the first damage of a file that is not the one the manifest lists."""
    count = 0
    try:
        for _ in read_records(data):
            count += 1
    except DamagedRecord as error:
        raise _damaged(f"{path}: {error}{_size_note(data, shard)}.") from error
    if count != shard.records:
        raise _damaged(
            f"{path} holds {count:,} whole records, the manifest lists "
            f"{shard.records:,}{_size_note(data, shard)}."
        )
    raise _damaged(f"{path} is another file than the manifest lists: sha256 differs.")


def _size_note(data: bytes, shard: Shard) -> str:
    if len(data) == shard.bytes:
        return ""
    return f"; {len(data):,} bytes, the manifest lists {shard.bytes:,}"


def _records(
    data: bytes, path: Path, shard: Shard
) -> Iterator[tuple[int, example.Example]]:
    index = -1
    try:
        for index, record in enumerate(read_records(data)):
            yield index, example.decode(record)
    except DamagedRecord as error:
        raise _damaged(f"{path}: {error}.") from error
    except example.DecodeError as error:
        raise _damaged(f"{path}: record {index}: {error}.") from error


def _check_records(
    records: Iterator[tuple[int, example.Example]],
    path: Path,
    shard: Shard,
    manifest: Manifest,
    seen: _Seen,
) -> None:
    """Checks what the records say against the manifest and against each other."""
    column = celeba.ATTRIBUTES.index(manifest.attribute)
    by_identity = manifest.config.get("split") == "identity"
    counts = [0, 0]
    for index, record in records:
        where = f"{path}: record {index} (image {record.image_id})"
        if record.label != record.attributes[column]:
            raise _damaged(f"{where}: its label is not its {manifest.attribute}.")
        counts[record.label] += 1
        try:
            shape = (*check_header(record.image)[:2], 3)
        except BadImage as error:
            raise _damaged(f"{where}: {error.reason}, {error.detail}.") from error
        if shape != manifest.image_shape:
            raise _damaged(
                f"{where}: its shape is {shape}, not {manifest.image_shape}."
            )
        if record.image_id in seen.images:
            raise _damaged(f"{where} is also in {seen.images[record.image_id]}.")
        seen.images[record.image_id] = shard.name
        if by_identity and record.identity >= 0:
            split = seen.people.setdefault(record.identity, shard.split)
            if split != shard.split:
                raise _damaged(f"{where}: its person is also in {split}.")
    if tuple(counts) != shard.class_counts:
        raise _damaged(
            f"{path} has {counts[0]:,} and {counts[1]:,} records of label 0 and 1, "
            f"the manifest lists {shard.class_counts[0]:,} and "
            f"{shard.class_counts[1]:,}."
        )


def _damaged(cause: str) -> UserError:
    remedy = "Copy the dataset again from where it is whole, or build it again."
    return UserError(cause, remedy, ExitCode.INTEGRITY)


if __name__ == "__main__":
    command.run(main)
