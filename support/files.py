"""Files that are whole or absent: atomic writes, checksums, a lock, a swap."""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from support.errors import ExitCode, UserError

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
    # The process id keeps two writers of one path apart; `open` honors the umask.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


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
    """One writer per folder: a context manager around a hidden file beside it.

    For the folder `out` that is `.out.celeba-lock`, a name that no other program uses:
    the file is written and removed without asking. It names host and process. The
    kernel's lock on it dies with its process, so what a killed process of this host
    left is taken over. The folder itself need not exist, and may be replaced while
    the lock is held.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        absolute = Path(os.path.abspath(folder))
        self.path = absolute.with_name(f".{absolute.name}.celeba-lock")
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        with output_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while self._descriptor is None:
                self._descriptor = self._try_to_lock()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._descriptor is not None:
            # Removed while still locked: who opened it meanwhile sees that it is gone.
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _try_to_lock(self) -> int | None:
        """Returns the locked file, None if it vanished meanwhile, or refuses."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            kernel_locks = _flock(descriptor)
            holder = _read_holder(descriptor)
            here = holder.get("host") == socket.gethostname()
            if kernel_locks is None:  # a file system without locks: ask for the process
                held = here and _is_alive(holder.get("pid"))
            else:
                held = not kernel_locks
            if held or (holder and not here):
                raise self._refusal(holder, here)
            if not _is_same_file(descriptor, self.path):
                os.close(descriptor)
                return None
            text = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise

    def _refusal(self, holder: dict, here: bool) -> UserError:
        who = f"process {holder.get('pid', '?')} on host {holder.get('host', '?')}"
        remedy = "Wait until it ends, or choose another folder."
        if holder and not here:
            remedy = f"If it no longer runs there, delete {self.path}."
        return UserError(f"{self.folder} is in use by {who}.", remedy, ExitCode.OUTPUT)


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
        if isinstance(error, NotADirectoryError | FileExistsError):
            path = Path(os.path.abspath(os.fsdecode(error.filename or folder)))
            file = next((part for part in (path, *path.parents) if part.is_file()), "")
            cause = f"{file} is a file, not a folder." if file else cause
        raise UserError(
            cause, "Choose a folder in which you may write.", ExitCode.OUTPUT
        ) from error


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
        raise UserError(
            f"{os.fsdecode(error.filename or path)} cannot be read: {error.strerror}.",
            "Check its permissions and its disk, then run the same command again.",
            ExitCode.INPUT_DATA,
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
    return UserError(
        f"The disk of {folder} is full: {need}{megabytes(_free_bytes(folder))} free.",
        "Free some space or choose a folder on another disk; then run it again.",
        ExitCode.OUTPUT,
    )


def megabytes(count: int) -> str:
    """A number of bytes for people, for example "1,376 MB"."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count:,} bytes"


def _free_bytes(folder: str | os.PathLike) -> int:
    folder = Path(os.path.abspath(folder))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _flock(descriptor: int) -> bool | None:
    """True if we got the kernel's lock, False if another has it, None if none exist."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _read_holder(descriptor: int) -> dict:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # empty, or cut by a crash
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
