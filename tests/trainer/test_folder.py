"""The place of a run: its own folder, absolute, and of no other run."""

import datetime
import functools
from pathlib import Path

import pytest

from support import command
from trainer.config import TrainConfig
from trainer.runs import folder


def placed(*words):
    argv = ["main", *words]
    return folder.place(command.parse_config(TrainConfig, argv), argv)


@pytest.fixture
def flags_file(tmp_path, monkeypatch):
    """The flags of a run that was moved, seen from its parent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "run.json").write_text("{}")
    path = tmp_path / "moved" / "flags.txt"
    path.write_text(
        f"--run_dir={tmp_path / 'before'}\n--weights=w.h5\n--regime=finetune"
    )
    return path


@pytest.mark.parametrize("file", ["moved/flags.txt", "{}/moved/flags.txt"])
@pytest.mark.parametrize("words", ["--flagfile={}", "-flagfile {}"])
def test_run_is_where_its_flagfile_is(flags_file, tmp_path, file, words):
    config = placed(*words.format(file.format(tmp_path)).split())
    assert config.run_dir == str(tmp_path / "moved")
    assert config.weights == str(tmp_path / "w.h5")
    assert config.data_dir == str(tmp_path / "data" / "tfrecords")


def test_command_line_and_flagfiles_of_no_run_name_the_folder(flags_file, tmp_path):
    config = placed(f"--flagfile={flags_file}", "--run_dir=other")
    assert config.run_dir == str(tmp_path / "other")
    (tmp_path / "moved" / "run.json").unlink()
    config = placed(f"--flagfile={flags_file}")
    assert config.run_dir == str(tmp_path / "before")


def test_sweep_is_where_its_flagfile_is(flags_file, tmp_path):
    (tmp_path / "sweep.flags").touch()
    words = ["sweep", "--flagfile", str(tmp_path / "sweep.flags")]
    place = functools.partial(folder.own_folder, flag="sweep_dir", name="sweep.flags")
    assert place(words, mark="*/run.json") == str(tmp_path)
    assert not place([*words, "--sweep_dir=other"], mark="*/run.json")
    assert not place(words, mark="*/*/run.json")


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder.datetime, "datetime", Clock)
    names = [Path(placed("--model=vgg16").run_dir).name for _ in range(3)]
    first = "20260102-030405-vgg16"
    assert names == [first, f"{first}-2", f"{first}-3"]
