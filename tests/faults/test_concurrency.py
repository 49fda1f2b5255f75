"""Two programs at one place; a sample of what `make faults` tries whole."""

import os
import shutil

import pytest

from beam_pipelines import shard_checks, verify
from support import command, files
from support.errors import ExitCode, UserError
from support.files import FolderLock, PinnedFolder
from tests.faults import concurrency
from tests.trainer.conftest import write_dataset
from tests.trainer.evaluation import run_folder
from trainer import compare, evaluate, export, model_card, report, subgroups
from trainer.data import evaluation_dataset, open_dataset, train_dataset

REPLACED = "data was replaced or removed while it was read"


@pytest.fixture
def replace(tmp_path):
    """A dataset, `data`, and a function that puts another of equal names there."""
    for name in ("data", "other"):
        write_dataset(tmp_path / name)

    def exchange(remove=True):
        files.exchange(tmp_path / "data", tmp_path / "other")
        if remove:
            shutil.rmtree(tmp_path / "other")

    return exchange


@pytest.mark.parametrize("system", ["Linux", "macOS"])
def test_replaced_dataset_is_not_read_on(tmp_path, replace, monkeypatch, system):
    """The other one has the same bytes: nothing but its folder tells them apart."""
    if system == "macOS":  # a descriptor leads to no path there
        monkeypatch.setattr(PinnedFolder, "inside", tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    batches = dataset.iterate("train", train_dataset(dataset, 8, epochs=9))
    next(batches)
    replace()
    with pytest.raises(UserError, match=REPLACED) as raised:
        list(batches)
    assert raised.value.exit_code == ExitCode.INTEGRITY
    open_dataset(tmp_path / "data")


def test_dataset_is_the_one_that_was_opened_whatever_has_its_name(tmp_path, replace):
    dataset = open_dataset(tmp_path / "data")
    shard = next((tmp_path / "other").glob("*train*"))
    shard.write_bytes(b"")
    replace(remove=False)
    dataset.check()
    batches = evaluation_dataset(dataset, "train", 48)
    (images, _), *_ = dataset.iterate("train", batches)
    assert images.shape[0] == 48


def test_replacement_between_manifest_and_shards_is_no_damage(
    tmp_path, replace, monkeypatch
):
    shutil.rmtree(tmp_path / "other")
    write_dataset(tmp_path / "other", {"train": 6, "validation": 6, "test": 6})
    check = shard_checks.check

    def check_late(*arguments):
        if (tmp_path / "other").exists():
            replace()
        return check(*arguments)

    monkeypatch.setattr(shard_checks, "check", check_late)
    with pytest.raises(UserError, match=REPLACED) as raised:
        verify.verify(tmp_path / "data")
    assert raised.value.exit_code == ExitCode.INTEGRITY


def test_links_to_one_folder_have_one_lock(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with (
        FolderLock(tmp_path / "run"),
        pytest.raises(UserError, match="link is in use by process"),
        FolderLock(tmp_path / "link"),
    ):
        pass


def test_lock_of_results_makes_no_parent_of_a_misspelt_name(tmp_path):
    with files.lock_existing(tmp_path / "typo" / "run"):
        assert not (tmp_path / "typo").exists()
    assert str(FolderLock("/").path) == "/..celeba-lock"


def test_results_need_no_writable_folder_around_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    (tmp_path / "run").mkdir()
    with files.lock_existing(tmp_path / "run"):
        assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("program", "options", "locked"),
    [
        (evaluate, ["--run_dir=RUN", "--data_dir=data"], "run/evaluation-test"),
        (export, ["--run_dir=RUN", "--format=keras"], "run/export.keras"),
        (report, ["--run_dir=RUN"], "run"),
        (subgroups, ["--run_dir=RUN"], "run"),
        (model_card, ["--run_dir=RUN"], "run"),
        (compare, ["RUN", "--output_dir=OUT"], "out"),
    ],
)
def test_results_have_one_writer(tmp_path, capsys, program, options, locked):
    run = run_folder.write(tmp_path / "run", run_folder.predictions(60))
    before = sorted(run.iterdir())
    places = {"RUN": str(run), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        options = [word.replace(name, place) for word in options]
    with FolderLock(tmp_path / locked):
        code = command.guard(program.main, ["program", *options])
        assert code == ExitCode.OUTPUT
    assert f"{locked} is in use by process" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before


@pytest.mark.slow
def test_runs_of_one_second_have_folders_of_their_own():
    row = concurrency.attempt(concurrency.dated_folders, "", "")
    assert not row.lost and row.tried == 6


@pytest.mark.slow
def test_readers_see_one_dataset_while_others_are_published():
    row = concurrency.attempt(lambda folder: concurrency.readers(folder, 3), "", "")
    assert not row.lost and row.tried > 2
