"""From a staging folder to a published dataset, with nothing in between.

Everything is written to `OUT.building-<hash>`, where the hash is over configuration and
sources: the same command finds its own unfinished work and resumes it. The manifest is
written last, then one rename publishes the folder; to overwrite, the two folders
change places. So `OUT` is always a complete dataset, the old one or the new one, where
the kernel can swap two folders (Linux, on most file systems); elsewhere
`files.exchange` renames three times, and a crash between two of them leaves `OUT` to be
renamed back.

Buckets cannot rename folders: there `Staging` builds in place, the manifest
is the commit, and nothing is ever overwritten.
"""

import contextlib
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

from beam_pipelines.reporting import dataset_info
from beam_pipelines.sources.remote import is_remote
from beam_pipelines.writing.shards import ShardReport, report_name
from beam_pipelines.writing.store import Store
from schemas.manifest import FILE_NAME as MANIFEST
from schemas.manifest import FORMAT, VERSION, Manifest
from support import files
from support.errors import ExitCode, UserError, output_error

BUILD_FILE, REJECTED_FILE = "build.json", "rejected.csv"

#: The images that the writers rejected, pass by pass.
RETRIES_FILE = "retries.json"

#: On a remote store: which build the files belong to.
_IDENTITY_FILE = "building.txt"

_SHARD = ".tfrecord-"

_DOCUMENTS = (MANIFEST, BUILD_FILE, REJECTED_FILE, *dataset_info.FILE_NAMES)

#: What a dataset folder may contain. Anything else in it is the user's.
OURS = re.compile(
    "|".join(map(re.escape, (*_DOCUMENTS, RETRIES_FILE)))
    + r"|report\.html|report-[a-z]+\.png"
    r"|[a-z0-9_]+-[a-z]+\.tfrecord-\d+-of-\d+(\.json)?"
)

Rejection = tuple[str, str, str]  # file name, reason, detail


class Staging:
    """A place in which a dataset is built: here, in a bucket, the output itself.

    Nothing can be renamed there, so the manifest is the commit, and a file next to the
    shards says which build they belong to. There is no lock: two builds into one prefix
    leave the files of the one that wrote last, which the other's manifest then does not
    match.

    Attributes:
      output: what the dataset will become, as it is shown to the user.
      store: the files that are there so far.
    """

    def __init__(self, output: str, identity: str):
        self.output, self.store = output, Store(output)
        self._identity = identity

    def hold(self) -> contextlib.AbstractContextManager:
        """Keeps others from building the same output, where that is possible."""
        return contextlib.nullcontext()

    def open(self) -> bool:
        """Prepares it; returns whether unfinished work of the same build was found."""
        existing = self.store.sizes()
        if _IDENTITY_FILE not in existing:
            if existing:
                raise output_error(
                    f"{self.output} holds other files, such as {min(existing)}.",
                    "Give --output_dir a new prefix.",
                )
            self.store.write(_IDENTITY_FILE, self._identity)
            return False
        if self.store.read(_IDENTITY_FILE).decode() != self._identity:
            raise output_error(
                f"{self.output} holds an unfinished build of other options or images.",
                "Give --output_dir a new prefix, or delete this one.",
            )
        return True

    def discard(self) -> None:
        """Removes what has been written; no other command can use it."""
        self.store.delete(self.store.sizes())

    def _put_in_place(self, overwrite: bool) -> None:
        """Makes the store, which contains a complete dataset, the output."""

    def bytes(self) -> int:
        """The size of the part of the dataset that is there already."""
        sizes = self.store.sizes()
        return sum(size for name, size in sizes.items() if _SHARD in name)

    def load_retries(self) -> list[list[Rejection]]:
        """The images that the writers rejected in each complete pass."""
        try:
            passes = json.loads(self.store.read(RETRIES_FILE))
        except (OSError, ValueError):
            return []
        return [[tuple(row) for row in rejected] for rejected in passes]

    def save_retries(self, passes: Sequence[Sequence[Rejection]]) -> None:
        self.store.write(RETRIES_FILE, json.dumps(passes))

    def publish(
        self,
        manifest: Manifest,
        rejected: Sequence[Rejection],
        build: Mapping[str, Any],
        overwrite: bool,
    ) -> None:
        """Completes the dataset, writes its manifest last, and puts it in place."""
        with files.output_errors(self.store.location):
            self._complete(manifest, rejected, build)
            self._put_in_place(overwrite)
            # Only now: a build killed before this finds its reports again.
            done = [report_name(shard.name) for shard in manifest.shards]
            Store(self.output).delete([*done, RETRIES_FILE, _IDENTITY_FILE])

    def add(self, pages: Mapping[str, bytes]) -> None:
        """Writes files, name -> content, next to the published dataset."""
        with files.output_errors(self.output):
            for name, content in pages.items():
                Store(self.output).write(name, content)

    def forget_rejections(self, shards: Iterable[str]) -> None:
        """Makes the next build look again at all images that the writers rejected."""
        reports = load_reports(self.store, shards).values()
        stale = [report_name(report.name) for report in reports if report.rejected]
        self.store.delete([RETRIES_FILE, *stale])

    def write_rejected(self, rejected: Sequence[Rejection]) -> str:
        """Writes the list of unusable images of a build that cannot continue."""
        self.store.write(REJECTED_FILE, rejected_csv(rejected))
        return f"{self.store}/{REJECTED_FILE}"

    def _complete(
        self,
        manifest: Manifest,
        rejected: Sequence[Rejection],
        build: Mapping[str, Any],
    ) -> None:
        """Writes everything that is stored next to the shards, the manifest last."""
        sizes = self.store.sizes()
        for shard in manifest.shards:
            if sizes.get(shard.name) != shard.bytes:
                raise UserError(
                    f"{shard.name} in {self.store} was changed after it was written.",
                    "Run the same command again: it writes such shards again.",
                    ExitCode.INTEGRITY,
                )
            self.store.sync(shard.name)
        documents = {
            REJECTED_FILE: rejected_csv(rejected),
            BUILD_FILE: json.dumps(dict(build), indent=1) + "\n",
            dataset_info.INFO_FILE: dataset_info.info_json(manifest),
            dataset_info.FEATURES_FILE: dataset_info.features_json(manifest),
        }
        for name, text in documents.items():
            self.store.write(name, text)
        self._sweep(manifest)
        self.store.write(MANIFEST, manifest.to_json())

    def _sweep(self, manifest: Manifest) -> None:
        """Removes what is neither a shard of this dataset nor of use to its readers."""
        shards = {shard.name for shard in manifest.shards}
        keep = shards | {report_name(name) for name in shards}
        keep |= {RETRIES_FILE, _IDENTITY_FILE}
        self.store.delete(
            name
            for name in self.store.sizes()
            if name not in keep and (not OURS.fullmatch(name) or _SHARD in name)
        )


