"""Parquet files as on Hugging Face give the same shards as a folder of the images."""

import io
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from beam_pipelines import convert
from beam_pipelines.config import BuildConfig
from beam_pipelines.sources import load as sources
from beam_pipelines.sources import parquet, parquet_file
from beam_pipelines.writing import copies
from schemas import celeba
from support import command
from support.errors import ExitCode, UserError
from support.images import decode_rgb, png_to_jpeg
from tests.beam_pipelines.conftest import jpeg
from tests.beam_pipelines.fake_gcs import bucket  # noqa: F401  a fixture

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SPLITS = {"train": slice(0, 36), "validation": slice(36, 48), "test": slice(48, 60)}
IN_DATA = "data/{}-00000-of-00001-0f1e2d.parquet"


class Copy:
    """A small CelebA's rows as columns, and a way to write them by split."""

    def __init__(self, small):
        lines = [line.split() for line in small.attributes.read_text().splitlines()]
        people = [line.split()[1] for line in small.identity.read_text().splitlines()]
        names = [words[0] for words in lines[2:]]
        files = [small.image(number + 1).read_bytes() for number in range(60)]
        images = [
            {"bytes": data, "path": name}
            for data, name in zip(files, names, strict=True)
        ]
        self.columns = {
            "image": pa.array(images, STRUCT),
            "prompt": pa.array(["a face"] * 60),
            "celeb_id": pa.array(map(int, people)),
        }
        for index, name in enumerate(celeba.ATTRIBUTES, 1):
            self.columns[name] = pa.array([row[index] == "1" for row in lines[2:]])

    @property
    def images(self):
        return self.columns["image"].to_pylist()

    def set_images(self, change):
        """Replaces each image's bytes and path by what `change` makes of them."""
        rows = [change(row["bytes"], row["path"]) for row in self.images]
        rows = [
            None if row is None else dict(zip(STRUCT.names, row, strict=True))
            for row in rows
        ]
        self.columns["image"] = pa.array(rows, STRUCT)

    def write(self, folder, pattern=IN_DATA, rows_per_group=7, **options):
        for split, rows in SPLITS.items():
            path = folder / pattern.format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = {name: column[rows] for name, column in self.columns.items()}
            pq.write_table(pa.table(part), path, rows_per_group, **options)
        return folder


@pytest.fixture
def hf_copy(small_celeba):
    return Copy(small_celeba)


def load(location, **options):
    return sources.load(BuildConfig(celeba_dir=str(location), **options))


def refused(location, words, **options):
    with pytest.raises(UserError, match=words) as caught:
        load(location, **options)
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def to_png(data, mode="RGB"):
    stream = io.BytesIO()
    Image.fromarray(decode_rgb(data)).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def signs(low, kind):
    def change(column):
        values = [1 if value else low for value in column.to_pylist()]
        return pa.array(values, kind)

    return change


@pytest.mark.parametrize(
    "pattern, attributes, identity, plain",
    [
        (IN_DATA, None, "celeb_id", False),
        ("img_align+identity+attr/{}/0000.parquet", signs(-1, pa.int64()), "", False),
        ("all/{}-00000-of-00019.parquet", signs(0, pa.int8()), "identity", False),
        ("{}.parquet", signs(0, pa.uint8()), "celeb_id", True),
    ],
)
def test_shards_are_those_of_the_folder(
    builder, small_celeba, hf_copy, tmp_path, pattern, attributes, identity, plain
):
    """Whatever the layout and types: all bytes are equal, and no copy is left."""
    flags = ["--num_examples=40", "--split=official" if not identity else "--seed=3"]
    folder = tmp_path / "hf"
    for name in celeba.ATTRIBUTES if attributes else ():
        hf_copy.columns[name] = attributes(hf_copy.columns[name])
    people = hf_copy.columns.pop("celeb_id")
    if identity:
        hf_copy.columns[identity] = people
    else:
        small_celeba.identity.unlink()
    if plain:  # bytes have no path, so names are made up
        files = pa.array([row["bytes"] for row in hf_copy.images])
        hf_copy.columns["image"] = files
        rename_to_made_up(small_celeba)
    assert builder(*flags) == ExitCode.OK
    expected = builder.manifest
    builder.celeba_dir = hf_copy.write(folder, pattern)
    builder.output = tmp_path / "again"
    assert builder(*flags) == ExitCode.OK
    assert builder.manifest.shards == expected.shards
    assert builder.manifest.config == expected.config
    assert {"attributes", "images"} <= set(builder.manifest.sources)
    assert not list(builder.output.glob("*images-*"))
    assert not list(tmp_path.glob("*building*"))


