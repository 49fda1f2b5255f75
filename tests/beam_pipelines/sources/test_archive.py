"""Zip files: whatever a program wrote or a download left of them."""

import pickle
import struct
import zipfile

import pytest

from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import File
from support.errors import ExitCode, UserError
from support.images import BadImage


def make(path, members, method=zipfile.ZIP_STORED, comment=b""):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = comment
        for name, data in members:
            archive.writestr(name, data)
    return ZipSource(File(str(path)))


def found(source):
    listing = source.list()
    return dict(zip(listing.names.tolist(), listing.sizes.tolist(), strict=True))


def refuse(source, name):
    with pytest.raises(BadImage) as caught:
        source.read(name)
    return caught.value.reason


def patch(path, field, value):
    """Overwrites bytes of the first entry in the list of contents."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + field
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return ZipSource(File(str(path)))


def error_of(source):
    with pytest.raises(UserError) as caught:
        source.list()
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_by_the_last_part_of_their_paths(tmp_path, method):
    members = {f"a/b/{i}.jpg": bytes([i]) * (i * 1000) for i in range(9)}
    more = [
        ("a/", b""),
        ("__MACOSX/a/b/1.jpg", b"x"),
        ("a/b/._1.jpg", b"x"),
        ("a/.DS_Store", b"x"),
        ("../../up.jpg", b"up"),
        ("/root/abs.jpg", b"abs"),
        ("C:\\win\\back.jpg", b"back"),
        ("ü.jpg", b"name"),
        ("x" * 300 + ".jpg", b"long"),
    ]
    source = make(tmp_path / "a.zip", [*members.items(), *more], method, b"a comment")
    expected = {name[4:].encode(): len(data) for name, data in members.items()}
    expected |= {b"up.jpg": 2, b"abs.jpg": 3, b"back.jpg": 4, "ü.jpg".encode(): 4}
    assert found(source) == expected
    for copy in (source, pickle.loads(pickle.dumps(source))):
        for name, data in members.items():
            assert copy.read(name[4:]) == data
        assert copy.read("up.jpg") == b"up" and copy.read("ü.jpg") == b"name"
    assert len(pickle.dumps(source)) < 300
    assert refuse(source, "no.jpg") == "missing"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_one_name_in_two_folders_is_ambiguous(tmp_path):
    texts = [("a/readme.txt", b"1"), ("b/readme.txt", b"2")]
    assert found(make(tmp_path / "a.zip", texts)) == {b"readme.txt": 1}
    images = [("a/1.jpg", b"1"), ("b/1.jpg", b"2")]
    assert "a/1.jpg and b/1.jpg" in error_of(make(tmp_path / "b.zip", images))


def test_names_without_a_stated_encoding(tmp_path):
    path = tmp_path / "a.zip"
    make(path, [("ü/ü.jpg", b"data")])
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(header) + flags
        data[at : at + 2] = b"\0\0"
    path.write_bytes(data)
    source = ZipSource(File(str(path)))
    assert found(source) == {"ü.jpg".encode(): 4} and source.read("ü.jpg") == b"data"


@pytest.mark.parametrize(
    "field, value, reason",
    [
        (16, struct.pack("<L", 0), "damaged"),
        (20, struct.pack("<L", 64_000_001), "too large"),
        (20, struct.pack("<L", 20), "damaged"),
        (24, struct.pack("<L", 64_000_001), "too large"),
        (24, struct.pack("<L", 9), "damaged"),
        (24, struct.pack("<L", 11_000), "damaged"),
        (42, struct.pack("<L", 1), "damaged"),
        (42, struct.pack("<L", 0xFFFFFFF0), "damaged"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_wrong_members_are_refused(tmp_path, method, field, value, reason):
    path = tmp_path / "a.zip"
    make(path, [("1.jpg", bytes(10_000)), ("2.jpg", b"fine")], method)
    source = patch(path, field, value)
    source.list()
    assert refuse(source, "1.jpg") == reason
    assert source.read("2.jpg") == b"fine"


def test_a_zip_bomb_takes_no_memory(tmp_path):
    """The entry promises 4 bytes, the data unpack to 50 MB."""
    import tracemalloc

    path = tmp_path / "a.zip"
    make(path, [("1.jpg", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    source = patch(path, 24, struct.pack("<L", 4))
    tracemalloc.start()
    assert refuse(source, "1.jpg") == "damaged"
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_part_of_a_zip_file_is_refused(tmp_path):
    make(tmp_path / "a.zip", [("1.jpg", b"data")])
    assert "several parts" in error_of(patch(tmp_path / "a.zip", 34, b"\1"))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"  <html>sign in", "but a web page"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive. Unpack it"),
        (b"\x1f\x8b\x08" + bytes(99), "a gzip archive. Unpack it"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive. Unpack it"),
        (b"<html>Virus scan warning", "'Virus scan warning' page. Download"),
        (bytes(300), "is not a zip file but something else"),
    ],
)
def test_other_files_are_named(tmp_path, content, words):
    (tmp_path / "a.zip").write_bytes(content)
    assert words in error_of(ZipSource(File(str(tmp_path / "a.zip")), 10**9))


def test_every_cut_is_found(tmp_path):
    path = tmp_path / "a.zip"
    make(path, [(f"{i}.jpg", b"data") for i in range(3)])
    data = path.read_bytes()
    for length in range(4, len(data)):
        path.write_bytes(data[:length])
        source = ZipSource(File(str(path)), 5_000_000)
        assert f"is cut: {length} bytes of 5 MB" in error_of(source)
    path.write_bytes(data[:-22])
    whole = ZipSource(File(str(path)))
    assert "without the list of contents" in error_of(whole)
    start = data.index(b"PK\1\2")
    path.write_bytes(data[:start] + data[start + 20 :])
    assert "is damaged" in error_of(ZipSource(File(str(path))))
    path.write_bytes(data[: start + 60] + data[start + 80 :])
    assert "is damaged" in error_of(ZipSource(File(str(path))))


def test_replaced_file_is_read_again(tmp_path):
    path = tmp_path / "a.zip"
    assert make(path, [("1.jpg", b"old")]).read("1.jpg") == b"old"
    path.unlink()
    assert make(path, [("1.jpg", b"newer")]).read("1.jpg") == b"newer"
    with pytest.raises(UserError, match="cannot be read"):
        ZipSource(File(str(tmp_path / "none.zip"))).list()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip64_behind_another_file(tmp_path, monkeypatch, method):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 20)  # larger numbers become ZIP64
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" * 9)
    with zipfile.ZipFile(path, "a", method) as archive:
        for index in range(5):
            archive.writestr(f"a/{index}.jpg", bytes([index]) * index * 10)
    assert b"PK\x06\x06" in path.read_bytes()
    source = ZipSource(File(str(path)))
    assert found(source) == {f"{i}.jpg".encode(): i * 10 for i in range(5)}
    assert [source.read(f"{i}.jpg")[:1] for i in range(1, 5)] == [
        b"\1",
        b"\2",
        b"\3",
        b"\4",
    ]
