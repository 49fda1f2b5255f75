"""From a staging folder to a published dataset, with nothing in between.

Everything is written to `OUT.building-<hash>`, where the hash is over configuration and
sources: the same command finds its own unfinished work and goes on. The manifest is
written last, then one rename publishes the folder; to overwrite, the two folders
change places. So `OUT` is always a whole dataset, the old one or the new one, where the
kernel can swap two folders (Linux, on most file systems); elsewhere `files.exchange`
renames three times, and a crash between two of them leaves `OUT` to be renamed back.

Buckets cannot rename folders: there `staging.RemoteStaging` builds in place, the
manifest is the commit, and nothing is ever overwritten.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_pipelines.writing import stores
from beam_pipelines.writing.staging import (
    MANIFEST,
    OURS,
    RemoteStaging,
    Staging,
    output_error,
)
from beam_pipelines.writing.stores import LocalStore
from schemas.manifest import FORMAT, VERSION, Manifest, ManifestError
from support import files


class LocalStaging(Staging):
    """A folder beside the output, `OUT.building-<hash>`, that takes its place."""

    def __init__(self, output: Path, identity: str):
        self._folder = Path(os.path.abspath(output))
        self.path = self._folder.with_name(f"{self._folder.name}.building-{identity}")
        super().__init__(str(output), LocalStore(self.path))

    def hold(self) -> contextlib.AbstractContextManager:
        return files.FolderLock(self._folder)

    def open(self) -> bool:
        with files.output_errors(self._folder.parent):
            found = self.path.is_dir()
            self.path.mkdir(parents=True, exist_ok=True)
            # There is one if a build was killed just before or after its last rename.
            self.store.delete([MANIFEST])
        return found

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
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Removes what builds with another configuration left half done."""
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
    if stores.is_remote(output):
        return RemoteStaging(output, name)
    return LocalStaging(Path(output), name)


def check_output(output: str, overwrite: bool) -> None:
    """Refuses an output whose content would be lost.

    Raises:
      UserError: exit 4, if it is a file or a mount point, holds files that are not a
        dataset's, or holds a dataset and `overwrite` is false or impossible.
    """
    if stores.is_remote(output):
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
    if MANIFEST in stores.RemoteStore(output).sizes():
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
    foreign = [name for name in entries if not OURS.fullmatch(name)]
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
    except (OSError, ValueError, ManifestError):
        return ""
    total = sum(shard.records for shard in manifest.shards)
    return f" ({total:,} examples, attribute {manifest.attribute})"
