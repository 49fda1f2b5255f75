"""A dataset in a bucket: the same bytes, the manifest as the commit, never replaced."""

import pytest

from beam_pipelines.writing.store import Store
from schemas.manifest import FILE_NAME
from support.errors import ExitCode
from tests.beam_pipelines.fake_gcs import FakeGcs, bucket  # noqa: F401 - a fixture

FLAGS = ("--num_examples=40", "--num_shards=2", "--max_bad_fraction=0.2")


@pytest.fixture
def remote(builder, bucket):  # noqa: F811
    """A function that builds into the bucket, and the folder behind it."""

    def build(*flags):
        return builder(*FLAGS, "--output_dir=gs://bucket/data/out", *flags)

    return build, bucket / "data" / "out"


def shards_and_manifest(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if ".tfrecord-" in path.name or path.name == FILE_NAME
    }


def test_a_bucket_gets_the_bytes_that_a_folder_gets(builder, remote, small_celeba):
    small_celeba.image(5).write_bytes(b"")  # takes a second round
    build, folder = remote
    assert builder(*FLAGS) == ExitCode.OK
    assert build() == ExitCode.OK
    assert shards_and_manifest(folder) == shards_and_manifest(builder.output)
    names = {path.name for path in builder.output.iterdir()}
    assert {path.name for path in folder.iterdir()} == names


def test_a_dataset_in_a_bucket_is_never_replaced(remote, capsys):
    build, folder = remote
    assert build() == ExitCode.OK
    whole = shards_and_manifest(folder)
    assert build("--seed=1") == ExitCode.OUTPUT
    assert "already holds a dataset" in capsys.readouterr().err
    assert build("--seed=1", "--overwrite") == ExitCode.OUTPUT
    assert "has no renames" in capsys.readouterr().err
    assert shards_and_manifest(folder) == whole


def test_an_interrupted_build_goes_on_in_the_bucket(remote, monkeypatch, capsys):
    build, folder = remote

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("beam_pipelines.writing.staging.Staging.publish", stop)
        assert build() == ExitCode.INTERRUPTED
    assert not (folder / FILE_NAME).exists()
    assert build("--seed=1") == ExitCode.OUTPUT
    assert "unfinished build of other options" in capsys.readouterr().err
    shards = sorted(folder.glob("*-of-00002"))
    shards[0].write_bytes(shards[0].read_bytes()[:-1])
    kept = {path.name: path.stat().st_mtime_ns for path in shards[1:]}
    assert build() == ExitCode.OK
    assert "continuing the unfinished build in gs://" in capsys.readouterr().out
    assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert not list(folder.glob("*.json.*")) and not (folder / "plan.arrow").exists()


def test_foreign_objects_are_left_alone(remote, capsys):
    build, folder = remote
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert build() == ExitCode.OUTPUT
    assert "holds other files, such as notes.txt" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_build_killed_before_its_manifest_goes_on(remote, monkeypatch):
    build, folder = remote
    write = Store.write

    def stop_at_manifest(self, name, data, **options):
        if name == FILE_NAME:
            raise KeyboardInterrupt
        write(self, name, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stop_at_manifest)
        assert build() == ExitCode.INTERRUPTED
    assert build() == ExitCode.OK
    assert (folder / FILE_NAME).exists()


@pytest.mark.parametrize("method", ["create", "_list", "exists"])
def test_a_refused_request_is_one_line(remote, monkeypatch, capsys, method):
    build, _ = remote

    def refuse(*_):
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(FakeGcs, method, refuse)
    code = build()
    error = capsys.readouterr().err
    assert code == ExitCode.OUTPUT, error
    assert "gs://bucket/data/out cannot be read or written: " in error
    assert "403 Forbidden" in error and len(error.splitlines()) == 2