def rename_to_made_up(small):
    """Renames images, and in the lists, to SPLIT-ROW.jpg."""
    texts = [small.attributes, small.partition, small.identity]
    for split, rows in SPLITS.items():
        for row, number in enumerate(range(rows.start + 1, rows.stop + 1)):
            old, new = small.image(number), f"{split}-{row}.jpg"
            for path in texts:
                path.write_text(path.read_text().replace(f"{old.name} ", f"{new} "))
            old.rename(old.with_name(new))


def test_planning_reads_no_image(builder, hf_copy, tmp_path, capsys):
    """The plan is made though every image is destroyed; copying names the file."""
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    for path in builder.celeba_dir.rglob("*.parquet"):
        data, groups = bytearray(path.read_bytes()), pq.read_metadata(path)
        for group in range(groups.num_row_groups):
            column = groups.row_group(group).column(0)
            assert column.path_in_schema == "image.bytes"
            start = column.dictionary_page_offset or column.data_page_offset
            data[start : start + column.total_compressed_size] = (
                b"\xff" * column.total_compressed_size
            )
        path.write_bytes(data)
    assert builder("--dry_run") == ExitCode.OK
    assert "3 Parquet file(s)" in capsys.readouterr().out
    assert builder() == ExitCode.INPUT_DATA
    assert re.search(r"\.parquet is damaged: .*\n", capsys.readouterr().err)
    assert not builder.output.exists()


def test_only_row_groups_with_selected_images_are_read(hf_copy, tmp_path, monkeypatch):
    source = parquet.find(str(hf_copy.write(tmp_path / "hf", rows_per_group=6)))
    chosen = np.array([b"000002.jpg", b"000020.jpg", b"000050.jpg"])
    groups = []
    original = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda file, size, rows, *args, **options: (
            groups.append(rows) or original(file, size, rows, *args, **options)
        ),
    )
    stream = io.BytesIO()
    assert source.copy(chosen, stream) == []
    assert groups == [[0], [3], [0]]
    with zipfile.ZipFile(stream) as archive:
        assert {info.filename for info in archive.infolist()} == {
            name.decode() for name in chosen
        }
        assert all(
            info.compress_type == zipfile.ZIP_STORED for info in archive.infolist()
        )
        assert archive.read("000020.jpg") == hf_copy.images[19]["bytes"]
    monkeypatch.setattr(parquet_file, "_ROWS", 2)
    batches = source.parts[0].images(np.arange(36) == 5)
    assert [[row for row, _ in batch] for batch in batches] == [[5]]  # none is empty


def test_png_images_are_encoded_once_more_and_this_is_recorded(
    builder, hf_copy, tmp_path, capsys
):
    """Names end as in the official lists; color, gray, palette and orientation stay."""
    modes = ["RGB", "L", "P", "RGBA"]
    hf_copy.set_images(
        lambda data, path: (to_png(data, modes[int(path[:6]) % 4]), path[:6] + ".png")
    )
    first = hf_copy.images[0]["bytes"]  # one in test is copied, but then excluded
    hf_copy.set_images(lambda data, path: (first if "60" in path else data, path))
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    assert builder("--split=official", "--balance=none") == ExitCode.OK
    assert read_rejected(builder) == {"000060.jpg": "duplicate"}
    encoded = builder.manifest.sources["encoded_again"]
    count = sum(shard.records for shard in builder.manifest.shards)
    assert encoded == {
        "images": count,
        "from": "PNG",
        "to": "JPEG, quality 95, subsampling 4:4:4",
    }
    assert f"{count} PNG images encoded as JPEG, quality 95" in capsys.readouterr().out
    page = (builder.output / "report.html").read_text()
    assert "JPEG, quality 95, subsampling 4:4:4" in page
    images = dict(zip(load(builder.celeba_dir).rows.names, hf_copy.images, strict=True))
    data = png_to_jpeg(images[b"000004.jpg"]["bytes"])
    original = Image.open(io.BytesIO(images[b"000004.jpg"]["bytes"])).convert("RGB")
    difference = decode_rgb(data).astype(int) - np.asarray(original)
    assert abs(difference).mean() < 2
    for mode in ("L", "LA"):
        gray = png_to_jpeg(to_png(data, mode))
        assert Image.open(io.BytesIO(gray)).mode == "L"


