"""The chain of hashes from sources to exports: what is recorded, and whether it holds.

A manifest holds the hashes of the annotation files, images and shards, and its own
digest over them; run.json names that digest and the sha256 of best.keras; the JSON file
next to an export names both and the sha256 of the export. This finds damage and
mix-ups; it is no signature.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from schemas import manifest as manifest_schema
from schemas.manifest import Manifest
from support.documents import MOST_JSON_BYTES, DocumentError, read_json, read_text
from support.errors import ExitCode, UserError, input_error
from support.files import input_errors, sha256_file
from trainer.runs import BEST
from trainer.runs.record import Export, RunRecord, read_run


def model_sha256(run: RunRecord) -> str | None:
    """The recorded sha256 of best.keras; None before the run's end."""
    return run.get("files", {}).get(BEST)


def find_exports(run_dir: Path, named: Sequence[str] = ()) -> dict[Path, Export]:
    """Finds exports in a run folder, one folder down too, and those that are named.

    Args:
      run_dir: the run's folder.
      named: paths of exported files; each has a JSON file next to it, `PATH.json`.

    Returns:
      Path of the exported file -> what its JSON file says.

    Raises:
      UserError: a named one has no such file, or it is damaged (exit 3), or the export
        was made from another model (exit 5).
    """
    found = {}
    model = model_sha256(read_run(run_dir))
    for path in sorted([*run_dir.glob("*.json"), *run_dir.glob("*/*.json")]):
        record = _read_export(path)
        if isinstance(record, dict) and record["model_sha256"] == model:
            found[path.with_suffix("")] = record
    for path in map(Path, named):
        record = _read_export(path_of(path))
        if isinstance(record, str):
            remedy = "Name a file that `python -m trainer.export` wrote."
            raise UserError(record, remedy, ExitCode.INPUT_DATA)
        if record["model_sha256"] != model:
            raise UserError(
                f"{path} was not exported from {run_dir / BEST}: their sha256 differ.",
                "Name the run that it was exported from.",
                ExitCode.INTEGRITY,
            )
        found[path] = record
    return found


def path_of(export: Path) -> Path:
    """The path of the JSON file next to an export."""
    return export.with_name(f"{export.name}.json")


def is_record(path: Path) -> bool:
    """Whether a file is what `python -m trainer.export` wrote next to an export."""
    return isinstance(_read_export(path), dict)


def _read_export(path: Path) -> Export | str:
    """The JSON file of an export, or why it is none."""
    try:
        record = read_json(path, Export)
    except DocumentError as error:
        return error.at(path)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    if path.name != f"{record['file']}.json":
        return f"{path} is about {record['file']!r}."
    return record


def dataset_manifest(folder: Path) -> Manifest:
    """Reads a dataset's manifest; the shards are not checked.

    Raises:
      UserError: missing, unfinished or not readable (exit 3); damaged or foreign (5).
    """
    path = folder / manifest_schema.FILE_NAME
    with input_errors(path):
        try:
            return Manifest.from_json(read_text(path, MOST_JSON_BYTES))
        except (FileNotFoundError, NotADirectoryError) as error:
            problem = "is not a directory"
            if folder.is_dir():
                problem = f"has no {path.name}"
            raise input_error(
                f"{folder} is no finished dataset: it {problem}.",
                "Build one with `python -m beam_pipelines.build --output_dir="
                f"{folder}`, or name another with --data_dir.",
            ) from error
        except DocumentError as error:
            remedy = "Build the dataset again."
            raise UserError(error.at(path), remedy, ExitCode.INTEGRITY) from error


def verify(
    run_dir: Path,
    dataset: Manifest | None = None,
    exports: Mapping[Path, Export] | None = None,
) -> Iterator[str]:
    """Recomputes every hash that is at hand, from the first link to the last.

    Args:
      run_dir: the run's folder.
      dataset: the manifest of the dataset, whose shards were checked against it.
      exports: see `find_exports`.

    Yields:
      A line for each link that holds.

    Raises:
      UserError: a file is missing (exit 3); a link does not hold (exit 5).
    """
    exports, run = exports or {}, read_run(run_dir)
    digest, recorded = run.get("manifest_digest"), model_sha256(run)
    if dataset:
        if dataset.digest != digest:
            raise _broken("The data are not the dataset that the run was trained on")
        yield f"dataset: manifest {digest}, {len(dataset.shards)} shards"
    copy = run_dir / manifest_schema.FILE_NAME
    if copy.exists():
        if _digest_of(run_dir) != digest:
            raise _broken(f"{copy} is not the manifest that the run was trained on")
        yield f"{copy}: manifest {digest}"
    if recorded is None:
        raise UserError(
            f"{run_dir} holds no finished run.",
            "Train it to its end first.",
            ExitCode.INPUT_DATA,
        )
    for path, sha256 in {
        run_dir / BEST: recorded,
        **{path: record["sha256"] for path, record in exports.items()},
    }.items():
        with input_errors(path):
            found = sha256_of(path)
        if found != sha256:
            raise _broken(f"{path} was changed: its sha256 is {found}, not {sha256}")
        if path in exports and exports[path]["manifest_digest"] != digest:
            raise _broken(f"{path} names another dataset than the run")
        yield f"{path}: sha256 {sha256}"


def _digest_of(folder: Path) -> str | None:
    """The digest of a folder's manifest; None of a damaged one."""
    try:
        return dataset_manifest(folder).digest
    except UserError as error:
        if error.exit_code != ExitCode.INTEGRITY:
            raise
    return None


def sha256_of(path: Path) -> str:
    """The sha256 of a file, or of a folder.

    That of a folder is over what `sha256sum` prints of its files:
    find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum
    """
    if not path.is_dir():
        return sha256_file(path)
    inside = (file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for name in sorted(os.fsencode(file.relative_to(path)) for file in inside):
        line = f"{sha256_file(path / os.fsdecode(name))}  ./".encode() + name + b"\n"
        digest.update(line)
    return digest.hexdigest()


def _broken(what: str) -> UserError:
    return UserError(
        f"{what}.", "Restore it from a copy, or make it again.", ExitCode.INTEGRITY
    )
