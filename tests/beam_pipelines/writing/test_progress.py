"""The progress of a build: only new reports count, and nothing is left behind."""

import threading

import numpy as np
import pytest

from beam_pipelines.writing import progress, shards
from beam_pipelines.writing.progress import ReportCounter
from beam_pipelines.writing.store import Store


def shard_plan(name, images):
    return shards.ShardPlan(
        name=name,
        names=np.array([f"{i}.jpg" for i in range(images)], "S"),
        labels=np.zeros(images, np.uint8),
        identities=np.zeros(images, np.int32),
        attributes=np.zeros((images, 5), np.uint8),
    )


def save_report(store, name, records, rejected=0):
    bad = tuple((f"{i}.jpg", "empty", "0 bytes") for i in range(rejected))
    counts = (records, 0)
    shards.ShardReport(name, "", records, 1, "", counts, {}, 0, bad).save(store)


def test_only_new_reports_of_the_plans_count(tmp_path):
    store = Store(str(tmp_path))
    save_report(store, "a", 9)  # of an earlier pass
    reports = ReportCounter(store, [shard_plan("a", 10), shard_plan("b", 5)])
    reports.poll()
    assert (reports.images, reports.rejected) == (0, 0)
    save_report(store, "b", 3, rejected=2)
    save_report(store, "other", 7)
    store.write("c.json", "")
    for _ in range(2):
        reports.poll()
        assert (reports.images, reports.rejected) == (5, 2)
    save_report(store, "a", 10)
    reports.poll()
    assert (reports.images, reports.rejected) == (15, 2)


def test_watching_leaves_neither_thread_nor_text_behind(tmp_path, capsys):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        with progress.watch(Store(str(tmp_path)), [shard_plan("a", 10)]):
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt
    assert threading.active_count() == before
    assert capsys.readouterr().out == ""
