"""Faults of a build from Parquet files: killed, cut, changed."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from beam_pipelines.sources import load
from support.errors import ExitCode, UserError
from tests.beam_pipelines.conftest import make_celeba
from tests.beam_pipelines.sources.test_parquet import Copy
from tests.faults import kills, operations
from tests.faults.table import Row


def rows(every: int) -> Iterator[Row]:
    """A row for each kind of fault."""
    with tempfile.TemporaryDirectory() as folder:
        yield kills.enumerate_kills(
            operations.Trial(_BUILD, Path(folder, "build")), every
        )
    yield _damage("cut anywhere", every, lambda data, at: data[:at])
    yield _damage("a byte changed", every, _change)


def _prepare(folder: Path) -> None:
    Copy(make_celeba(folder / "source", 60)).write(folder / "celeba")


_BUILD = dataclasses.replace(
    next(
        each
        for each in operations.of_files_and_builds()
        if each.name.startswith("build into")
    ),
    name="build from Parquet files",
    # In a child: this process has no threads of pyarrow when it forks.
    prepare=lambda folder: operations.in_child(_prepare, folder),
)


def _change(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _damage(name: str, every: int, damage: Callable[[bytes, int], bytes]) -> Row:
    """Damages one of the files at 300 places; it must be refused or read."""
    lost = []
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder))
        path = next(Path(folder, "celeba").rglob("train*.parquet"))
        data = path.read_bytes()
        places = np.linspace(0, len(data) - 1, 300, dtype=int)[::every].tolist()
        for at in places:
            path.write_bytes(damage(data, at))
            try:
                with open(Path(folder, "zip"), "wb") as stream:
                    source = load.load(load.BuildConfig(celeba_dir=f"{folder}/celeba"))
                    source.images.copy(source.images.names, stream)
            except UserError as error:
                if error.exit_code != ExitCode.INPUT_DATA:
                    lost.append(f"at byte {at}: exit {error.exit_code}")
            except Exception as error:
                lost.append(f"at byte {at}: {type(error).__name__}: {error}")
    sees = "exit 3 with the file, or an image that the checks reject; no traceback"
    return Row(f"Parquet file: {name}", len(places), lost, sees)
