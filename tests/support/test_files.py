"""Files are whole or absent, locks die with their process, folders swap."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from support import files
from support.errors import ExitCode, UserError


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.atomic_write(path, "old")
    files.atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a"
    files.atomic_write(path, b"old")
    with pytest.raises(ZeroDivisionError), files.atomic_writer(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_unfinished_folder_of_a_killed_process_goes_with_the_next(tmp_path):
    script = (
        "import os, sys\n"
        "from support.files import unfinished_folder\n"
        "folder = unfinished_folder(sys.argv[1])\n"
        "(folder.__enter__() / 'part').touch()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "out"], check=False)
    (left,) = tmp_path.iterdir()
    assert files.is_temporary(left.name) and (left / "part").exists()
    with files.unfinished_folder(tmp_path / "out") as folder:
        assert list(tmp_path.iterdir()) == [folder]
        with files.unfinished_folder(tmp_path / "out"):  # of a process that runs
            assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_files_that_belong_together_stay_if_one_cannot_be_written(tmp_path):
    old = {"metrics.json": "old metrics", "table.csv": "old table"}
    files.atomic_write_all(tmp_path, old)
    with pytest.raises(FileNotFoundError):
        names = [*old, "no folder/list.csv"]
        files.atomic_write_all(tmp_path, dict.fromkeys(names, "new"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old
    files.atomic_write_all(tmp_path, dict.fromkeys(old, "new"))
    assert {path.read_text() for path in tmp_path.iterdir()} == {"new"}


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae")


def test_lock_refuses_a_second_holder_and_is_removed(tmp_path):
    folder = tmp_path / "not" / "there yet"
    with files.FolderLock(folder) as lock:
        for _ in range(2):  # the refusal leaves the lock as it is
            with pytest.raises(UserError) as caught, files.FolderLock(folder):
                pass
            assert caught.value.exit_code == ExitCode.OUTPUT
            assert f"in use by process {os.getpid()} on host" in caught.value.cause
    assert not lock.path.exists()
    with files.FolderLock(folder):
        pass


def test_lock_of_a_killed_process_is_taken_over(tmp_path):
    script = (
        "import os, sys\n"
        "from support.files import FolderLock\n"
        "FolderLock(sys.argv[1]).__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "out"], check=False)
    left_behind = (tmp_path / ".out.celeba-lock").read_text()
    with files.FolderLock(tmp_path / "out") as lock:
        text = lock.path.read_text()
        assert text.startswith(f"process {os.getpid()} ") and text != left_behind


def test_a_file_that_other_programs_call_a_lock_is_left_alone(tmp_path):
    (tmp_path / "poetry.lock").write_text("dependencies")
    with files.FolderLock(tmp_path / "poetry"):
        pass
    assert os.listdir(tmp_path) == ["poetry.lock"]
    assert (tmp_path / "poetry.lock").read_text() == "dependencies"


@pytest.mark.parametrize("kernel_can_swap", [True, False])
def test_exchange_swaps_folders(tmp_path, monkeypatch, kernel_can_swap):
    if not kernel_can_swap:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").touch()
    files.exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == ["b.txt"]
    assert os.listdir(tmp_path / "b") == ["a.txt"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_full_disk_says_what_is_needed_and_what_is_free(tmp_path):
    with (
        pytest.raises(UserError, match=r"3 MB needed, [\d,]+ MB free") as caught,
        files.output_errors(tmp_path, needed=3_000_000),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == ExitCode.OUTPUT
    with pytest.raises(UserError, match="needed"):
        files.check_free_space(tmp_path / "new" / "folder", 1 << 62)
    files.check_free_space(tmp_path, 1)


def test_limit_on_file_sizes_is_no_lack_of_permission(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(UserError) as caught, files.output_errors(tmp_path):
        with files.atomic_writer(path):
            raise OSError(errno.EFBIG, "File too large")
    assert caught.value.cause == f"{path} cannot be written: File too large."
    assert "ulimit -f" in caught.value.remedy


def test_only_errors_of_files_are_output_errors(tmp_path):
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), OSError("no code")):
        with pytest.raises(type(error)), files.output_errors(tmp_path):
            raise error
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="file is a file, not a folder") as caught,
        files.output_errors(tmp_path),
    ):
        (tmp_path / "file" / "out").mkdir(parents=True)
    assert caught.value.exit_code == ExitCode.OUTPUT
