"""Annotation files: every accepted spelling, and one clear line for every wrong one."""

import errno
import os

import numpy as np
import pytest

from beam_pipelines.config import BuildConfig
from beam_pipelines.sources import annotations
from beam_pipelines.sources import load as sources
from schemas import celeba
from support.errors import ExitCode, UserError
from tests.faults.catalogues import SPELLINGS


def load(small, **options):
    return sources.load(BuildConfig(celeba_dir=str(small.folder), **options))


def test_values_are_parsed_in_the_official_order(small_celeba):
    table = annotations.read_attributes(small_celeba.attributes, celeba.CELEBA)
    lines = small_celeba.attributes.read_text().splitlines()[2:]
    expected = [[int(value == "1") for value in line.split()[1:]] for line in lines]
    for column in range(len(celeba.ATTRIBUTES)):
        bits = annotations.attribute_bits(table.values, column)
        assert bits.tolist() == [row[column] for row in expected]
    assert table.names.tolist() == [line.split()[0].encode() for line in lines]
    assert table.fingerprint["rows"] == 60 and not table.fingerprint["official"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings_of_the_same_file(small_celeba, name):
    expected = annotations.read_attributes(small_celeba.attributes, celeba.CELEBA)
    text = small_celeba.attributes.read_bytes()
    small_celeba.attributes.write_bytes(SPELLINGS[name](text))
    found = annotations.read_attributes(small_celeba.attributes, celeba.CELEBA)
    assert np.array_equal(found.values, expected.values)
    assert np.array_equal(found.names, expected.names)


def test_a_file_holds_zeros_or_minus_ones(small_celeba):
    lines = small_celeba.attributes.read_text().splitlines()
    lines[2] = "000001.jpg" + " 1" * 40  # says nothing of the others
    zeros = [line.replace("-1", " 0") for line in lines]
    for mixture, words in (
        (lines[:10] + zeros[10:], ":11: value '0' for .*, expected -1 or 1"),
        (zeros[:10] + lines[10:], ":4: value '0' for .*, expected -1 or 1"),
    ):
        small_celeba.attributes.write_text("\n".join(mixture))
        with pytest.raises(UserError, match=words):
            annotations.read_attributes(small_celeba.attributes, celeba.CELEBA)


def test_every_order_of_rows_joins(small_celeba):
    expected = load(small_celeba).rows
    lines = small_celeba.identity.read_text().splitlines()
    small_celeba.identity.write_text("\n".join(lines[:30:-1] + lines[:31]))
    found = load(small_celeba).rows
    assert np.array_equal(found.identities, expected.identities)


@pytest.mark.parametrize(
    "split, other", [("identity", "official"), ("official", "identity")]
)
def test_cut_file_cannot_define_a_split(small_celeba, split, other):
    path = small_celeba.identity if split == "identity" else small_celeba.partition
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    small_celeba.image(60).unlink()  # what is not there need not be named
    with pytest.raises(UserError, match=f"20 of the 59.*000021.*{other}") as caught:
        load(small_celeba, split=split)
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    assert len(load(small_celeba, split=other).rows) == 59
    if split == "identity":
        small_celeba.partition.unlink()
        with pytest.raises(UserError, match="--split=random"):
            load(small_celeba)


def test_rows_missing_from_other_files(small_celeba):
    small_celeba.edit(small_celeba.identity, "000002.jpg 1000\n", "")
    small_celeba.image(4).unlink()
    rows = load(small_celeba, split="official").rows
    assert rows.identities[:4].tolist() == [1000, -1, 1000, 1001]
    assert rows.missing.tolist() == [b"000004.jpg"] and len(rows) == 59


@pytest.mark.parametrize(
    "content, words",
    [
        ("image_id,identity,age\n1.jpg,1,2\n", ":1: 2 columns of numbers, expected 1"),
        ("image_id;identity\n1.jpg;1\n;2\n", ":3: the file name is empty or"),
        ("1.jpg 1\n" + "x" * 300 + " 2\n", ":2: the file name is empty or too long"),
        ("image_id,partition\n\n", "csv has no rows"),
        ("1.jpg,1\n2.jpg,\n", ":2: 1 words, expected 2"),
        (
            "1.jpg 1\n2.jpg 4294967296\n",
            ":2: value '4294967296' for number, expected a whole",
        ),
        ("1.jpg;1;1\n\n2.jpg;1\n", ":1: 3 words, expected 2"),
        ("1.jpg 1\n\n2.jpg\n", ":3: 1 words, expected 2"),
    ],
)
def test_wrong_numbers_are_named(tmp_path, content, words):
    path = tmp_path / "identity.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        annotations.read_numbers(path)


def test_a_wrong_count_is_read_if_it_is_allowed(small_celeba):
    small_celeba.edit(small_celeba.attributes, "60\n", "202599\n")
    with pytest.raises(UserError, match="202,599 rows, but 60 .*--allow_wrong_count"):
        load(small_celeba)
    found = load(small_celeba, allow_wrong_count=True)
    assert found.notes[0] == "list_attr_celeba.txt (announced 202,599 rows), 60 rows"
    assert len(found.rows) == 60


def test_a_partition_that_is_not_the_official_one_is_noted(small_celeba, monkeypatch):
    monkeypatch.setattr(celeba, "IMAGE_COUNT", 60)
    monkeypatch.setattr(celeba, "SPLIT_ENDS", (36, 48))
    text = small_celeba.partition.read_text()
    small_celeba.partition.write_text("\ufeff" + text)
    note = "list_eval_partition.txt: 2 rows contradict CelebA's official partition."
    assert note not in load(small_celeba, split="official").notes
    small_celeba.edit(small_celeba.partition, "000036.jpg 0", "000036.jpg 1")
    small_celeba.edit(small_celeba.partition, "000049.jpg 2", "000049.jpg 0")
    assert note in load(small_celeba, split="official").notes


def test_a_link_that_leads_nowhere_is_named(small_celeba):
    small_celeba.attributes.unlink()
    small_celeba.attributes.symlink_to(".git/annex/objects/none")
    with pytest.raises(UserError, match="list_attr.* is a link that leads nowhere"):
        load(small_celeba)


@pytest.mark.parametrize(
    "call, name",
    [
        ("stat", "celeba"),
        ("stat", "list_attr_celeba.txt"),
        ("stat", "img_align_celeba"),
        ("open", "list_attr_celeba.txt"),
        ("open", "identity_CelebA.txt"),
        ("scandir", "img_align_celeba"),
        ("listdir", "nowhere"),
    ],
)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_the_system_refuses_is_named(small_celeba, monkeypatch, call, name, code):
    original = getattr(os, call)

    def refuse(path, *rest, **options):
        if os.fsdecode(path).endswith(name):
            raise OSError(code, os.strerror(code), path)
        return original(path, *rest, **options)

    if name == "nowhere":
        small_celeba.attributes.unlink()
        small_celeba.folder = small_celeba.folder.rename(
            small_celeba.folder.with_name(name)
        )
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError) as caught:
        load(small_celeba)
    assert f"{name} cannot be read: {os.strerror(code)}." in caught.value.cause
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_missing_parts_say_what_was_looked_for_and_found(small_celeba):
    small_celeba.attributes.rename(small_celeba.folder / "attributes.txt")
    with pytest.raises(UserError, match="no list_attr_celeba.txt.*attributes.txt"):
        load(small_celeba)


def test_missing_image_folder(small_celeba):
    folder = small_celeba.folder / celeba.IMAGE_FOLDER
    folder.rename(small_celeba.folder / "images")
    with pytest.raises(UserError, match="no img_align_celeba/.*identity_CelebA.txt"):
        load(small_celeba)
    (small_celeba.folder / "archive.zip").touch()
    with pytest.raises(UserError, match="use --celeba_dir=.*/archive.zip"):
        load(small_celeba)


def test_no_split_file_offers_random(small_celeba):
    small_celeba.identity.unlink()
    small_celeba.partition.unlink()
    for split in ("identity", "official"):
        with pytest.raises(UserError, match="--split=random"):
            load(small_celeba, split=split)
    assert load(small_celeba, split="random").split == "random"


def test_official_files_are_recognized(small_celeba, monkeypatch):
    digest = annotations.read_numbers(small_celeba.identity).fingerprint["sha256"]
    monkeypatch.setitem(celeba.OFFICIAL_FILES, digest, 60)
    notes = load(small_celeba).notes
    assert "official identity_CelebA.txt, 60 rows" in notes
    assert "list_attr_celeba.txt, 60 rows" in notes
