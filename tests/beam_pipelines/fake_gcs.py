"""A `gs://` for tests: Beam's file system interface over a local folder.

It does as Google's storage does: there are objects and prefixes but no folders, an
object appears whole when its writer is closed, and replaces what had its name. It
answers to the scheme only while `FAKE_GCS_ROOT` is set, and only in processes that
import it: builds that use it run in memory.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

ROOT = "FAKE_GCS_ROOT"
PREFIX = "gs://"


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
    """The local folder that holds the objects of `gs://bucket`."""
    for other in FileSystem.get_all_subclasses():
        if other is not FakeGcs and other.scheme() == "gs":  # the real one
            monkeypatch.setattr(other, "scheme", classmethod(lambda _: "real-gs"))
    monkeypatch.setenv(ROOT, str(tmp_path / "gcs"))
    (tmp_path / "gcs" / "bucket").mkdir(parents=True)
    return tmp_path / "gcs" / "bucket"


class FakeGcs(FileSystem):
    """Objects in `FAKE_GCS_ROOT/<bucket>/<object>`."""

    opened: list[str] = []  # every object that was opened for reading

    @classmethod
    def scheme(cls) -> str:
        return "gs" if os.environ.get(ROOT) else "fake-gs"

    def join(self, basepath: str, *paths: str) -> str:
        for path in paths:
            basepath = f"{basepath.rstrip('/')}/{path.lstrip('/')}"
        return basepath

    def split(self, path: str) -> tuple[str, str]:
        head, slash, tail = path.removeprefix(PREFIX).rpartition("/")
        return (PREFIX + head, tail) if slash else (path, "")

    def mkdirs(self, path: str) -> None:
        pass

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        root = Path(os.environ[ROOT])
        for local in sorted(root.rglob("*")):
            path = PREFIX + local.relative_to(root).as_posix()
            if local.is_file() and path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path: str, mime_type: str = "", compression_type: str = ""):
        return _Upload(_local(path))

    def open(self, path: str, mime_type: str = "", compression_type: str = ""):
        self.opened.append(path)
        return open(_local(path), "rb")

    def copy(self, source_file_names: list[str], destination_file_names: list[str]):
        for source, target in zip(
            source_file_names, destination_file_names, strict=True
        ):
            _local(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_local(source), _local(target))

    def rename(self, source_file_names: list[str], destination_file_names: list[str]):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path: str) -> bool:
        return _local(path).is_file()

    def size(self, path: str) -> int:
        return self.metadata(path).size_in_bytes

    def last_updated(self, path: str) -> float:
        return self.metadata(path).last_updated_in_seconds

    def checksum(self, path: str) -> str:
        return hashlib.md5(_local(path).read_bytes()).hexdigest()

    def metadata(self, path: str) -> FileMetadata:
        try:
            status = _local(path).stat()
        except OSError as error:
            raise BeamIOError("Metadata operation failed", {path: error}) from error
        return FileMetadata(path, status.st_size, status.st_mtime)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            found = (
                self._list(path) if path.endswith("/") else self._matching(path)
            )  # a prefix, or a pattern
            for entry in list(found):
                _local(entry.path).unlink()

    def _matching(self, path: str) -> list[FileMetadata]:
        return self.match([path])[0].metadata_list


class _Upload(io.BytesIO):
    """Bytes that become an object when they are closed."""

    def __init__(self, target: Path):
        super().__init__()
        self._target = target

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")

    def close(self) -> None:
        if not self.closed:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._target.with_name(f"{self._target.name}.{id(self)}.upload")
            temporary.write_bytes(self.getvalue())
            os.replace(temporary, self._target)
        super().close()


def _local(path: str) -> Path:
    return Path(os.environ[ROOT]) / path.removeprefix(PREFIX)
