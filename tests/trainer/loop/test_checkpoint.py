"""Checkpoints and the best models they refer to, whatever a kill left behind."""

import errno

import pytest
import tensorflow as tf

from support.errors import ExitCode, UserError
from support.files import sha256_file
from trainer.loop import checkpoint
from trainer.loop.checkpoint import Progress


@pytest.fixture
def state():
    return {"w": tf.Variable([1.0, 2.0])}


def write_best(folder, epoch, text):
    path = checkpoint.best_path(folder, epoch)
    path.write_text(text)
    return {"best_epoch": epoch, "best_sha256": sha256_file(path)}


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_best_keras_belongs_to_the_checkpoint_that_resumes(tmp_path, state):
    checkpoint.save(tmp_path, 6, state, Progress(1, **write_best(tmp_path, 1, "one")))
    two = Progress(2, **write_best(tmp_path, 2, "two"))
    # Killed before the second epoch's checkpoint: that epoch is done again.
    progress, notes = checkpoint.restore(tmp_path, state)
    assert (progress.epoch, progress.best_epoch, notes) == (1, 1, [])
    assert (tmp_path / "best.keras").read_text() == "one"
    checkpoint.save(tmp_path, 12, state, two)
    assert (tmp_path / "best.keras").read_text() == "two"
    # Its checkpoint is damaged: the one before is still there, with its best model.
    (tmp_path / "checkpoints" / "step-000000012.npz").write_bytes(b"PK")
    progress, notes = checkpoint.restore(tmp_path, state)
    assert (progress.epoch, len(notes)) == (1, 1)
    assert (tmp_path / "best.keras").read_text() == "one"


def test_older_checkpoints_are_removed(tmp_path, state):
    for epoch in (1, 2, 3):
        best = write_best(tmp_path, epoch, str(epoch))
        checkpoint.save(tmp_path, 6 * epoch, state, Progress(epoch, **best))
    assert names(tmp_path) == [
        "best-00002.keras",
        "best-00003.keras",
        "step-000000012.npz",
        "step-000000018.npz",
    ]
    # What a kill leaves, and a newer checkpoint that was skipped as damaged.
    folder = tmp_path / "checkpoints"
    (folder / ".step-000000020.npz.77.tmp").write_bytes(b"half")
    (folder / "unfinished-best-00004.keras").write_bytes(b"half")
    (folder / "step-000000024.npz").write_bytes(b"PK")
    write_best(tmp_path, 4, "four")
    checkpoint.save(tmp_path, 20, state, Progress(3, 2, **best))
    assert names(tmp_path) == [
        "best-00002.keras",
        "best-00003.keras",
        "step-000000018.npz",
        "step-000000020.npz",
    ]
    (folder / ".step-000000022.npz.77.tmp").write_bytes(b"half")
    checkpoint.clear(tmp_path)
    assert not folder.exists()
    assert (tmp_path / "best.keras").read_text() == "3"


def test_checkpoint_with_a_flipped_bit_is_skipped(tmp_path, state):
    progress = Progress(step=2, best_loss=0.5)
    checkpoint.save(tmp_path, 2, state, progress)
    state["w"].assign([3.0, 4.0])
    checkpoint.save(tmp_path, 4, state, Progress(step=4))
    newest = tmp_path / "checkpoints" / "step-000000004.npz"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    restored, (note,) = checkpoint.restore(tmp_path, state)
    assert restored == progress
    assert state["w"].numpy().tolist() == [1.0, 2.0]
    assert "step-000000004.npz is damaged and skipped" in note


def test_checkpoint_without_its_best_model_is_damaged(tmp_path, state):
    checkpoint.save(tmp_path, 6, state, Progress(1, **write_best(tmp_path, 1, "one")))
    (tmp_path / "checkpoints" / "best-00001.keras").write_text("another")
    with pytest.raises(UserError, match="None of the 1 checkpoints") as raised:
        checkpoint.restore(tmp_path, state)
    assert raised.value.exit_code == ExitCode.INTEGRITY


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, state, monkeypatch):
    checkpoint.save(tmp_path, 6, state, Progress(1))

    def fail(file, **_arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.np, "savez", fail)
        with pytest.raises(UserError, match="is full: 8 bytes needed") as raised:
            checkpoint.save(tmp_path, 8, state, Progress(1, 2))
    assert raised.value.exit_code == ExitCode.OUTPUT
    assert names(tmp_path) == ["step-000000006.npz"]
    assert checkpoint.restore(tmp_path, state)[0] == Progress(1)


def test_unreadable_checkpoint_is_not_skipped(tmp_path, state, monkeypatch):
    for step in (6, 12):
        checkpoint.save(tmp_path, step, state, Progress(step // 6))

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint, "_read", refuse)
    with pytest.raises(PermissionError):
        checkpoint.restore(tmp_path, state)
    assert names(tmp_path) == ["step-000000006.npz", "step-000000012.npz"]
