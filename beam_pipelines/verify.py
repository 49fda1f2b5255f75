"""Compares a dataset with its manifest.

    python -m beam_pipelines.verify --dataset_dir=data/tfrecords

Sizes, sha256, record counts, checksums, features and image headers of every shard; with
--full every pixel too. The first damage in the manifest's order is named by shard,
record and image. Exit 5 if there is any.
"""

import dataclasses
import functools
from pathlib import Path

from beam_pipelines import shard_checks
from beam_pipelines.reporting import dataset_info
from beam_pipelines.shard_checks import Contents, damaged
from schemas import celeba
from schemas.manifest import FILE_NAME, Manifest, Shard
from support import command, pool
from support.command import option
from support.documents import MOST_JSON_BYTES, DocumentError, read_text
from support.errors import input_error, usage_error
from support.files import PinnedFolder, input_errors
from support.images import require_local
from support.progress import Progress, Stopwatch

#: Records below which starting processes takes longer than it saves: without and with
#: decoding every image.
_FEW = {False: 50_000, True: 5_000}


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """What to verify, and how thoroughly."""

    dataset_dir: str = option("data/tfrecords", "Folder of the dataset.")
    full: bool = option(False, "Decode every image completely.")
    num_workers: int = option(0, "Processes that read; 0 = by the dataset's size.")

    def __post_init__(self):
        require_local(self.dataset_dir, "dataset_dir")
        if self.num_workers < 0:
            raise usage_error(
                f"--num_workers must be 0 or more, not {self.num_workers}.",
                "Leave it out to choose by the dataset's size.",
            )


def main(argv: list[str]) -> None:
    """Parses flags, verifies, prints one line."""
    config = command.parse_config(VerifyConfig, argv)
    folder = Path(config.dataset_dir)
    watch = Stopwatch()
    manifest = verify(folder, config.full, config.num_workers)
    counts = ", ".join(
        f"{split} {manifest.num_examples(split):,}" for split in celeba.SPLITS
    )
    print(f"{folder} is whole: {counts} records in {len(manifest.shards)} shards")
    what = "decoded completely" if config.full else "checked"
    rate = sum(shard.records for shard in manifest.shards) / watch.total
    print(f"{what} in {watch.total:.1f} s, {rate:,.0f} images/s")


def verify(folder: Path, full: bool = False, num_workers: int = 0) -> Manifest:
    """Verifies a dataset folder and returns its manifest.

    Args:
      folder: of the dataset.
      full: whether to decode every image completely, not only its header.
      num_workers: processes that read; 0 chooses by the dataset's size.

    Raises:
      UserError: exit 5 for the first damage, or if the dataset is replaced meanwhile;
        exit 3 if there is no such folder or it cannot be read.
    """
    with input_errors(folder), PinnedFolder(folder).reading():
        manifest = read_manifest(folder)
        _check_shards(folder, manifest, full, num_workers)
        _check_info(folder, manifest)
    return manifest


def _check_shards(
    folder: Path, manifest: Manifest, full: bool, num_workers: int
) -> None:
    total = sum(shard.records for shard in manifest.shards)
    workers = num_workers or (1 if total < _FEW[full] else pool.cores())
    workers = min(workers, len(manifest.shards))
    check = functools.partial(shard_checks.check, folder, manifest, full)
    shared = _Shared(folder, manifest.config.get("split") == "identity")
    with (
        pool.process_map(workers, check, manifest.shards) as results,
        Progress(total, "verifying") as line,
    ):
        for shard, contents in zip(manifest.shards, results, strict=True):
            if contents is None:
                shard_checks.locate(folder / shard.name, shard, manifest)
            shared.check(shard, contents)
            line.update(shard.records)


@dataclasses.dataclass
class _Shared:
    """What no two shards may share: an image; split by identity, a person.

    Attributes:
      folder: of the dataset.
      by_identity: whether a person is in one split alone.
      shards: name of the shard of each image that was met.
      splits: split of each person that was met.
    """

    folder: Path
    by_identity: bool
    shards: dict[str, str] = dataclasses.field(default_factory=dict)
    splits: dict[int, str] = dataclasses.field(default_factory=dict)

    def check(self, shard: Shard, contents: Contents) -> None:
        for index, (image, person) in enumerate(contents):
            split = self.splits.setdefault(person, shard.split)
            problem = ""
            if image in self.shards:
                problem = f" is also in {self.shards[image]}."
            elif self.by_identity and person >= 0 and split != shard.split:
                problem = f": its person is also in {split}."
            if problem:
                where = f"{self.folder / shard.name}: record {index} (image {image})"
                raise damaged(where + problem)
            self.shards[image] = shard.name


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
      UserError: exit 3 without such a folder; exit 5 if the manifest is missing,
        damaged, edited or foreign.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise input_error(
            f"The dataset folder {folder} {state}.",
            "Build it with python -m beam_pipelines.build.",
        )
    path = folder / FILE_NAME
    try:
        return Manifest.from_json(read_text(path, MOST_JSON_BYTES))
    except FileNotFoundError as error:
        unfinished = any(folder.glob("*.tfrecord-*"))
        what = "an unfinished dataset, or one whose manifest was lost"
        raise damaged(
            f"{folder} has no {FILE_NAME}: it is "
            f"{what if unfinished else 'not a dataset'}."
        ) from error
    except DocumentError as error:
        raise damaged(error.at(path)) from error


def _check_info(folder: Path, manifest: Manifest) -> None:
    """Compares the files for TensorFlow Datasets with what the manifest makes."""
    for name, make in (
        (dataset_info.INFO_FILE, dataset_info.info_json),
        (dataset_info.FEATURES_FILE, dataset_info.features_json),
    ):
        path = folder / name
        if not path.is_file():
            raise damaged(f"{path} is missing.")
        if path.read_bytes() != make(manifest).encode():
            raise damaged(f"{path} does not say what the manifest says.")


if __name__ == "__main__":
    command.run(main)
