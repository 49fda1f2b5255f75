"""The chain of hashes from sources to exports: what is recorded, and whether it holds.

A manifest holds the hashes of the annotation files, images and shards, and its own
digest over them; run.json names that digest and the sha256 of best.keras; the JSON file
beside an export names both and the sha256 of the export. This finds damage and
mix-ups; it is no signature.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas import manifest as manifest_schema
from schemas.manifest import Manifest, ManifestError
from support.documents import (
    DocumentError,
    Maybe,
    is_file_name,
    is_number,
    is_sha256,
    read_json,
    read_text,
)
from support.errors import ExitCode, UserError
from support.files import sha256_file
from trainer.runs import run_record

_EXPORT_SHAPE = {
    "format": str,
    "file": is_file_name,
    "sha256": is_sha256,
    "model_sha256": is_sha256,
    "manifest_digest": str,
    "attribute": str,
    "largest_difference": Maybe(is_number),
}


def find_exports(run_dir: Path, named: Sequence[str] = ()) -> dict[Path, dict]:
    """The exports in a run folder, one folder down too, and those that are named.

    Args:
      run_dir: the run's folder.
      named: paths of exported files; each has a JSON file beside it, `PATH.json`.

    Returns:
      Path of the exported file -> what its JSON file says.

    Raises:
      UserError: a named one has no such file, or it is damaged (exit 3), or the export
        was made from another model (exit 5).
    """
    found = {}
    model = run_record.read(run_dir).get("files", {}).get(run_record.BEST)
    for path in sorted([*run_dir.glob("*.json"), *run_dir.glob("*/*.json")]):
        try:
            record = read_json(path, _EXPORT_SHAPE)
        except (DocumentError, OSError):
            continue  # another program's file
        if path.name == f"{record['file']}.json" and record["model_sha256"] == model:
            found[path.with_suffix("")] = record
    for name in named:
        path, record = _read_export(Path(name))
        if record["model_sha256"] != model:
            raise UserError(
                f"{path} was not exported from {run_dir / run_record.BEST}: their "
                "sha256 differ.",
                "Name the run that it was exported from.",
                ExitCode.INTEGRITY,
            )
        found[path] = record
    return found


def is_record(path: Path) -> bool:
    """Whether a file is what `python -m trainer.export` wrote beside an export."""
    try:
        read_json(path, _EXPORT_SHAPE)
    except (DocumentError, OSError):
        return False
    return True


def _read_export(path: Path) -> tuple[Path, dict]:
    beside = path.with_name(f"{path.name}.json")
    try:
        record = read_json(beside, _EXPORT_SHAPE)
        if record["file"] != path.name:
            raise DocumentError(f"is about {record['file']!r}.")
        return path, record
    except DocumentError as error:
        cause = error.at(beside)
    except OSError as error:
        cause = f"{beside} cannot be read: {error.strerror}."
    raise UserError(
        cause, "Name a file that `python -m trainer.export` wrote.", ExitCode.INPUT_DATA
    )


def read_manifest(folder: Path, digest: str | None) -> Manifest | None:
    """The manifest in a folder, if it is there and has this digest."""
    path = folder / manifest_schema.FILE_NAME
    try:
        manifest = Manifest.from_json(read_text(path))
    except (OSError, DocumentError, ManifestError):
        return None
    return manifest if manifest.digest == digest else None


def verify(
    run_dir: Path, data_dir: str | None = None, exports: Mapping[Path, Any] = ()
) -> Iterator[str]:
    """Recomputes every hash that is at hand, from the first link to the last.

    Args:
      run_dir: the run's folder.
      data_dir: of the dataset; None: not at hand.
      exports: see `find_exports`.

    Yields:
      a line for each link that holds.

    Raises:
      UserError: a file is missing (exit 3); a link does not hold (exit 5).
    """
    run = run_record.read(run_dir)
    digest = run.get("manifest_digest")
    if data_dir:
        # Here, because without data no TensorFlow is needed.
        import trainer.quiet  # noqa: F401, I001 - before anything imports TensorFlow
        from trainer.data import open_dataset

        # Opening checks every shard.
        manifest = open_dataset(data_dir, needed=()).manifest
        if manifest.digest != digest:
            raise _broken(f"{data_dir} is not the dataset that the run was trained on")
        yield f"{data_dir}: manifest {digest}, {len(manifest.shards)} shards"
    copy = run_dir / manifest_schema.FILE_NAME
    if copy.exists():
        if read_manifest(run_dir, digest) is None:
            raise _broken(f"{copy} is not the manifest that the run was trained on")
        yield f"{copy}: manifest {digest}"
    best = run_dir / run_record.BEST
    recorded = run.get("files", {}).get(run_record.BEST)
    if recorded is None:
        raise UserError(
            f"{run_dir} holds no finished run.",
            "Train it to its end first.",
            ExitCode.INPUT_DATA,
        )
    _check(best, recorded)
    yield f"{best}: sha256 {recorded}"
    for path, record in dict(exports).items():
        _check(path, record["sha256"])
        if record["manifest_digest"] != digest:
            raise _broken(f"{path} names another dataset than the run")
        yield f"{path}: sha256 {record['sha256']}"


def sha256_of(path: Path) -> str:
    """The sha256 of a file, or of a folder.

    That of a folder is over what `sha256sum` prints of its files:
    find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum
    """
    if not path.is_dir():
        return sha256_file(path)
    inside = [file for file in path.rglob("*") if file.is_file()]
    names = sorted(os.fsencode(file.relative_to(path).as_posix()) for file in inside)
    lines = [
        f"{sha256_file(path / os.fsdecode(name))}  ./".encode() + name + b"\n"
        for name in names
    ]
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _check(path: Path, expected: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}.",
            "Restore it from a copy.",
            ExitCode.INPUT_DATA,
        ) from error
    if found != expected:
        raise _broken(f"{path} was changed: its sha256 is {found}, not {expected}")


def _broken(what: str) -> UserError:
    return UserError(
        f"{what}.", "Restore it from a copy, or make it again.", ExitCode.INTEGRITY
    )
