"""Every way in which CelebA may lie on a disk or in a bucket gives the same dataset."""

import pickle
import shutil
import zipfile
from pathlib import Path

import pytest

from beam_pipelines.config import BuildConfig
from beam_pipelines.sources import load as sources
from beam_pipelines.sources import remote
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import File
from beam_pipelines.sources.images import FolderSource
from schemas import celeba
from support.errors import ExitCode, UserError
from support.images import BadImage
from tests.beam_pipelines.fake_gcs import FakeGcs, bucket  # noqa: F401  a fixture

TEXTS = (celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE, celeba.IDENTITY_FILE)


def load(location):
    return sources.load(BuildConfig(celeba_dir=str(location)))


def pack(small, path, folder="img_align_celeba/", method=zipfile.ZIP_STORED):
    """Writes the images into a zip file, in another order than the folder's."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for number in range(small.images, 0, -1):
            archive.write(small.image(number), folder + small.image(number).name)
    return path


def to_csv(text: Path, header: str = "") -> bytes:
    """An annotation file as Kaggle's copy of CelebA spells it."""
    lines = [line.split() for line in text.read_text().splitlines()]
    if text.name == celeba.ATTRIBUTES_FILE:
        lines = [["image_id", *lines[1]], *lines[2:]]
    else:
        lines.insert(0, ["image_id", header])
    return "\r\n".join(map(",".join, lines)).encode()


def official_layout(small, target):
    for part, name in zip(("Anno", "Eval", "Anno"), TEXTS, strict=True):
        (target / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(small.folder / name, target / part / name)
    (target / "Img").mkdir()
    pack(small, target / "Img" / celeba.IMAGE_ARCHIVE)
    return target


def zip_next_to_texts(small, target):
    target.mkdir()
    for name in TEXTS:
        shutil.copy(small.folder / name, target / name)
    return pack(small, target / "faces.zip", "", zipfile.ZIP_DEFLATED)


def kaggle_zip(small, target):
    target.mkdir()
    archive = pack(small, target / "archive.zip", "img_align_celeba/img_align_celeba/")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("list_attr_celeba.csv", to_csv(small.attributes))
        file.writestr("__MACOSX/img_align_celeba/._000001.jpg", b"x")
    # Kaggle has no identities: those who got them put the file beside.
    shutil.copy(small.identity, target / small.identity.name)
    return archive


def doubled_folder(small, target):
    inner = target / celeba.IMAGE_FOLDER / celeba.IMAGE_FOLDER
    shutil.copytree(small.folder / celeba.IMAGE_FOLDER, inner)
    (target / "list_attr_celeba.csv").write_bytes(to_csv(small.attributes))
    shutil.copy(small.identity, target / small.identity.name)
    return target


@pytest.mark.parametrize(
    "layout", [official_layout, zip_next_to_texts, kaggle_zip, doubled_folder]
)
def test_the_same_dataset_from_every_layout(builder, small_celeba, tmp_path, layout):
    """Shards are equal bytes; manifests too where the annotation files are the same."""
    assert builder("--num_examples=40") == ExitCode.OK
    folder = builder.manifest
    builder.celeba_dir = layout(small_celeba, tmp_path / "other")
    builder.output = tmp_path / "again"
    assert builder("--num_examples=40") == ExitCode.OK
    assert builder.manifest.shards == folder.shards
    assert builder.manifest.sources["images"] == folder.sources["images"]
    same_texts = layout in (official_layout, zip_next_to_texts)
    assert (builder.manifest == folder) == same_texts


def test_recognized_files_are_printed(builder, small_celeba, tmp_path, capsys):
    ones = small_celeba.attributes.read_text().replace("-1", " 0")
    (small_celeba.folder / "list_attr_celeba.csv").write_text(ones)
    small_celeba.attributes.unlink()
    shutil.move(small_celeba.folder / celeba.IMAGE_FOLDER, tmp_path / "aside")
    small_celeba.folder = tmp_path
    (tmp_path / "aside").rename(tmp_path / celeba.IMAGE_FOLDER)
    archive = pack(small_celeba, tmp_path / "celeba" / celeba.IMAGE_ARCHIVE)
    assert builder("--dry_run") == ExitCode.OK
    out = capsys.readouterr().out
    assert "list_attr_celeba.csv (values 0/1), 60 rows\n" in out
    assert f"60 images in {archive}\n" in out


def test_the_official_archive_is_recognized_by_size(small_celeba, monkeypatch):
    archive = pack(
        small_celeba, small_celeba.folder / "a.zip", "", zipfile.ZIP_DEFLATED
    )
    monkeypatch.setattr(celeba, "IMAGE_COUNT", 60)
    assert "official size" not in load(archive).notes[-1]
    monkeypatch.setattr(celeba, "IMAGE_ARCHIVE_BYTES", archive.stat().st_size)
    assert load(archive).notes[-1].endswith("a.zip, official size")


def test_a_cut_download_is_named(small_celeba):
    archive = small_celeba.folder / celeba.IMAGE_ARCHIVE
    pack(small_celeba, archive)
    shutil.rmtree(small_celeba.folder / celeba.IMAGE_FOLDER)
    archive.write_bytes(archive.read_bytes()[:-3000] + bytes(2_000_000))
    with pytest.raises(UserError, match="zip is cut: 2 MB of 1,443 MB") as caught:
        load(small_celeba.folder)
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_damaged_members_are_replaced_and_listed(builder, small_celeba, tmp_path):
    archive = zip_next_to_texts(small_celeba, tmp_path / "other")
    data = bytearray(pack(small_celeba, archive).read_bytes())
    image = small_celeba.image(7).read_bytes()
    data[data.index(image) + len(image) // 2] ^= 1
    archive.write_bytes(data)
    builder.celeba_dir = archive
    assert builder("--max_bad_fraction=0.1") == ExitCode.OK
    rejected = (builder.output / "rejected.csv").read_text().splitlines()
    assert rejected[1].startswith(
        "000007.jpg,damaged,its checksum in the zip file differs"
    )
    assert sum(sum(shard.class_counts) for shard in builder.manifest.shards) == 58


def test_zip_next_to_an_incomplete_directory_is_mentioned(small_celeba):
    archive = pack(small_celeba, small_celeba.folder / celeba.IMAGE_ARCHIVE)
    assert not any(str(archive) in note for note in load(small_celeba.folder).notes)
    small_celeba.image(1).unlink()
    assert any(f"{archive} is not" in note for note in load(small_celeba.folder).notes)
    for number in range(2, 61):
        small_celeba.image(number).unlink()
    with pytest.raises(UserError, match=f"Remove that directory, and {archive} will"):
        load(small_celeba.folder)
    (small_celeba.folder / celeba.IMAGE_FOLDER).rmdir()
    assert len(load(small_celeba.folder).rows) == 60


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ""])
@pytest.mark.parametrize("zipped", [False, True])
def test_other_endings_of_jpeg_files(builder, small_celeba, tmp_path, zipped, ending):
    assert builder("--num_examples=40") == ExitCode.OK
    expected = builder.manifest
    for image in (small_celeba.folder / celeba.IMAGE_FOLDER).iterdir():
        image.rename(image.with_suffix(ending))
    if zipped:
        with zipfile.ZipFile(tmp_path / "celeba" / "faces.zip", "w") as archive:
            for image in (small_celeba.folder / celeba.IMAGE_FOLDER).iterdir():
                archive.write(image, image.name)
        builder.celeba_dir = tmp_path / "celeba" / "faces.zip"
    assert builder("--num_examples=40", "--overwrite") == ExitCode.OK
    assert builder.manifest == expected