def test_png_images_that_cannot_be_encoded_stay_as_they_are():
    whole = to_png(jpeg(1))
    for data in (
        whole[:-200],
        b"\x89PNG",
        whole.replace(b"IDAT", b"IDAX"),
        to_png(jpeg(1), "I;16"),
        png_of_16_bits(),
        png_with_alpha(),
        b"GIF89a",
    ):
        assert png_to_jpeg(data) is data
    turned = Image.open(io.BytesIO(whole))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "PNG", exif=exif)
    assert decode_rgb(png_to_jpeg(stream.getvalue())).shape == (20, 24, 3)


def png_of_16_bits():
    """In color, which Pillow reads as 8 bits without a word, and cannot write."""
    header, rows = struct.pack(">LLBBBBB", 8, 8, 16, 2, 0, 0, 0), bytes(49) * 8
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(chunk) - 4) + chunk + struct.pack(">L", zlib.crc32(chunk))
        for chunk in chunks
    )


def png_with_alpha():
    stream = io.BytesIO()
    image = Image.open(io.BytesIO(jpeg(1))).convert("RGBA")
    image.putalpha(100)
    image.save(stream, "PNG")
    return stream.getvalue()


def test_replacements_are_copied_in_a_later_pass(builder, small_celeba, tmp_path):
    """Bad images have the reason of their kind; shards are those of the folder."""
    truncated = small_celeba.image(9).read_bytes()[:300]
    bad = {3: b"", 4: to_png(jpeg(5))[:-200], 9: truncated, 10: b"<html>"}
    for number, data in bad.items():
        small_celeba.image(number).write_bytes(data)
    hf_copy = Copy(small_celeba)
    hf_copy.set_images(lambda data, path: (data or None, path))
    flags = ["--num_examples=50", "--max_bad_fraction=0.5"]
    assert builder(*flags) == ExitCode.OK
    expected, rejected = builder.manifest, read_rejected(builder)
    assert rejected["000004.jpg"] == "not a JPEG" and "empty" in rejected.values()
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    assert builder(*flags, "--overwrite") == ExitCode.OK
    assert builder.manifest.shards == expected.shards
    assert read_rejected(builder) == rejected


def read_rejected(builder):
    """Name -> reason."""
    lines = (builder.output / "rejected.csv").read_text().splitlines()[1:]
    return dict(line.split(",")[:2] for line in lines)


@pytest.mark.slow
def test_too_many_bad_images_end_a_build_that_can_be_repeated(
    builder, hf_copy, tmp_path, capsys
):
    """Copies are used again, but not those of files that were replaced since."""
    good, options = hf_copy.columns["image"], {"write_statistics": False}
    options |= {"compression": "none", "use_dictionary": False}
    hf_copy.set_images(lambda data, path: (b"x" * len(data), path))
    folder = hf_copy.write(tmp_path / "hf", **options)
    footers = [part.footer for part in parquet.find(str(folder)).parts]
    builder.celeba_dir = folder
    assert builder("--num_examples=40") == ExitCode.INPUT_DATA
    assert "not a JPEG 40" in capsys.readouterr().err
    assert builder("--num_examples=40") == ExitCode.INPUT_DATA
    assert "copying" not in capsys.readouterr().out
    hf_copy.columns["image"] = good
    hf_copy.write(folder, **options)
    assert footers == [part.footer for part in parquet.find(str(folder)).parts]
    assert builder("--num_examples=40") == ExitCode.OK
    out = capsys.readouterr().out
    assert "continuing the unfinished build" in out and "copying 40 images" in out
    assert not list(tmp_path.glob("out.building-*"))


