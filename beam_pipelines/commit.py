"""From a staging folder to a published dataset, with nothing in between.

Everything is written to `OUT.building-<hash>`, where the hash is over configuration and
sources: the same command finds its own unfinished work and goes on. The manifest is
written last, then one rename publishes the folder; to overwrite, the two folders
change places. So `OUT` is always a whole dataset, the old one or the new one, where the
kernel can swap two folders (Linux, on most file systems); elsewhere `files.exchange`
renames three times, and a crash between two of them leaves `OUT` to be renamed back.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_pipelines import dataset_info
from beam_pipelines.shards import Receipt, receipt_path
from schemas.manifest import FILE_NAME as MANIFEST
from schemas.manifest import FORMAT, VERSION, Manifest, ManifestError
from support import files
from support.errors import ExitCode, UserError

BUILD_FILE, REJECTED_FILE = "build.json", "rejected.csv"

#: Round after round, the images that the writers refused.
_ROUNDS_FILE = "rounds.json"

#: What a dataset folder may hold. Anything else in it is the user's.
_OURS = re.compile(
    "|".join(
        [
            re.escape(MANIFEST),
            re.escape(BUILD_FILE),
            re.escape(REJECTED_FILE),
            re.escape(dataset_info.INFO_FILE),
            re.escape(dataset_info.FEATURES_FILE),
            re.escape(_ROUNDS_FILE),
            r"celeba-[a-z]+\.tfrecord-\d+-of-\d+(\.json)?",
        ]
    )
)

Rejection = tuple[str, str, str]  # file name, reason, detail


class Staging:
    """The folder in which a dataset is built.

    Attributes:
      output: the folder that the dataset will become.
      path: the staging folder beside it.
    """

    def __init__(
        self, output: Path, config: Mapping[str, Any], sources: Mapping[str, Any]
    ):
        self.output = Path(os.path.abspath(output))
        identity = json.dumps([FORMAT, VERSION, config, sources], sort_keys=True)
        name = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.path = self.output.with_name(f"{self.output.name}.building-{name}")

    def open(self) -> bool:
        """Creates the folder; returns whether unfinished work was found in it."""
        with files.output_errors(self.output.parent):
            found = self.path.is_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            # There is one if a build was killed just before or after its last rename.
            (self.path / MANIFEST).unlink(missing_ok=True)
        return found

    def bytes(self) -> int:
        """How much of the dataset is there already."""
        return sum(path.stat().st_size for path in self.path.glob("celeba-*"))

    def load_rounds(self) -> list[list[Rejection]]:
        """What the writers refused in each round that is complete."""
        try:
            rounds = json.loads((self.path / _ROUNDS_FILE).read_text())
        except (OSError, ValueError):
            return []
        return [[tuple(row) for row in rejected] for rejected in rounds]

    def save_rounds(self, rounds: Sequence[Sequence[Rejection]]) -> None:
        files.atomic_write(self.path / _ROUNDS_FILE, json.dumps(rounds))

    def receipts(self, names: Iterable[str]) -> dict[str, Receipt]:
        """The receipts that exist of the named shards."""
        found = {name: Receipt.load(self.path, name) for name in names}
        return {name: receipt for name, receipt in found.items() if receipt}

    def publish(
        self,
        manifest: Manifest,
        rejected: Sequence[Rejection],
        build: Mapping[str, Any],
        overwrite: bool,
    ) -> None:
        """Completes the folder, writes the manifest last, and puts it in place."""
        names = {shard.name for shard in manifest.shards}
        with files.output_errors(self.path):
            for shard in manifest.shards:
                files.sync_file(self.path / shard.name)
            write = files.atomic_write
            write(self.path / REJECTED_FILE, rejected_csv(rejected))
            write(self.path / BUILD_FILE, json.dumps(dict(build), indent=1) + "\n")
            write(self.path / dataset_info.INFO_FILE, dataset_info.info_json(manifest))
            write(
                self.path / dataset_info.FEATURES_FILE,
                dataset_info.features_json(manifest),
            )
            self._sweep(names)
            write(self.path / MANIFEST, manifest.to_json())
            self._put_in_place(overwrite)
            # Only now: a build killed before the rename finds its receipts again.
            for name in names:
                receipt_path(self.output, name).unlink(missing_ok=True)
            (self.output / _ROUNDS_FILE).unlink(missing_ok=True)
            self._remove_leftovers()

    def write_rejected(self, rejected: Sequence[Rejection]) -> Path:
        """Writes the list of unusable images of a build that cannot go on."""
        files.atomic_write(self.path / REJECTED_FILE, rejected_csv(rejected))
        return self.path / REJECTED_FILE

    def _put_in_place(self, overwrite: bool) -> None:
        check_output(self.output, overwrite)
        if self.output.is_dir() and os.listdir(self.output):
            files.exchange(self.path, self.output)
            files.sync_folder(self.output.parent)
            shutil.rmtree(self.path)  # the old dataset
        else:
            os.rename(self.path, self.output)
            files.sync_folder(self.output.parent)

    def _sweep(self, shards: set[str]) -> None:
        """Removes what is neither a shard of this dataset nor of use to its readers."""
        keep = shards | {receipt_path(self.path, name).name for name in shards}
        keep |= {_ROUNDS_FILE}
        for entry in self.path.iterdir():
            is_shard = ".tfrecord-" in entry.name
            if entry.name in keep or (_OURS.fullmatch(entry.name) and not is_shard):
                continue
            entry.unlink()

    def _remove_leftovers(self) -> None:
        """Removes what builds with another configuration left half done."""
        leftover = re.compile(re.escape(self.output.name) + r"\.building-[0-9a-f]{12}")
        for path in self.output.parent.iterdir():
            if leftover.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def check_output(output: Path, overwrite: bool) -> None:
    """Refuses an output folder whose content would be lost.

    Raises:
      UserError: exit 4, if it is a file or a mount point, holds files that are not a
        dataset's, or holds a dataset and `overwrite` is false.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise _output_error(f"{output} is a file.", "Give --output_dir a new folder.")
    if os.path.ismount(output):  # a rename cannot replace it
        raise _output_error(
            f"{output} is a mount point.", "Give --output_dir a folder inside it."
        )
    entries = sorted(os.listdir(output))
    foreign = [name for name in entries if not _OURS.fullmatch(name)]
    if foreign:
        raise _output_error(
            f"{output} holds other files, such as {foreign[0]}.",
            "Give --output_dir a new or empty folder.",
        )
    if entries and not overwrite:
        what = "a dataset" if MANIFEST in entries else "parts of a dataset"
        raise _output_error(
            f"{output} already holds {what}{_describe(output)}.",
            "Add --overwrite to replace it, or give another --output_dir.",
        )


def rejected_csv(rejected: Sequence[Rejection]) -> str:
    """The unusable images as CSV, sorted by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason", "detail"))
    writer.writerows(sorted(rejected))
    return text.getvalue()


def _describe(output: Path) -> str:
    try:
        manifest = Manifest.from_json((output / MANIFEST).read_text())
    except (OSError, ValueError, ManifestError):
        return ""
    total = sum(shard.records for shard in manifest.shards)
    return f" ({total:,} examples, attribute {manifest.attribute})"


def _output_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.OUTPUT)
