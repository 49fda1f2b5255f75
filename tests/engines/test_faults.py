"""What engines do to shards: each twice, two attempts at once, one that comes late."""

import os
import threading

import numpy as np
import pytest

from beam_pipelines.sources.images import FolderSource
from beam_pipelines.writing import pipeline, shards
from beam_pipelines.writing.store import Store
from schemas import celeba
from support.errors import ExitCode
from tests.beam_pipelines.golden import GOLDEN, GOLDEN_FLAGS, digest, make_golden


@pytest.fixture
def golden(tmp_path):
    return make_golden(tmp_path)


def test_a_bundle_executed_twice_reads_its_images_once(golden, monkeypatch):
    ranges, prepare, read = pipeline._ranges, shards.prepare_jpeg, []
    monkeypatch.setattr(pipeline, "_ranges", lambda count: 2 * ranges(count))
    monkeypatch.setattr(
        shards, "prepare_jpeg", lambda *args: read.append(1) or prepare(*args)
    )
    assert golden(*GOLDEN_FLAGS) == ExitCode.OK
    assert digest(golden.output) == GOLDEN
    assert len(read) == sum(shard.records for shard in golden.manifest.shards) == 60


def test_two_attempts_at_one_shard_at_once(golden, tmp_path, monkeypatch):
    """In one process, as the threads of a worker; both write before either ends."""
    source = FolderSource(str(golden.celeba_dir / celeba.IMAGE_FOLDER))
    plan = shards.ShardPlan(
        name="celeba-train.tfrecord-00000-of-00001",
        names=np.array([f"{number:06d}.jpg" for number in range(1, 9)], "S"),
        labels=np.zeros(8, np.uint8),
        identities=np.arange(8, dtype=np.int32),
        attributes=np.zeros((8, 5), np.uint8),
    )
    stores = [Store(str(tmp_path / name)) for name in ("alone", "together")]
    tasks = [shards.Task(source, store, None, 40) for store in stores]
    for store in stores:
        os.mkdir(store.location)
    expected = shards.write_shard(plan, tasks[0])
    barrier, prepare = threading.Barrier(2), shards.prepare_jpeg

    def wait(*args):
        barrier.wait(timeout=30)
        return prepare(*args)

    monkeypatch.setattr(shards, "prepare_jpeg", wait)
    reports = []
    threads = [
        threading.Thread(
            target=lambda: reports.append(shards.write_shard(plan, tasks[1]))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reports == [expected, expected]
    assert stores[0].sizes() == stores[1].sizes()
    assert stores[1].contains(plan.name, expected.sha256)


def test_an_attempt_of_an_earlier_pass_that_ends_late(golden, monkeypatch):
    """It overwrites a shard, and the report on it, that a later pass wrote."""
    flags = (*GOLDEN_FLAGS, "--max_bad_fraction=0.2")
    assert golden(*GOLDEN_FLAGS) == ExitCode.OK
    shard = (golden.output / golden.manifest.shards[0].name).read_bytes()
    number = int(shard[shard.index(b".jpg") - 6 :][:6])
    image = golden.celeba_dir / celeba.IMAGE_FOLDER / f"{number:06d}.jpg"
    image.write_bytes(b"")
    assert golden(*flags, "--overwrite") == ExitCode.OK
    undisturbed = digest(golden.output)
    assert undisturbed != GOLDEN

    write, first, late = shards.write_shard, {}, []

    def write_late(plan, task):
        report = write(plan, task)
        earlier = first.setdefault(plan.name, plan)
        if earlier.digest != plan.digest and not late:
            late.append(write(earlier, task))
        return report

    monkeypatch.setattr(shards, "write_shard", write_late)
    assert golden(*flags, "--overwrite") == ExitCode.OK
    assert len(late) == 1
    assert digest(golden.output) == undisturbed


def test_a_shard_changed_before_it_is_published(golden, monkeypatch, capsys):
    save = shards.ShardReport.save

    def change(report, store):
        save(report, store)
        with open(f"{store}/{report.name}", "ab") as file:
            file.write(b"more")

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardReport, "save", change)
        assert golden(*GOLDEN_FLAGS) == ExitCode.INTEGRITY
    error = capsys.readouterr().err
    assert "was changed after it was written" in error and len(error.splitlines()) == 2
    assert not golden.output.exists()
    assert golden(*GOLDEN_FLAGS) == ExitCode.OK
    assert digest(golden.output) == GOLDEN
