"""Every kind of damage is found and named, and ends with exit 5."""

import dataclasses
import shutil

import pytest

from beam_pipelines import verify
from beam_pipelines.shards import frame, read_records
from schemas import example
from schemas.manifest import FILE_NAME, Manifest
from support import command, files
from support.errors import ExitCode, UserError
from tests.beam_pipelines.conftest import Builder, jpeg, make_celeba


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    builder = Builder(make_celeba(folder / "celeba").folder, folder / "out")
    assert builder("--num_examples=40", "--num_shards=2") == ExitCode.OK
    return builder.output


@pytest.fixture
def dataset(built, tmp_path):
    return shutil.copytree(built, tmp_path / "dataset")


SHARD = "celeba-train.tfrecord-00001-of-00002"
OTHER = "celeba-train.tfrecord-00000-of-00002"


def records_of(path):
    return list(read_records(path.read_bytes()))


def join(records):
    return b"".join(frame(record) for record in records)


def error_of(dataset):
    with pytest.raises(UserError) as caught:
        verify.verify(dataset)
    assert caught.value.exit_code == ExitCode.INTEGRITY
    return caught.value.cause


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda data: flip(data, 40), "record 0: its checksum differs"),
        (lambda data: flip(data, 1), "record 0: the checksum of its length"),
        (lambda data: flip(data, len(data) - 1), "record 12: its checksum differs"),
        (lambda data: data[:-1], "record 12: the file ends inside it; "),
        (lambda data: data[:5], "record 0: the file ends inside its header"),
        (lambda data: data + b"junk", "record 13: the file ends inside its header"),
        (lambda data: join(list(read_records(data))[:-1]), "12 whole records"),
        (lambda data: data + data, "holds 26 whole records"),
        (lambda data: b"", "holds 0 whole records"),
        (
            lambda data: join(list(read_records(data))[::-1]),
            "another file than the manifest lists",
        ),
    ],
)
def test_a_damaged_shard_is_named(dataset, damage, words):
    path = dataset / SHARD
    path.write_bytes(damage(path.read_bytes()))
    cause = error_of(dataset)
    assert SHARD in cause and words in cause


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_files_for_tensorflow_datasets_are_compared(dataset, name):
    text = (dataset / name).read_text()
    (dataset / name).write_text(text.replace('"', "'", 1))
    assert f"{name} does not say what the manifest says" in error_of(dataset)
    (dataset / name).unlink()
    assert f"{name} is missing" in error_of(dataset)


def test_a_missing_shard_is_named(dataset):
    (dataset / SHARD).unlink()
    assert f"{SHARD} is missing" in error_of(dataset)


def test_swapped_shards_are_noticed(dataset):
    files.exchange(dataset / SHARD, dataset / OTHER)
    assert OTHER in error_of(dataset)


def test_a_whole_dataset_passes(dataset, capsys):
    (dataset / "celeba-train.tfrecord-00009-of-00009").write_bytes(b"not listed")
    argv = ["verify", f"--dataset_dir={dataset}"]
    assert command.guard(verify.main, argv) == ExitCode.OK
    assert "train 26, validation 6, test 8 records" in capsys.readouterr().out


def test_a_damaged_manifest_is_named(dataset):
    path = dataset / FILE_NAME
    text = path.read_text()
    path.write_text(text[:-30])
    assert "not complete JSON" in error_of(dataset)
    path.write_text(text.replace('"records": 13', '"records": 12', 1))
    assert FILE_NAME in error_of(dataset)
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "changed after it was written" in error_of(dataset)
    path.write_bytes(b"\xff\xfe")
    assert FILE_NAME in error_of(dataset)
    path.unlink()
    assert "unfinished" in error_of(dataset)


def test_other_folders_are_not_datasets(tmp_path):
    assert "not a dataset" in error_of(tmp_path)
    with pytest.raises(UserError, match="does not exist") as caught:
        verify.verify(tmp_path / "nowhere")
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def rewrite(dataset, change, **fields):
    """Changes the first record of `SHARD` and makes the manifest agree with it."""
    path = dataset / SHARD
    records = records_of(path)
    first = example.decode(records[0])
    records[0] = change(first)
    path.write_bytes(join(records))
    manifest = Manifest.from_json((dataset / FILE_NAME).read_text())
    listed = tuple(
        dataclasses.replace(
            shard, bytes=path.stat().st_size, sha256=files.sha256_file(path), **fields
        )
        if shard.name == SHARD
        else shard
        for shard in manifest.shards
    )
    changed = dataclasses.replace(manifest, shards=listed)
    (dataset / FILE_NAME).write_text(changed.to_json())


def altered(**changes):
    return lambda record: example.encode(dataclasses.replace(record, **changes))


def test_records_are_checked_even_if_the_manifest_agrees(dataset):
    cases = [
        (lambda record: b"nonsense", "record 0"),
        (altered(image=b"GIF89a"), "it is a GIF image"),
        (altered(image=jpeg(0, 40, 30)), "its shape is (40, 30, 3)"),
        (lambda record: altered(label=1 - record.label)(record), "is not its Male"),
    ]
    for change, words in cases:
        untouched = (dataset / SHARD).read_bytes()
        rewrite(dataset, change)
        cause = error_of(dataset)
        assert SHARD in cause and words in cause
        (dataset / SHARD).write_bytes(untouched)


def test_people_and_images_must_not_be_shared(dataset):
    test_shard = dataset / "celeba-test.tfrecord-00000-of-00002"
    stranger = example.decode(records_of(test_shard)[0])
    untouched = (dataset / SHARD).read_bytes()
    rewrite(dataset, altered(identity=stranger.identity))
    assert "its person is also in train" in error_of(dataset)
    (dataset / SHARD).write_bytes(untouched)
    rewrite(dataset, altered(image_id=stranger.image_id))
    assert f"(image {stranger.image_id}) is also in {SHARD}" in error_of(dataset)
