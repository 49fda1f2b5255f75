"""Folders of images on this machine."""

import os

import pytest

from support.errors import ExitCode, UserError
from support.folders import FolderSource, LocalFile
from support.images import BadImage


def test_folders_list_files_whatever_their_names(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"12")
    (tmp_path / "ä '\n.jpg").write_bytes(b"1")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb").close()
    source = FolderSource(str(tmp_path))
    listing = source.list()
    found = dict(zip(listing.names.tolist(), listing.sizes.tolist(), strict=True))
    assert found == {
        b"b.jpg": 2,
        "ä '\n.jpg".encode(): 1,
        b"link.jpg": 2,
        b"\xff.jpg": 0,
    }
    assert source.read("link.jpg") == b"12"
    with pytest.raises(BadImage) as caught:
        source.read("gone.jpg")
    assert caught.value.reason == "missing"
    with pytest.raises(UserError, match="folder.jpg cannot be read") as stopped:
        source.read("folder.jpg")
    assert stopped.value.exit_code == ExitCode.INPUT_DATA


def test_local_files_are_read_in_parts_and_closed(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    before = len(os.listdir("/dev/fd"))
    file = LocalFile(str(path))
    assert (file.name, file.size(), str(file)) == ("a.bin", 10, str(path))
    assert file.read_at(4, 3) == b"456" and file.read_at(8, 9) == b"89"
    assert len(os.listdir("/dev/fd")) == before + 1
    del file
    assert len(os.listdir("/dev/fd")) == before
