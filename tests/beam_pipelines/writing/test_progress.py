"""The progress of a build: only new reports count, and nothing is left behind."""

import threading

import pytest

from beam_pipelines.writing import progress, shards
from beam_pipelines.writing.store import Store


def save_report(store, name, plan, records, rejected=0):
    bad = tuple((f"{i}.jpg", "empty", "0 bytes") for i in range(rejected))
    counts = (records, 0)
    shards.ShardReport(name, plan, records, 1, "", counts, {}, 0, "", bad).save(store)


def test_only_new_reports_of_the_plans_count(tmp_path):
    store, pending = Store(str(tmp_path)), {"a": "plan 1", "b": "plan 2"}
    save_report(store, "a", "plan 0", 9)  # of an earlier pass
    assert progress.new_reports(store, pending) == []
    save_report(store, "b", "plan 2", 3, rejected=2)
    save_report(store, "other", "plan 3", 7)
    store.write("c.json", "")
    (report,) = progress.new_reports(store, pending)
    assert (report.name, report.images, len(report.rejected)) == ("b", 5, 2)
    assert progress.new_reports(store, pending) == []
    save_report(store, "a", "plan 1", 10)
    assert [part.images for part in progress.new_reports(store, pending)] == [10]
    assert not pending


def test_watching_leaves_neither_thread_nor_text_behind(tmp_path, capsys):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        with progress.watch(Store(str(tmp_path)), []):
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt
    assert threading.active_count() == before
    assert capsys.readouterr() == ("", "")
