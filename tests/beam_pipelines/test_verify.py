"""Every kind of damage is found and named, and ends with exit 5."""

import dataclasses
import errno
import io
import shutil

import pytest

from beam_pipelines import verify
from beam_pipelines.reporting import dataset_info
from schemas import example
from schemas.manifest import FILE_NAME, Manifest
from support import command, files
from support.errors import ExitCode, UserError
from support.framing import frame, read_records
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


def without_last(data):
    return join(list(read_records(data))[:-1])


def in_image_id(data):
    """Flips a bit of the first record's image id, "000..." -> "100..."."""
    return flip(
        data, data.index(example.decode(next(read_records(data))).image_id.encode())
    )


#: Damage to a shard of 13 records; `{n}` is the image of record n, `{size}` the size
#: of the whole file, `{now}` that of the damaged one.
DAMAGE = {
    "payload flip": (
        lambda data: flip(data, 40),
        "record 0 (the payload says image {0}): its checksum differs.",
    ),
    "flip in the last byte": (
        lambda data: flip(data, len(data) - 1),
        "record 12 (the payload says image {12}): its checksum differs.",
    ),
    "payload that cannot be read": (
        lambda data: flip(data, 13),
        "record 0: its checksum differs.",
    ),
    "length flip": (
        lambda data: flip(data, 1),
        "record 0: the checksum of its length differs.",
    ),
    "length flip further on": (
        lambda data: flip(data, len(join(list(read_records(data))[:7])) + 2),
        "record 7 (after image {6}): the checksum of its length differs.",
    ),
    "cut mid-record": (
        lambda data: data[:-1],
        "record 12 (after image {11}): the file ends inside it; {now} bytes, the "
        "manifest lists {size}.",
    ),
    "cut in a header": (
        lambda data: data[: len(without_last(data)) + 5],
        "record 12 (after image {11}): the file ends inside its header; {now} "
        "bytes, the manifest lists {size}.",
    ),
    "cut at a record boundary": (
        without_last,
        " holds 12 whole records and ends after image {11}; the manifest lists 13; "
        "{now} bytes, the manifest lists {size}.",
    ),
    "emptied": (
        lambda data: b"",
        " holds 0 whole records; the manifest lists 13; {now} bytes, the manifest "
        "lists {size}.",
    ),
    "doubled": (
        lambda data: data + data,
        "record 13 (image {0}) is one too many: the manifest lists 13; {now} bytes, "
        "the manifest lists {size}.",
    ),
    "junk at the end": (
        lambda data: data + b"junk",
        "record 13 (after image {12}): the file ends inside its header; {now} bytes, "
        "the manifest lists {size}.",
    ),
    "another order": (
        lambda data: join(list(read_records(data))[::-1]),
        " is another file than the manifest lists: its sha256 differs, though its "
        "records are whole, whose first record is image {12}.",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_named(dataset, kind):
    damage, words = DAMAGE[kind]
    path = dataset / SHARD
    whole = path.read_bytes()
    ids = [example.decode(record).image_id for record in read_records(whole)]
    path.write_bytes(damage(whole))
    now = path.stat().st_size
    words = words.format(*ids, size=f"{len(whole):,}", now=f"{now:,}")
    separator = "" if words.startswith(" ") else ": "
    assert error_of(dataset) == f"{path}{separator}{words}"


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_files_for_tensorflow_datasets_are_compared(dataset, name):
    text = (dataset / name).read_text()
    (dataset / name).write_text(text.replace('"', "'", 1))
    assert f"{name} does not say what the manifest says" in error_of(dataset)
    (dataset / name).unlink()
    assert f"{name} is missing" in error_of(dataset)


def test_a_missing_shard_is_named(dataset):
    (dataset / SHARD).unlink()
    assert error_of(dataset) == f"{dataset / SHARD} is missing."


def test_swapped_shards_are_noticed(dataset):
    files.exchange(dataset / SHARD, dataset / OTHER)
    first = example.decode(records_of(dataset / OTHER)[0]).image_id
    assert error_of(dataset) == (
        f"{dataset / OTHER} is another file than the manifest lists: it is {SHARD}, "
        f"whose first record is image {first}."
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_first_damage_in_the_manifests_order_is_named(dataset, num_workers):
    for name in (SHARD, OTHER, "celeba-test.tfrecord-00000-of-00002"):
        (dataset / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"{OTHER} holds 0 whole records"):
        verify.verify(dataset, num_workers=num_workers)


def test_a_flipped_image_id_is_told_as_the_payload_has_it(dataset):
    path = dataset / SHARD
    path.write_bytes(in_image_id(path.read_bytes()))
    assert "record 0 (the payload says image 1000" in error_of(dataset)


def test_a_whole_dataset_passes(dataset, capsys):
    (dataset / "celeba-train.tfrecord-00009-of-00009").write_bytes(b"not listed")
    argv = ["verify", f"--dataset_dir={dataset}"]
    assert command.guard(verify.main, argv) == ExitCode.OK
    assert "train 26, validation 6, test 8 records" in capsys.readouterr().out


def test_a_damaged_manifest_is_named(dataset):
    path = dataset / FILE_NAME
    text = path.read_text()
    path.write_text(text[:-30])
    assert f"{path} is not complete JSON" in error_of(dataset)
    path.write_text(text.replace('"records": 13', '"records": 12', 1))
    assert f"shards.0: the class counts of {OTHER}, (" in error_of(dataset)
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "changed after it was written" in error_of(dataset)
    path.write_bytes(b"\xff\xfe")
    assert FILE_NAME in error_of(dataset)
    path.unlink()
    assert "unfinished" in error_of(dataset)


@pytest.mark.parametrize("name", [FILE_NAME, SHARD])
def test_what_the_system_refuses_is_no_damage(dataset, monkeypatch, name):
    original = io.open

    def refuse(path, *rest, **options):
        if str(path).endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return original(path, *rest, **options)

    monkeypatch.setattr(io, "open", refuse)  # Path's
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError) as caught:
        verify.verify(dataset)
    assert caught.value.cause == f"{dataset / name} cannot be read: Permission denied."
    assert caught.value.exit_code == ExitCode.INPUT_DATA


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
    info = dataset_info.info_json(changed)
    (dataset / dataset_info.INFO_FILE).write_text(info)


def altered(**changes):
    return lambda record: example.encode(dataclasses.replace(record, **changes))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda record: b"nonsense", "record 0"),
        (altered(image=b"GIF89a"), "it is a GIF image"),
        (altered(image=jpeg(0, 40, 30)), "its shape is (40, 30, 3)"),
        (altered(attributes=b"\0\1"), "it has 2 attributes, the manifest names 40"),
        (lambda record: altered(label=1 - record.label)(record), "is not its Male"),
    ],
)
def test_records_are_checked_even_if_the_manifest_agrees(dataset, change, words):
    rewrite(dataset, change)
    cause = error_of(dataset)
    assert SHARD in cause and words in cause