class LocalStaging(Staging):
    """A folder next to the output, `OUT.building-<hash>`, that takes its place."""

    def __init__(self, output: str, identity: str):
        self._folder = Path(os.path.abspath(output))
        self.path = self._folder.with_name(f"{self._folder.name}.building-{identity}")
        super().__init__(output, identity)
        self.store = Store(str(self.path))

    def hold(self) -> contextlib.AbstractContextManager:
        return files.FolderLock(self._folder)

    def open(self) -> bool:
        with files.output_errors(self._folder.parent):
            resumed = self.path.is_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            # There is one if a build was killed just before or after its last rename.
            self.store.delete([MANIFEST])
        return resumed

    def discard(self) -> None:
        shutil.rmtree(self.path)

    def _put_in_place(self, overwrite: bool) -> None:
        check_output(str(self._folder), overwrite)
        if self._folder.is_dir() and os.listdir(self._folder):
            files.exchange(self.path, self._folder)
            files.sync_folder(self._folder.parent)
            shutil.rmtree(self.path, ignore_errors=True)  # the old dataset
        else:
            os.rename(self.path, self._folder)
            files.sync_folder(self._folder.parent)
        # What builds with another configuration left half done.
        leftover = re.compile(re.escape(self._folder.name) + r"\.building-[0-9a-f]{12}")
        for path in self._folder.parent.iterdir():
            if leftover.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def open_staging(
    output: str, config: Mapping[str, Any], sources: Mapping[str, Any]
) -> Staging:
    """The staging of a build; equal configuration and sources find the same one."""
    identity = json.dumps([FORMAT, VERSION, config, sources], sort_keys=True)
    name = hashlib.sha256(identity.encode()).hexdigest()[:12]
    kind = Staging if is_remote(output) else LocalStaging
    return kind(output, name)


def load_reports(store: Store, names: Iterable[str]) -> dict[str, ShardReport]:
    """The reports that a store has on the named shards."""
    existing = store.sizes()
    reports = {
        name: ShardReport.load(store, name)
        for name in names
        if report_name(name) in existing
    }
    return {name: report for name, report in reports.items() if report}


def check_output(output: str, overwrite: bool) -> None:
    """Refuses an output whose content would be lost.

    Raises:
      UserError: exit 4, if it is a file or a mount point, contains files that are not a
        dataset's, or contains a dataset and `overwrite` is false or impossible.
    """
    if is_remote(output):
        _check_prefix(output, overwrite)
    else:
        with files.output_errors(output):
            _check_folder(Path(output), overwrite)


def _check_prefix(output: str, overwrite: bool) -> None:
    remedy = "Give --output_dir a new prefix."
    if overwrite:
        raise output_error(
            f"--overwrite cannot replace {output}: a bucket has no renames.", remedy
        )
    if MANIFEST in Store(output).sizes():
        raise output_error(f"{output} already holds a dataset.", remedy)


def _check_folder(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise output_error(f"{output} is a file.", "Give --output_dir a new folder.")
    if os.path.ismount(output):  # a rename cannot replace it
        raise output_error(
            f"{output} is a mount point.", "Give --output_dir a folder inside it."
        )
    entries = sorted(os.listdir(output))
    ours = [OURS.fullmatch(name) or files.is_temporary(name) for name in entries]
    foreign = [name for name, own in zip(entries, ours, strict=True) if not own]
    if foreign:
        raise output_error(
            f"{output} holds other files, such as {foreign[0]}.",
            "Give --output_dir a new or empty folder.",
        )
    if entries and not overwrite:
        what = "a dataset" if MANIFEST in entries else "parts of a dataset"
        raise output_error(
            f"{output} already holds {what}{_describe(output)}.",
            "Add --overwrite to replace it, or give another --output_dir.",
        )


def _describe(output: Path) -> str:
    try:
        manifest = Manifest.from_json((output / MANIFEST).read_text())
    except (OSError, ValueError):
        return ""
    total = sum(shard.records for shard in manifest.shards)
    return f" ({total:,} examples, attribute {manifest.attribute})"


def rejected_csv(rejected: Sequence[Rejection]) -> str:
    """The unusable images as CSV, sorted by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason", "detail"))
    writer.writerows(sorted(rejected))
    return text.getvalue()