def test_images_of_other_kinds_are_named(small_celeba):
    folder = small_celeba.folder / celeba.IMAGE_FOLDER
    for image in folder.iterdir():
        image.rename(image.with_suffix(".png"))
    words = r"but 000001.png, 000002.png, 000003.png, \.\.\. .*Only JPEG is read: get"
    with pytest.raises(UserError, match=words):
        load(small_celeba.folder)
    (folder / "a").mkdir()
    for image in folder.glob("*.png"):
        image.rename(folder / "a" / image.name)
    with pytest.raises(UserError, match=r"but no file \(subfolders are not searched"):
        load(small_celeba.folder)


def test_a_zip_without_the_images(small_celeba, tmp_path):
    archive = tmp_path / "celeba" / "other.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match="none of the 60 images.*but readme.txt"):
        load(archive)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("img_align_celeba.zip", "nothing")
    with pytest.raises(UserError, match="Take img_align_celeba.zip out of it"):
        load(archive)
    small_celeba.attributes.unlink()
    with pytest.raises(UserError, match="no list_attr_celeba.txt.*in .*other.zip and"):
        load(archive)


@pytest.mark.parametrize("layout", [official_layout, kaggle_zip, doubled_folder, None])
def test_buckets(builder, small_celeba, bucket, layout):  # noqa: F811
    """A zip is fetched once; annotation files and single images are objects."""
    assert builder("--num_examples=40") == ExitCode.OK
    folder = builder.manifest
    local = layout(small_celeba, bucket / "data") if layout else bucket / "data"
    if not layout:
        shutil.copytree(small_celeba.folder, local)
    builder.celeba_dir = f"gs://bucket/{local.relative_to(bucket)}"
    FakeGcs.opened.clear()
    assert builder("--num_examples=40", "--overwrite") == ExitCode.OK
    assert builder.manifest.shards == folder.shards
    images = [path for path in FakeGcs.opened if path.endswith(".jpg")]
    zips = [path for path in FakeGcs.opened if path.endswith(".zip")]
    assert (len(images), bool(zips)) == ((40, False) if not zips else (0, True))
    assert len(zips) <= 6


def test_remote_errors_are_plain(small_celeba, bucket):  # noqa: F811
    with pytest.raises(UserError, match="in gs://bucket/x and .*contains nothing"):
        load("gs://bucket/x")
    (bucket / "x" / "Img").mkdir(parents=True)
    (bucket / "x" / "Img" / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="gs://bucket/x contains Img."):
        load("gs://bucket/x")
    with pytest.raises(UserError, match="looked in gs://bucket/x.zip and"):
        load("gs://bucket/x.zip")
    source = FolderSource("gs://bucket")
    with pytest.raises(BadImage, match="missing"):
        source.read("1.jpg")
    file = File("gs://bucket/gone.zip")
    with pytest.raises(UserError, match="gone.zip cannot be read"):
        ZipSource(file).list()
    with pytest.raises(
        UserError, match="gs://bucket/gone.zip cannot be read"
    ) as caught:
        file.read_bytes()
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    assert pickle.loads(pickle.dumps(file)) == file


def test_schemes_that_beam_cannot_read(bucket, monkeypatch):  # noqa: F811
    remote.require_served("gs://bucket/celeba", "celeba_dir")
    for path, words in (
        ("foo://x/y", r"foo:// is not available here. Copy or mount"),
        ("gs://bucket/[a]", "for patterns"),
        ("~/celeba", "the shell"),
        ("", "no directory"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            remote.require_served(path, "celeba_dir")
        assert caught.value.exit_code == ExitCode.USAGE
    monkeypatch.delenv("FAKE_GCS_ROOT")
    with pytest.raises(UserError, match=r"pip install -e '\.\[gcp\]'"):
        remote.require_served("gs://bucket/celeba", "celeba_dir")
