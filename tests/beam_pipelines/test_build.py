"""The build program from flags to a published dataset, on a small CelebA."""

import csv
import json
import os

import pytest

from beam_pipelines import verify
from beam_pipelines.reporting import report
from schemas import celeba, example
from support.errors import ExitCode
from support.files import FolderLock
from support.framing import read_records
from tests.beam_pipelines.conftest import jpeg, make_celeba


def records(builder, split=None):
    """All records of a built dataset, or those of one split."""
    return [
        example.decode(record)
        for shard in builder.manifest.shards
        if split in (None, shard.split)
        for record in read_records((builder.output / shard.name).read_bytes())
    ]


@pytest.fixture
def interrupted(builder, monkeypatch):
    """A function that runs the build up to the moment before it publishes."""

    def stop(*_):
        raise KeyboardInterrupt

    def build(*flags):
        with monkeypatch.context() as patch:
            patch.setattr("beam_pipelines.writing.staging.LocalStaging.publish", stop)
            assert builder(*flags) == ExitCode.INTERRUPTED

    return build


def contents(folder, but=("build.json", *report.FILE_NAMES)):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in but
    }


def test_records_are_the_images_and_their_annotations(builder, small_celeba, capsys):
    assert builder("--runner", "DirectRunner") == ExitCode.OK
    lines = small_celeba.attributes.read_text().splitlines()[2:]
    annotated = {line.split()[0]: line.split()[1:] for line in lines}
    found = records(builder)
    assert len({record.image_id for record in found}) == len(found) == 60
    for record in found:
        number = int(record.image_id[:6])
        bits = [int(value == "1") for value in annotated[record.image_id]]
        assert record.image == small_celeba.image(number).read_bytes()
        assert list(record.attributes) == bits
        assert record.label == bits[celeba.ATTRIBUTES.index("Male")]
        assert record.identity == 1000 + (number - 1) // 3
    assert "per second" in capsys.readouterr().out
    assert verify.verify(builder.output) == builder.manifest


def test_classes_are_even_and_nobody_is_in_two_splits(builder):
    assert builder("--num_examples=40", "--num_shards=2") == ExitCode.OK
    manifest = builder.manifest
    assert [manifest.class_counts(split) for split in celeba.SPLITS] == [
        (13, 13),
        (3, 3),
        (4, 4),
    ]
    people = [
        {record.identity for record in records(builder, split)}
        for split in celeba.SPLITS
    ]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    names = [shard.name for shard in manifest.split("train")]
    assert names == [f"celeba-train.tfrecord-{i:05d}-of-00002" for i in (0, 1)]
    assert manifest.class_weights == (1.0, 1.0)
    assert manifest.image_shape == (24, 20, 3)


def test_official_split_follows_the_partition_file(builder):
    assert builder("--split=official", "--balance=none") == ExitCode.OK
    ids = {record.image_id for record in records(builder, "validation")}
    assert ids == {f"{number:06d}.jpg" for number in range(37, 49)}
    assert builder.manifest.config["split_fractions"] is None


def test_without_identities_the_official_split_is_used(builder, small_celeba, capsys):
    small_celeba.identity.unlink()
    assert builder() == ExitCode.OK
    assert builder.manifest.config["split"] == "official"
    assert {record.identity for record in records(builder)} == {-1}
    assert "identity_CelebA.txt is not in" in capsys.readouterr().out


def test_unbalanced_classes_get_weights(builder, small_celeba):
    text = small_celeba.attributes.read_text().splitlines()
    small_celeba.attributes.write_text("\n".join(["45", *text[1:47]]))
    flags = ("--balance=none", "--attribute=Bald", "--split=random")
    assert builder(*flags) == ExitCode.OK
    zeros, ones = builder.manifest.class_counts("train")
    weights = builder.manifest.class_weights
    assert weights[0] * zeros == pytest.approx((zeros + ones) / 2)
    assert weights[1] * ones == pytest.approx((zeros + ones) / 2)