def test_other_annotation_files_fill_in_what_is_missing(
    small_celeba, hf_copy, tmp_path
):
    expected = load(small_celeba.folder).rows
    folder = tmp_path / "hf"
    del hf_copy.columns["celeb_id"]
    hf_copy.write(folder)
    found = load(folder)
    assert found.split == "official"
    assert any("official split is used" in note for note in found.notes)
    small_celeba.identity.rename(folder / celeba.IDENTITY_FILE)
    found = load(folder)
    assert found.split == "identity"
    assert (found.rows.identities == expected.identities).all()
    assert (found.rows.attributes == expected.attributes).all()
    for name in celeba.ATTRIBUTES:
        del hf_copy.columns[name]
    hf_copy.write(folder)
    refused(folder, "of 40 attributes 40 are missing, such as 5_o_Clock_Shadow")
    small_celeba.attributes.rename(folder / celeba.ATTRIBUTES_FILE)
    assert (load(folder).rows.attributes == expected.attributes).all()


def test_a_partition_file_counts_next_to_files_of_one_split(
    small_celeba, hf_copy, tmp_path
):
    folder = tmp_path / "hf"
    folder.mkdir()
    pq.write_table(pa.table(hf_copy.columns), folder / "train-0.parquet")
    assert set(load(folder, split="official").rows.official) == {0}
    small_celeba.partition.rename(folder / celeba.PARTITION_FILE)
    counts = np.bincount(load(folder, split="official").rows.official)
    assert counts.tolist() == [36, 12, 12]


def test_names_are_the_last_parts_of_paths(hf_copy, tmp_path):
    paths = ["/a/b/000001.png", r"C:\x\000002.JPG", "000003", "d/", None, "v1.2"]
    rows = iter([*paths, *(f"{number}.jpeg" for number in range(54))])
    hf_copy.set_images(lambda data, _: (data, next(rows)))
    in_bytes = pa.struct([("bytes", pa.binary()), ("path", pa.binary())])
    hf_copy.columns["image"] = hf_copy.columns["image"].cast(in_bytes)
    names = load(hf_copy.write(tmp_path / "hf")).rows.names[:7].tolist()
    assert names == [
        *(b"000001.jpg", b"000002.jpg", b"000003.jpg"),
        *(b"train-3.jpg", b"train-4.jpg", b"v1.2.jpg", b"0.jpg"),
    ]
    for path in (".hidden.jpg", "a\0.jpg", "x" * 252 + ".jpg"):
        rows = iter([path, *(f"{number}.jpg" for number in range(59))])
        hf_copy.set_images(lambda data, _, rows=rows: (data, next(rows)))
        refused(
            hf_copy.write(tmp_path / "hf"), "train.*row 0: .*expected a file's path"
        )


def damage_names(hf_copy):
    hf_copy.set_images(lambda data, path: (data, f"{(int(path[:6]) - 1) % 40}.jpg"))


def set_value(name, row, value, kind=None):
    def damage(hf_copy):
        values = hf_copy.columns[name].to_pylist()
        values = values if kind is None else list(map(int, values))
        values[row] = value
        hf_copy.columns[name] = pa.array(values, kind)

    return damage


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda c: c.columns.pop("image"), "no column image, but prompt, celeb_id, 5_"),
        (lambda c: c.columns.pop("Male"), "1 are missing, such as Male. Give"),
        (damage_names, r"called 0.jpg, in .*train-.* and .*validation-"),
        (set_value("Male", 40, None), "validation.*row 4: nothing for Male, expected"),
        (
            set_value("Male", 1, 2, pa.int32()),
            "train.*row 1: 2 for Male, expected -1 t",
        ),
        (set_value("Male", 1, -1, pa.int32()), "both -1 .*and 0"),
        (set_value("celeb_id", 59, None), "test.*row 11: nothing for celeb_id"),
        (set_value("celeb_id", 0, -1), "row 0: -1 for celeb_id, expected 0 to"),
        (
            lambda c: c.columns.update(Young=pa.array(["1"] * 60)),
            "the column Young is of the type string, expected true and false",
        ),
        (
            lambda c: c.columns.update(image=pa.array(["a.jpg"] * 60)),
            "the column image is of the type string, expected bytes",
        ),
    ],
)
def test_wrong_columns_are_named(hf_copy, tmp_path, damage, words):
    damage(hf_copy)
    refused(hf_copy.write(tmp_path / "hf"), words)


