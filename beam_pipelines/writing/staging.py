"""Where a dataset is built, and what is written there beside the shards."""

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_pipelines.reporting import dataset_info, report
from beam_pipelines.writing.shards import Receipt, receipt_name
from beam_pipelines.writing.stores import RemoteStore, Store, open_store
from schemas.manifest import FILE_NAME as MANIFEST
from schemas.manifest import Manifest
from support import files
from support.errors import ExitCode, UserError

BUILD_FILE, REJECTED_FILE = "build.json", "rejected.csv"

#: Round after round, the images that the writers refused.
ROUNDS_FILE = "rounds.json"

#: On a remote store: which build the files belong to.
_IDENTITY_FILE = "building.txt"

_SHARD = ".tfrecord-"

#: What a dataset folder may hold. Anything else in it is the user's.
OURS = re.compile(
    "|".join(
        [
            re.escape(MANIFEST),
            re.escape(BUILD_FILE),
            re.escape(REJECTED_FILE),
            re.escape(dataset_info.INFO_FILE),
            re.escape(dataset_info.FEATURES_FILE),
            re.escape(ROUNDS_FILE),
            *map(re.escape, report.FILE_NAMES),
            r"celeba-[a-z]+\.tfrecord-\d+-of-\d+(\.json)?",
        ]
    )
)

Rejection = tuple[str, str, str]  # file name, reason, detail


class Staging:
    """The place in which a dataset is built; see `LocalStaging`, `RemoteStaging`.

    Attributes:
      output: what the dataset will become, as it is shown to the user.
      store: the files that are there so far.
    """

    def __init__(self, output: str, store: Store):
        self.output = output
        self.store = store

    def open(self) -> bool:
        """Prepares it; returns whether unfinished work of the same build was found."""
        raise NotImplementedError

    def hold(self) -> contextlib.AbstractContextManager:
        """Keeps others from building the same output, where that is possible."""
        raise NotImplementedError

    def bytes(self) -> int:
        """How much of the dataset is there already."""
        sizes = self.store.sizes()
        return sum(size for name, size in sizes.items() if name.startswith("celeba-"))

    def load_rounds(self) -> list[list[Rejection]]:
        """What the writers refused in each round that is complete."""
        try:
            rounds = json.loads(self.store.read(ROUNDS_FILE))
        except (OSError, ValueError):
            return []
        return [[tuple(row) for row in rejected] for rejected in rounds]

    def save_rounds(self, rounds: Sequence[Sequence[Rejection]]) -> None:
        self._write(ROUNDS_FILE, json.dumps(rounds))

    def receipts(self, names: Iterable[str]) -> dict[str, Receipt]:
        """The receipts that exist of the named shards."""
        there = self.store.sizes()
        found = {
            name: Receipt.load(self.store, name)
            for name in names
            if receipt_name(name) in there
        }
        return {name: receipt for name, receipt in found.items() if receipt}

    def publish(
        self,
        manifest: Manifest,
        rejected: Sequence[Rejection],
        build: Mapping[str, Any],
        overwrite: bool,
    ) -> None:
        """Completes the dataset, writes its manifest last, and puts it in place."""
        with files.output_errors(str(self.store)):
            self._complete(manifest, rejected, build)
            self._put_in_place(overwrite)
            # Only now: a build killed before this finds its receipts again.
            done = [receipt_name(shard.name) for shard in manifest.shards]
            open_store(self.output).delete([*done, ROUNDS_FILE, _IDENTITY_FILE])

    def _put_in_place(self, overwrite: bool) -> None:
        """Makes the store, which holds a whole dataset, the output."""
        raise NotImplementedError

    def add(self, pages: Mapping[str, bytes]) -> None:
        """Writes files, name -> content, beside the published dataset."""
        store = open_store(self.output)
        with files.output_errors(self.output):
            for name, content in pages.items():
                with store.writer(name) as file:
                    file.write(content)

    def forget_rejections(self, shards: Iterable[str]) -> None:
        """Makes the next build look again at all images that the writers refused."""
        receipts = self.receipts(shards).values()
        stale = [receipt.name for receipt in receipts if receipt.rejected]
        self.store.delete([ROUNDS_FILE, *map(receipt_name, stale)])

    def write_rejected(self, rejected: Sequence[Rejection]) -> str:
        """Writes the list of unusable images of a build that cannot go on."""
        self._write(REJECTED_FILE, rejected_csv(rejected))
        return f"{self.store}/{REJECTED_FILE}"

    def discard(self) -> None:
        """Removes what has been written; no other command can use it."""
        raise NotImplementedError

    def _write(self, name: str, text: str) -> None:
        with self.store.writer(name) as file:
            file.write(text.encode())

    def _complete(
        self,
        manifest: Manifest,
        rejected: Sequence[Rejection],
        build: Mapping[str, Any],
    ) -> None:
        """Writes everything that lies beside the shards, the manifest last."""
        for shard in manifest.shards:
            self.store.sync(shard.name)
        documents = {
            REJECTED_FILE: rejected_csv(rejected),
            BUILD_FILE: json.dumps(dict(build), indent=1) + "\n",
            dataset_info.INFO_FILE: dataset_info.info_json(manifest),
            dataset_info.FEATURES_FILE: dataset_info.features_json(manifest),
        }
        for name, text in documents.items():
            self._write(name, text)
        self._sweep(manifest)
        self._write(MANIFEST, manifest.to_json())

    def _sweep(self, manifest: Manifest) -> None:
        """Removes what is neither a shard of this dataset nor of use to its readers."""
        shards = {shard.name for shard in manifest.shards}
        keep = shards | {receipt_name(name) for name in shards}
        keep |= {ROUNDS_FILE, _IDENTITY_FILE}
        self.store.delete(
            name
            for name in self.store.sizes()
            if name not in keep and (not OURS.fullmatch(name) or _SHARD in name)
        )


class RemoteStaging(Staging):
    """The output itself: nothing can be renamed there, so the manifest is the commit.

    A file beside the shards says which build they belong to. There is no lock: whoever
    starts two builds into one prefix gets the files of the one that wrote last, which
    the other's manifest then does not match.
    """

    def __init__(self, output: str, identity: str):
        super().__init__(output, RemoteStore(output))
        self._identity = identity

    def hold(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def open(self) -> bool:
        there = self.store.sizes()
        if _IDENTITY_FILE not in there:
            if there:
                raise output_error(
                    f"{self.output} holds other files, such as {min(there)}.",
                    "Give --output_dir a new prefix.",
                )
            self._write(_IDENTITY_FILE, self._identity)
            return False
        if self.store.read(_IDENTITY_FILE).decode() != self._identity:
            raise output_error(
                f"{self.output} holds an unfinished build of other options or images.",
                "Give --output_dir a new prefix, or delete this one.",
            )
        return True

    def _put_in_place(self, overwrite: bool) -> None:
        """It is there already."""

    def discard(self) -> None:
        self.store.delete(self.store.sizes())


def rejected_csv(rejected: Sequence[Rejection]) -> str:
    """The unusable images as CSV, sorted by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason", "detail"))
    writer.writerows(sorted(rejected))
    return text.getvalue()


def output_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.OUTPUT)