def test_filter_and_limit_hold_in_the_records(builder, capsys):
    flags = ("--filter=Young=1,Blurry=-1", "--max_per_identity=1", "--balance=none")
    assert builder(*flags, "--split=random") == ExitCode.OK
    found = records(builder)
    young, blurry = (celeba.ATTRIBUTES.index(name) for name in ("Young", "Blurry"))
    assert {record.attributes[young] for record in found} == {1}
    assert {record.attributes[blurry] for record in found} == {0}
    assert len({record.identity for record in found}) == len(found) > 5
    config = builder.manifest.config
    assert config["filter"] == {"Blurry": 0, "Young": 1}
    assert config["max_per_identity"] == 1
    out = capsys.readouterr().out
    assert f"leaves {len(found)} of 60 images" in out
    assert "0.0% of the test images show a person who is also in train" in out


def test_a_random_split_says_how_many_test_people_are_in_train(builder, capsys):
    assert builder("--split=random", "--balance=none") == ExitCode.OK
    train = {record.identity for record in records(builder, "train")}
    test = [record.identity in train for record in records(builder, "test")]
    share = sum(test) / len(test)
    out = capsys.readouterr().out
    assert share > 0.5 and f"{share:.1%} of the test images" in out


@pytest.mark.parametrize("flags", [["--balance=undersample", "--num_examples=60"], []])
def test_both_classes_shrink_unless_a_number_is_due(builder, small_celeba, flags):
    small_celeba.image(1).write_bytes(b"")
    assert builder("--balance=exact", "--num_examples=60") == ExitCode.INPUT_DATA
    assert builder(*flags) == ExitCode.OK
    counts = [builder.manifest.class_counts(split) for split in celeba.SPLITS]
    assert all(zeros == ones for zeros, ones in counts)
    assert sum(zeros + ones for zeros, ones in counts) == 58
    assert builder.manifest.class_weights == (1.0, 1.0)


def test_a_limit_per_person_needs_the_identity_file(builder, small_celeba, capsys):
    small_celeba.identity.unlink()
    assert builder("--max_per_identity=2") == ExitCode.INPUT_DATA
    assert "Leave --max_per_identity out" in capsys.readouterr().err


def test_unusable_images_are_replaced_and_listed(builder, small_celeba, capsys):
    assert builder("--num_examples=40") == ExitCode.OK
    chosen = sorted(record.image_id for record in records(builder))
    cut, text, gone = (small_celeba.image(int(name[:6])) for name in chosen[:3])
    cut.write_bytes(cut.read_bytes()[:-60])
    text.write_bytes(b"<html>Quota exceeded</html>")
    gone.unlink()
    flags = ("--num_examples=40", "--max_bad_fraction=0.1", "--overwrite")
    assert builder(*flags) == ExitCode.OK
    assert sum(sum(shard.class_counts) for shard in builder.manifest.shards) == 40
    assert all(
        zeros == ones
        for zeros, ones in map(builder.manifest.class_counts, celeba.SPLITS)
    )
    bad = {path.name for path in (cut, text, gone)}
    assert not bad & {record.image_id for record in records(builder)}
    with open(builder.output / "rejected.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["reason"] for name, row in rows.items()} == {
        cut.name: "truncated",
        text.name: "not a JPEG",
        gone.name: "missing",
    }
    assert "web page" in rows[text.name]["detail"]
    assert "3 images excluded" in capsys.readouterr().out
    verify.verify(builder.output)


def test_mixed_sizes_need_image_size(builder, small_celeba, capsys):
    small_celeba.image(7).write_bytes(jpeg(7, 40, 30))
    assert builder() == ExitCode.INPUT_DATA
    error = capsys.readouterr().err
    assert "24x20 (59), 40x30 (1)" in error and "--image_size=S" in error
    assert not list(builder.output.parent.glob("out*"))
    assert builder("--image_size=16,12") == ExitCode.OK
    assert builder.manifest.image_shape == (16, 12, 3)
    verify.verify(builder.output)


