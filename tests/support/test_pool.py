"""`map` over threads: in order, never far ahead."""

import threading

import pytest

from support import pool


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


def test_an_error_comes_where_its_result_would_have():
    results = pool.thread_map(lambda number: 1 // (2 - number), range(9), ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
