"""Progress: what is counted, and what is shown where."""

import io
import threading

import numpy as np
import pytest

from beam_pipelines.writing import build_progress, progress, shards
from beam_pipelines.writing.build_progress import Receipts
from beam_pipelines.writing.stores import LocalStore
from support.live import Meter


class Clock:
    """Time that passes when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def test_a_log_gets_a_plain_line_every_ten_seconds(clock):
    log = io.StringIO()
    meter = Meter(20_000, output=log, clock=clock)
    for _ in range(50):
        clock.now += 0.5
        meter.update(int(100 * (clock.now - 100)), rejected=3)
    meter.close()
    assert log.getvalue().splitlines() == [
        "1,000 of 20,000 images written  100 images/s  3 min 10 s left  3 rejected",
        "2,000 of 20,000 images written  100 images/s  3 min 0 s left  3 rejected",
    ]


def test_a_short_build_leaves_nothing_in_a_log(clock):
    log = io.StringIO()
    meter = Meter(100, output=log, clock=clock)
    clock.now += 1
    meter.update(100)
    meter.close()
    assert log.getvalue() == ""


def test_a_terminal_shows_one_line_and_ends_clean(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    screen = Terminal()
    meter = Meter(8_000_000, "verified", output=screen, clock=clock)
    clock.now += 0.4
    meter.update(1)  # too early
    clock.now += 0.2
    meter.update(0)
    clock.now += 0.4
    meter.update(1000)
    meter.close()
    meter.close()
    lines = screen.getvalue().split("\r")
    assert lines[0] == ""
    assert lines[1] == "0 of 8,000,000 images verified\033[K"
    assert len(lines) == 3 and lines[-1] == "\033[K"


def test_starting_is_no_part_of_the_speed(clock):
    log = io.StringIO()
    meter = Meter(2000, output=log, clock=clock)
    for images in (0, 0, 1000):
        clock.now += 10
        meter.update(images)
    assert log.getvalue().splitlines()[1:] == [
        "0 of 2,000 images written",
        "1,000 of 2,000 images written  100 images/s  10 s left",
    ]


def test_a_long_line_is_cut_to_the_terminal(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    screen = Terminal()
    meter = Meter(8_000_000, output=screen, clock=clock)
    clock.now += 2 * 3600
    meter.update(4_000_000, rejected=7)
    assert screen.getvalue() == "\r4,000,000 of 8,000,000 images\033[K"


def shard_plan(name, images):
    return shards.ShardPlan(
        name=name,
        names=np.array([f"{i}.jpg" for i in range(images)], "S"),
        labels=np.zeros(images, np.uint8),
        identities=np.zeros(images, np.int32),
        attributes=np.zeros((images, 5), np.uint8),
    )


def receipt(name, records, rejected=0):
    bad = tuple((f"{i}.jpg", "empty", "0 bytes") for i in range(rejected))
    return shards.Receipt(name, "", records, 1, "", (records, 0), {}, 0, bad)


def test_only_new_receipts_of_the_plans_count(tmp_path):
    receipt("a", 9).save(LocalStore(tmp_path))  # of an earlier round
    receipts = Receipts(LocalStore(tmp_path), [shard_plan("a", 10), shard_plan("b", 5)])
    receipts.poll()
    assert (receipts.images, receipts.rejected) == (0, 0)
    receipt("b", 3, rejected=2).save(LocalStore(tmp_path))
    receipt("other", 7).save(LocalStore(tmp_path))
    (tmp_path / "c.json").write_text("")
    for _ in range(2):
        receipts.poll()
        assert (receipts.images, receipts.rejected) == (5, 2)
    receipt("a", 10).save(LocalStore(tmp_path))
    receipts.poll()
    assert (receipts.images, receipts.rejected) == (15, 2)


def test_watching_leaves_neither_thread_nor_text_behind(tmp_path, capsys):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        with build_progress.watch(LocalStore(tmp_path), [shard_plan("a", 10)]):
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt
    assert threading.active_count() == before
    assert capsys.readouterr().out == ""


def test_a_stopwatch_keeps_its_stages_in_order():
    watch = progress.Stopwatch()
    watch.lap("reading")
    watch.lap("writing")
    assert list(watch.seconds) == ["reading", "writing"]
    assert 0 <= sum(watch.seconds.values()) <= watch.total