def test_hopeless_builds_stop_until_the_images_are_fixed(builder, small_celeba, capsys):
    """Images are recognized by name and size; fixing may change neither."""
    good = {number: small_celeba.image(number).read_bytes() for number in range(1, 8)}
    for number, data in good.items():
        small_celeba.image(number).write_bytes(bytes(len(data)))
    for _ in range(2):  # the unfinished work of the first must not help the second
        assert builder() == ExitCode.INPUT_DATA
        assert "not a JPEG 7" in capsys.readouterr().err
        assert not builder.output.exists()
    assert builder("--max_bad_fraction=0.5") == ExitCode.OK
    assert builder("--overwrite") == ExitCode.INPUT_DATA
    for number, data in good.items():
        small_celeba.image(number).write_bytes(data)
    assert builder("--overwrite") == ExitCode.OK
    assert sum(shard.records for shard in builder.manifest.shards) == 60


def test_dry_run_prints_the_plan_and_writes_nothing(builder, capsys):
    before = sorted(builder.output.parent.rglob("*"))
    assert builder("--dry_run", "--num_examples=40") == ExitCode.OK
    out = capsys.readouterr().out
    assert "60 rows" in out and "26 examples: 13 with, 13 without Male" in out
    assert sorted(builder.output.parent.rglob("*")) == before


def test_a_dataset_is_only_replaced_on_request(builder, capsys):
    assert builder("--num_examples=40") == ExitCode.OK
    old = contents(builder.output, ())
    assert builder("--seed=1") == ExitCode.OUTPUT
    assert "--overwrite" in capsys.readouterr().err
    assert contents(builder.output, ()) == old
    assert builder("--seed=1", "--overwrite") == ExitCode.OK
    assert builder.manifest.config["seed"] == 1
    assert sorted(os.listdir(builder.output.parent)) == ["celeba", "out"]


def test_a_folder_with_other_files_is_never_touched(builder, capsys):
    builder.output.mkdir()
    (builder.output / "thesis.txt").write_text("years of work")
    assert builder("--overwrite") == ExitCode.OUTPUT
    assert "thesis.txt" in capsys.readouterr().err
    assert os.listdir(builder.output) == ["thesis.txt"]


def test_a_second_build_into_one_folder_is_refused(builder, capsys):
    with FolderLock(builder.output):
        assert builder() == ExitCode.OUTPUT
    assert f"process {os.getpid()}" in capsys.readouterr().err


def test_a_mount_point_is_refused_before_the_build(builder, capsys):
    assert builder("--output_dir=/", "--overwrite") == ExitCode.OUTPUT
    assert "folder inside it" in capsys.readouterr().err


def test_a_resumed_build_keeps_to_its_own_bad_fraction(
    builder, small_celeba, interrupted
):
    small_celeba.image(5).write_bytes(b"")
    interrupted("--max_bad_fraction=0.2")
    assert builder("--max_bad_fraction=0") == ExitCode.INPUT_DATA
    assert builder("--max_bad_fraction=0.2") == ExitCode.OK


