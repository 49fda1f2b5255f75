import signal
import threading
import time

from trainer.loop import wakeup


def test_signals_reach_every_other_thread_and_disturb_nobody():
    woken = threading.Event()
    naps = []

    def nap():
        before = time.monotonic()
        time.sleep(0.3)
        naps.append(time.monotonic() - before)

    signal.signal(signal.SIGURG, lambda number, frame: woken.set())
    thread = threading.Thread(target=nap)
    thread.start()
    # Sent from a third thread: the sender itself is left out, the main one is not.
    sender = threading.Thread(target=wakeup.wake_threads)
    sender.start()
    sender.join()
    thread.join()
    assert woken.is_set()
    assert naps[0] >= 0.3


def test_a_process_that_sleeps_is_noticed_once(monkeypatch):
    monkeypatch.setattr(wakeup, "is_needed", lambda: True)
    lines = []
    with wakeup.Watch(seconds=0.05, report=lines.append):
        time.sleep(0.5)
    assert len(lines) == 1
    assert "asleep" in lines[0]


def test_a_process_that_computes_is_left_alone(monkeypatch):
    monkeypatch.setattr(wakeup, "is_needed", lambda: True)
    lines = []
    with wakeup.Watch(seconds=0.1, report=lines.append):
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            sum(range(1000))
    assert lines == []
