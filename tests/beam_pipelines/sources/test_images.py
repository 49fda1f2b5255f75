"""Folders of images on this machine."""

import os

import pytest

from beam_pipelines.sources.images import FolderSource
from support.errors import ExitCode, UserError
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