def test_an_interrupted_build_resumes(builder, small_celeba, interrupted):
    flags = ("--num_examples=40", "--num_shards=2", "--max_bad_fraction=0.2")
    small_celeba.image(5).write_bytes(b"")
    assert builder(*flags) == ExitCode.OK
    whole = contents(builder.output)
    builder.output.rename(builder.output.with_name("kept"))
    interrupted(*flags)
    (staging,) = builder.output.parent.glob("out.building-*")
    shards = sorted(staging.glob("*-of-00002"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    kept = {path.name: path.stat().st_mtime_ns for path in shards[2:]}
    assert not builder.output.exists()
    assert builder(*flags) == ExitCode.OK
    assert contents(builder.output) == whole
    assert kept == {name: (builder.output / name).stat().st_mtime_ns for name in kept}


def test_listing_order_and_neighbors_do_not_matter(builder, small_celeba, tmp_path):
    assert builder("--num_examples=40") == ExitCode.OK
    whole = contents(builder.output)
    other = tmp_path / "other" / "Img" / celeba.IMAGE_FOLDER
    other.mkdir(parents=True)
    for number in range(60, 0, -1):  # in reverse, one of them through a link
        (other / small_celeba.image(number).name).write_bytes(
            small_celeba.image(number).read_bytes()
        )
    (other / "000001.jpg").unlink()
    (other / "000001.jpg").symlink_to(small_celeba.image(1))
    (other / "dangling.jpg").symlink_to(other / "nowhere")
    (other / "a folder.jpg").mkdir()
    (other / "ü\n'strange'.jpg").write_bytes(b"")
    open(os.fsencode(other) + b"/\xff.jpg", "wb").close()
    for name in ("attributes", "identity", "partition"):
        path = getattr(small_celeba, name)
        folder = tmp_path / "other" / ("Eval" if name == "partition" else "Anno")
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    builder.celeba_dir = tmp_path / "other"
    assert builder("--num_examples=40", "--overwrite") == ExitCode.OK
    assert contents(builder.output) == whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of its own libraries
def test_tensorflow_datasets_opens_the_folder(builder):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder.charts = True  # the report's files lie in the folder, too
    assert builder() == ExitCode.OK
    dataset = tfds.builder_from_directory(str(builder.output))
    for split in celeba.SPLITS:
        examples = list(dataset.as_dataset(split=split))
        assert len(examples) == builder.manifest.num_examples(split)
        assert examples[0][example.IMAGE].shape == (24, 20, 3)
        assert examples[0][example.ATTRIBUTES].shape == (40,)


def test_the_manifest_says_nothing_of_time_or_place(builder, tmp_path):
    assert builder("--num_examples=40") == ExitCode.OK
    text = (builder.output / "manifest.json").read_text()
    assert str(tmp_path) not in text
    again = make_celeba(tmp_path / "elsewhere")
    builder.celeba_dir = again.folder
    builder.output = tmp_path / "out2"
    assert builder("--num_examples=40") == ExitCode.OK
    assert (builder.output / "manifest.json").read_text() == text
    facts = json.loads((builder.output / "build.json").read_text())
    assert facts["images_read"] == 40 and facts["host"]


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (["--attribute=male"], 2, "Did you mean Male"),
        (["--attribut=Male"], 2, "Did you mean --attribute"),
        (["--balance=exakt"], 2, "Did you mean exact"),
        (["--runer", "DirectRunner"], 2, "Did you mean --runner"),
        (["--direct_num_worker=2"], 2, "--direct_num_workers"),
        (["--runner=DirectRuner"], 2, "Did you mean DirectRunner"),
        (["--direct_num_workers=two"], 2, "invalid int value"),
        (["train"], 2, "'train' is not a flag"),
        (["--seed=x"], 2, "seed"),
        (["--seed=-1"], 2, "out of range"),
        (["--num_examples=41"], 2, "--num_examples=42"),
        (["--split_fractions=0.5,0.5"], 2, "three positive numbers"),
        (["--split_fractions=a,b,c"], 2, "not a list of floats"),
        (["--filter=Young"], 2, "like --filter=Young=1,Blurry=0"),
        (["--filter=Young=2"], 2, "'Young=2' is not ATTRIBUTE=1 or ATTRIBUTE=0"),
        (["--filter=Yuong=1"], 2, "Did you mean Young"),
        (["--filter=Young=1,Young=0"], 2, "no image has both"),
        (["--filter=Male=1"], 2, "leaves only one class"),
        (["--max_per_identity=-1"], 2, "out of range"),
        (["--image_size=4"], 2, "8 to 4096"),
        (["--celeba_dir=s3://bucket/celeba"], 2, "s3://"),
        (["--output_dir=hdfs://host/out"], 2, "hdfs://"),
        (["--num_examples=62"], 3, "allow 60"),
        (["--num_examples=2"], 3, "validation"),
        (["--celeba_dir=/no/such/folder"], 3, "does not exist"),
    ],
)
def test_wrong_flags_get_one_line(builder, capsys, flags, code, words):
    assert builder(*flags) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 2
    assert not builder.output.exists()
