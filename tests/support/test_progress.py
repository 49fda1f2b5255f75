"""Progress: one live line on a terminal, few lines in a log, nothing left behind."""

import io

import pytest

from support import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told, in seconds: `clock[0] += 1`."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_log_gets_a_line_every_30_seconds(clock):
    log = io.StringIO()
    with progress.Progress(20_000, "writing", output=log, smoothing=0) as line:
        for _ in range(130):
            clock[0] += 0.5
            assert line.is_due() == (clock[0] in (130, 160))
            line.set_postfix_str("3 rejected", refresh=False)
            line.update(50)
    lines = log.getvalue().splitlines()
    assert [text.split("|")[-1].strip() for text in lines] == [
        "3000/20000 [00:30<02:50, 100.00 images/s, 3 rejected]",
        "6000/20000 [01:00<02:20, 100.00 images/s, 3 rejected]",
    ]
    assert all(text.startswith("writing: ") for text in lines)


@pytest.mark.parametrize("output", [io.StringIO(), Terminal()])
def test_short_work_shows_nothing(clock, output):
    with progress.Progress(100, "writing", output=output) as line:
        clock[0] += 0.4
        line.update(100)
    assert output.getvalue() == ""


def test_terminal_shows_one_line_and_ends_clean(clock):
    screen = Terminal()
    with pytest.raises(KeyboardInterrupt):
        with progress.Progress(8_000_000, "verifying", output=screen) as line:
            clock[0] += 0.6
            line.update(1000)
            raise KeyboardInterrupt
    _, shown, cleared, rest = screen.getvalue().split("\r")
    assert shown.startswith("verifying:   0%|")
    assert not cleared.strip() and rest == "" and "\n" not in screen.getvalue()


def test_durations_are_for_people():
    seconds = (5, 200, 7260)
    expected = ["5 s", "3 min 20 s", "2 h 1 min"]
    assert list(map(progress.duration, seconds)) == expected


def test_stopwatch_keeps_its_stages_in_order():
    watch = progress.Stopwatch()
    watch.lap("reading")
    watch.lap("writing")
    assert list(watch.seconds) == ["reading", "writing"]
    assert 0 <= sum(watch.seconds.values()) <= watch.total