def test_damaged_and_foreign_files_are_named(hf_copy, tmp_path):
    folder = hf_copy.write(tmp_path / "hf")
    path = folder / IN_DATA.format("test")
    data, table, doubled = path.read_bytes(), pq.read_table(path), io.BytesIO()
    pq.write_table(table.append_column("Male", table["Male"]), doubled)
    for content, words in (
        (doubled.getvalue(), "is damaged: two of its columns have one name"),
        (data[:-20], f"{path} is cut: .* bytes without the description at its end"),
        (data[:2000], "is cut"),
        (b"", "is not a Parquet file but an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
            "a pointer of Git LFS. Fetch what it points to: git lfs pull",
        ),
        (b"<!DOCTYPE html><html>", "is not a Parquet file but a web page"),
        (b"PAR1" + bytes(60) + b"\x08\0\0\0PAR1", "is damaged"),
        (data[:-300] + bytes(290) + data[-10:], "is damaged|is cut"),
    ):
        path.write_bytes(content)
        refused(folder, words)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    refused(folder, "cannot be read: No such file")


def test_files_must_be_of_one_copy(hf_copy, tmp_path):
    folder = hf_copy.write(tmp_path / "hf")
    hf_copy.columns["Bald"] = signs(0, pa.int64())(hf_copy.columns["Bald"])
    other = hf_copy.write(tmp_path / "other")
    test = IN_DATA.format("test")
    (folder / test).write_bytes((other / test).read_bytes())
    refused(folder, "The column Bald is of the type bool in .*train.*int64 in .*test")
    other.rename(folder / "other")
    refused(folder, "several sets of Parquet files, in data and other/data")
    (folder / test).rename(folder / "test.txt")
    (folder / IN_DATA.format("train")).rename(folder / "data" / "0000.parquet")
    refused(folder, "0000.parquet does not say which split it is")
    refused(folder / "data" / "0000.parquet", "is one Parquet file. Give the directory")


def test_missing_files_of_a_split_are_mentioned(hf_copy, tmp_path):
    folder = hf_copy.write(tmp_path / "hf", "data/{}-00001-of-00003.parquet")
    notes = load(folder).notes
    assert "train: only 1 of 3 Parquet files are there." in notes
    hidden = folder / ".cache" / "train.parquet"
    hidden.parent.mkdir()
    hidden.write_bytes(b"")
    assert load(folder).notes == notes


def test_other_runners_and_buckets_are_told_to_convert(
    builder,
    hf_copy,
    tmp_path,
    capsys,
    bucket,  # noqa: F811
):
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    assert builder("--runner=PrismRunner") == ExitCode.USAGE
    words = "only DirectRunner reads.*python -m beam_pipelines.convert --celeba_dir="
    assert re.search(words, capsys.readouterr().err.replace("\n", " "))
    hf_copy.write(bucket / "hf")
    refused("gs://bucket/hf", "read from disks only. Copy them here, run python -m")


@pytest.mark.slow
def test_local_builds_write_into_buckets(builder, hf_copy, tmp_path, bucket):  # noqa: F811
    assert builder("--num_examples=40") == ExitCode.OK
    expected = builder.manifest
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    builder.output = "gs://bucket/out"
    assert builder("--num_examples=40") == ExitCode.OK
    builder.output = bucket / "out"
    assert builder.manifest.shards == expected.shards
    assert not list(builder.output.glob("images-*"))


