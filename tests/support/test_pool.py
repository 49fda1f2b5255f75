"""`map` over processes and threads: in order, never far ahead, losses are named."""

import operator
import os
import threading

import pytest

from support import pool
from support.errors import ExitCode, UserError


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_results_in_order_and_errors_in_their_place(workers):
    with pool.process_map(workers, operator.floordiv, [8, 6, 1], [2, 3, 0]) as results:
        assert [next(results), next(results)] == [4, 2]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_killed_process_is_named():
    with pytest.raises(UserError, match="process was killed.*Take less") as caught:
        with pool.process_map(2, os._exit, [3], remedy="Take less.") as results:
            list(results)
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY


def test_processes_that_cannot_start_are_named(monkeypatch):
    def fail():
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(pool.multiprocessing.forkserver, "ensure_running", fail)
    with pytest.raises(UserError, match="path too long") as caught:
        with pool.process_map(2, abs, [3]):
            pass
    assert caught.value.exit_code == ExitCode.OUTPUT


def test_threads_give_results_in_order_and_stay_near():
    taken, asked = [], 0

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    def double(number):
        assert threading.current_thread() is not threading.main_thread()
        return 2 * number

    for number, result in enumerate(pool.thread_map(double, items(), ahead=3)):
        asked += 1
        assert result == 2 * number
        assert len(taken) <= asked + 3
    assert asked == 50


def test_error_comes_where_its_result_would_have():
    results = pool.thread_map(lambda number: 1 // (2 - number), range(9), ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
