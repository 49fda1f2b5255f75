"""Files that are complete or absent: atomic writes, checksums, locks, swap, pin."""

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar

from support.errors import ExitCode, UserError, input_error, output_error

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike, durable: bool = True) -> Iterator[BinaryIO]:
    """Opens a binary file that takes its name only when the block ends well.

    The bytes go to a temporary name in the same folder and reach the disk before the
    rename, so that after a crash `path` is the old file or the whole new one.

    Args:
      path: the file's final name.
      durable: False if the caller calls `sync_file` before it relies on the bytes to
        survive a power cut.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        # `open` honors the umask.
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (*_FULL, errno.EFBIG):
            error.filename = error.filename or str(path)  # `write` names none
        raise
    if durable:
        _remove_left(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def unfinished_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Makes a folder next to `path` for what will take its name; it goes at the end.

    What a killed process left of one goes, too.
    """
    path = Path(path)
    _remove_left(path)
    folder = _temporary(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A hidden name next to `path`: two writers of one, on any machines, stay apart."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")


def _remove_left(path: Path) -> None:
    """Removes what killed processes left of writing this file or folder."""
    unique = "[0-9a-f]" * 8
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.{unique}.*.tmp"):
        process = temporary.name.split(".")[-2]
        if process.isdecimal():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                if temporary.is_dir():
                    shutil.rmtree(temporary, ignore_errors=True)
                else:
                    temporary.unlink(missing_ok=True)
            except (OSError, OverflowError):  # it runs, or is none of ours
                continue


def is_temporary(name: str) -> bool:
    """Tells whether a name is of what a killed process left unfinished here."""
    return re.fullmatch(r"\..+\.\d+\.tmp", name) is not None


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(encode(data))


def atomic_write_all(folder: Path, documents: Mapping[str, bytes | str]) -> None:
    """Writes files that belong together; readers begin with the first one.

    If one cannot be written, all of the old ones stay. A kill may leave them without
    the first; it is never next to files of another time.
    """
    with contextlib.ExitStack() as stack:
        for name, data in documents.items():
            file = stack.enter_context(atomic_writer(folder / name))
            file.write(encode(data))
            file.flush()  # a full disk shows here, before anything is replaced
        (folder / next(iter(documents))).unlink(missing_ok=True)
        # Leaving the block, the files take their names; the first one is the last.


def encode(data: bytes | str) -> bytes:
    """Text as UTF-8; what a name in another encoding left in it is spelt out."""
    return data.encode(errors="backslashreplace") if isinstance(data, str) else data


def sync_file(path: str | os.PathLike) -> None:
    """Makes a file's bytes survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str | os.PathLike) -> None:
    """Makes renames inside `folder` survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        sync_file(folder)