def test_converted_files_give_the_same_shards(
    builder, small_celeba, hf_copy, tmp_path, capsys
):
    assert builder("--num_examples=40") == ExitCode.OK
    expected = builder.manifest
    folder, new = hf_copy.write(tmp_path / "hf"), tmp_path / "new"
    flags = ["convert", f"--celeba_dir={folder}", f"--output_dir={new}"]
    assert command.guard(convert.main, flags) == ExitCode.OK
    assert (
        new / celeba.PARTITION_FILE
    ).read_text() == small_celeba.partition.read_text()
    builder.celeba_dir, builder.output = new, tmp_path / "again"
    assert builder("--num_examples=40") == ExitCode.OK
    assert builder.manifest.shards == expected.shards
    assert builder.manifest.sources["images"] == expected.sources["images"]
    assert command.guard(convert.main, flags) == ExitCode.OUTPUT
    flags[2] = f"--output_dir={tmp_path / 'newer'}"
    hf_copy.set_images(lambda data, path: (data, f"my {path}"))
    hf_copy.write(folder)
    assert command.guard(convert.main, flags) == ExitCode.INPUT_DATA
    assert "'my 000001.jpg' cannot be named in a list" in capsys.readouterr().err
    assert not list(tmp_path.glob("*newer*")) + list(tmp_path.glob(".*newer*"))
    flags[1] = f"--celeba_dir={new}"
    assert command.guard(convert.main, flags) == ExitCode.INPUT_DATA
    assert "contains no Parquet files" in capsys.readouterr().err
    hf_copy.write(new)
    assert command.guard(convert.main, flags) == ExitCode.INPUT_DATA
    assert "the build reads it as it is" in capsys.readouterr().err


def test_space_is_checked_and_stated_before_copying(
    builder, hf_copy, tmp_path, monkeypatch, capsys
):
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    monkeypatch.setattr(copies.files, "_free_bytes", lambda folder: 1000)
    assert builder("--num_examples=40") == ExitCode.OUTPUT
    out, err = capsys.readouterr()
    stated = re.search(r"images-0.zip, about ([\d,]+) bytes; ([\d,]+) bytes with", out)
    copied, whole = (int(number.replace(",", "")) for number in stated.groups())
    actual = sum(len(row["bytes"]) for row in hf_copy.images) * 40 / 60
    assert 0.8 < copied / actual < 1.4 and whole == 2 * copied
    assert f"{whole:,} bytes needed, 1,000 bytes free" in err
    assert not list(tmp_path.rglob("images-*"))


def test_complete_copies_are_used_again(
    builder, hf_copy, tmp_path, monkeypatch, capsys
):
    """A build that ended after copying copies nothing when it is run again."""
    builder.celeba_dir = hf_copy.write(tmp_path / "hf")
    flags = ["--num_examples=40", "--max_bad_fraction=0.5"]

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("beam_pipelines.writing.rounds._write_plans", end)
        assert builder(*flags) == ExitCode.INTERRUPTED
    assert "copying 40 images" in capsys.readouterr().out
    (staging,) = tmp_path.glob("out.building-*")
    assert {"files", "encoded"} == set(
        json.loads((staging / "images-0.zip.json").read_text())
    )
    assert builder(*flags) == ExitCode.OK
    assert "copying" not in capsys.readouterr().out


@pytest.mark.slow
def test_memory_does_not_grow_with_row_groups(tmp_path):
    """Of a row group of 200 MB a few rows are held at a time."""
    rng, rows = np.random.default_rng(0), 20_000
    data = rng.integers(0, 256, 10_000, np.uint8).tobytes()
    files = [b"\xff\xd8" + row.to_bytes(4) + data for row in range(rows)]
    columns = {"image": pa.array(files)}
    columns |= {
        name: pa.array([True, False] * (rows // 2)) for name in celeba.ATTRIBUTES
    }
    path = tmp_path / "train.parquet"
    options = {"compression": "none", "use_dictionary": False}
    pq.write_table(pa.table(columns), path, rows, **options)
    program = (
        "import resource, sys\n"
        "from beam_pipelines.sources import parquet\n"
        "source = parquet.find(sys.argv[1])\n"
        "names = source.names\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "with open(sys.argv[2], 'wb') as stream: source.copy(names, stream)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, tmp_path / "images.zip"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert (tmp_path / "images.zip").stat().st_size > 200_000_000
    assert int(done.stdout) < 100_000  # kB