def test_only_a_full_check_decodes_every_image(dataset):
    def cut(record):
        return altered(image=record.image[:-40])(record)

    rewrite(dataset, cut)
    verify.verify(dataset)
    with pytest.raises(
        UserError, match="record 0 .image .*: it cannot be dec"
    ) as error:
        verify.verify(dataset, full=True)
    assert error.value.exit_code == ExitCode.INTEGRITY
    assert SHARD in error.value.cause


def test_a_whole_dataset_passes_in_full_and_by_processes(dataset, capsys):
    argv = ["verify", f"--dataset_dir={dataset}", "--full", "--num_workers=2"]
    assert command.guard(verify.main, argv) == ExitCode.OK
    assert "decoded completely" in capsys.readouterr().out
    argv[-1] = "--num_workers=-1"
    assert command.guard(verify.main, argv) == ExitCode.USAGE


def test_what_shards_share_comes_before_later_damage(dataset):
    last = dataset / "celeba-test.tfrecord-00000-of-00002"
    image_id = example.decode(records_of(dataset / OTHER)[3]).image_id
    stranger = example.decode(records_of(last)[0])
    untouched = (dataset / SHARD).read_bytes()
    rewrite(dataset, altered(identity=stranger.identity))
    assert "its person is also in train" in error_of(dataset)
    (dataset / SHARD).write_bytes(untouched)
    rewrite(dataset, altered(image_id=image_id))
    last.write_bytes(b"")
    assert f"record 0 (image {image_id}) is also in {OTHER}." in error_of(dataset)