def sha256_file(path: str | os.PathLike) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FolderLock:
    """One writer per folder: a context manager around a hidden file next to it.

    For the folder `out` that is `.out.celeba-lock`, a name that no other program uses:
    the file is written and removed without asking. The kernel's lock on it ends with
    its process, however that ends. The folder itself need not exist, and may be
    replaced while the lock is held.

    Raises:
      UserError: exit 4, naming the process that has the lock.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        real = Path(os.path.realpath(folder))  # links to one folder have one lock
        self.path = real.parent / f".{real.name}.celeba-lock"  # also of /

    def __enter__(self) -> "FolderLock":
        with output_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._try_to_lock():
                pass
        return self

    def __exit__(self, *_exception: object) -> None:
        # Removed while still locked: any other process that opened it sees it is gone.
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _try_to_lock(self) -> bool:
        """Locks the file; False if its last holder removed it meanwhile."""
        self._file = open(self.path, "a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read()[:300] or "another process"
            self._file.close()
            raise output_error(
                f"{self.folder} is in use by {holder}.",
                "Wait until it ends, or choose another folder.",
            ) from None
        except OSError:  # a file system without locks: there nothing is refused
            pass
        if not _is_same_file(self._file.fileno(), self.path):
            self._file.close()
            return False
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on host {socket.gethostname()}")
        self._file.flush()
        return True


def lock_existing(folder: str | os.PathLike) -> contextlib.AbstractContextManager:
    """The lock of a folder of results; none where there is no such folder.

    Reading it says that then, and no parent of a misspelt name is made. Nor is there a
    lock where only the folder itself may be written, such as one mounted at /run.
    """
    lock = FolderLock(folder)
    can_lock = Path(folder).is_dir() and os.access(lock.path.parent, os.W_OK | os.X_OK)
    return lock if can_lock else contextlib.nullcontext()


class PinnedFolder:
    """A folder to read, and no other one that takes its name while it is read.

    Its descriptor stays open until the process ends, once for each folder: a reader's
    threads may outlive every object that knows of it. What cannot be opened is not
    pinned; reading it says why.

    Attributes:
      path: the folder as it was named.
    """

    _descriptors: ClassVar[dict[tuple[int, int], int]] = {}

    def __init__(self, path: str | os.PathLike):
        self.path, self._descriptor = Path(path), -1
        with contextlib.suppress(OSError):
            opened = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
            status = os.fstat(opened)
            key = status.st_dev, status.st_ino
            self._descriptor = self._descriptors.setdefault(key, opened)
            if self._descriptor != opened:
                os.close(opened)

    @property
    def inside(self) -> Path:
        """A path to this very folder, where the system has one (Linux), for reading."""
        path = Path(f"/proc/self/fd/{self._descriptor}")
        return path if path.is_dir() else self.path

    def is_replaced(self) -> bool:
        """Tells whether the name is no longer this folder's."""
        return self._descriptor >= 0 and not _is_same_file(self._descriptor, self.path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Gives errors in the block their cause, if the folder was replaced meanwhile.

        Raises:
          UserError: exit 5, it was.
        """
        try:
            yield
        except (UserError, OSError) as error:
            if not self.is_replaced():
                raise
            raise self.replaced() from error

    def replaced(self) -> UserError:
        return UserError(
            f"{self.path} was replaced or removed while it was read.",
            "Run the same command again; it reads what is there then.",
            ExitCode.INTEGRITY,
        )


def exchange(first: str | os.PathLike, second: str | os.PathLike) -> None:
    """Swaps two folders; at no moment is either name missing where Linux can do it.

    Elsewhere three renames do it, which a crash can interrupt.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    current_folder, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if hasattr(libc, "renameat2"):
        names = os.fsencode(first), os.fsencode(second)
        failed = libc.renameat2(
            current_folder, names[0], current_folder, names[1], swap
        )
        if not failed:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), str(first), None, str(second))
    aside = f"{os.fspath(second)}.{os.getpid()}.aside"
    os.rename(second, aside)
    os.rename(first, second)
    os.rename(aside, first)


@contextlib.contextmanager
def output_errors(folder: str | os.PathLike, needed: int = 0) -> Iterator[None]:
    """Turns a full disk or another failed write into an error that can be acted on.

    Args:
      folder: where the block writes.
      needed: bytes that the whole output takes, 0 if unknown.

    Raises:
      UserError: exit 4, for every OSError of a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full_disk_error(folder, needed) from error
        # Connections fail for other reasons, as when the reader of a pipe goes away;
        # what is no error of the system, such as an unknown host, has no such number.
        if isinstance(error, ConnectionError) or error.errno not in errno.errorcode:
            raise
        cause = f"{error.filename or folder} cannot be written: {error.strerror}."
        remedy = "Choose a folder in which you may write."
        if error.errno == errno.EFBIG:
            remedy = "Raise the limit on file sizes (ulimit -f), or use another disk."
        if isinstance(error, NotADirectoryError | FileExistsError):
            path = Path(os.path.abspath(os.fsdecode(error.filename or folder)))
            file = next((part for part in (path, *path.parents) if part.is_file()), "")
            cause = f"{file} is a file, not a folder." if file else cause
        raise output_error(cause, remedy) from error


@contextlib.contextmanager
def input_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns a failed read of what the user gave into an error that can be acted on.

    Args:
      path: what the block reads, named where the error itself names nothing.

    Raises:
      UserError: exit 3, for every OSError.
    """
    try:
        yield
    except OSError as error:
        raise input_error(
            f"{os.fsdecode(error.filename or path)} cannot be read: {error.strerror}.",
            "Check its permissions and its disk, then run the same command again.",
        ) from error


def check_free_space(folder: str | os.PathLike, needed: int) -> None:
    """Refuses, before anything is written, what `folder`'s disk cannot hold.

    Raises:
      UserError: exit 4, naming the bytes needed and the bytes free.
    """
    if _free_bytes(folder) < needed:
        raise full_disk_error(folder, needed)


def full_disk_error(folder: str | os.PathLike, needed: int = 0) -> UserError:
    """The error for a full disk: what the output needs (0 = unknown), what is free."""
    need = f"{megabytes(needed)} needed, " if needed else ""
    return output_error(
        f"The disk of {folder} is full: {need}{megabytes(_free_bytes(folder))} free.",
        "Free some space or choose a folder on another disk; then run it again.",
    )


def megabytes(count: int) -> str:
    """A number of bytes for people, for example "1,376 MB"."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count:,} bytes"


def _free_bytes(folder: str | os.PathLike) -> int:
    folder = Path(os.path.abspath(folder))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
