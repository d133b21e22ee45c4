"""Work in several threads: the same results in the same order as without."""

import sys
import threading
import time

import pytest

from r2reg import threads


@pytest.fixture(params=[1, 3])
def count(request, monkeypatch):
    monkeypatch.setattr(threads, "_wanted", request.param)
    return request.param


def test_results_are_in_the_items_order(count):
    def late_first(item):
        time.sleep(0.01 * (5 - item))
        return 10 * item

    assert threads.in_threads(late_first, range(5)) == [0, 10, 20, 30, 40]
    assert threads.in_threads(late_first, []) == []


def test_as_many_at_once_as_wanted(count):
    seen = set()

    def meet(_):
        seen.add(threading.get_ident())
        time.sleep(0.05)

    threads.in_threads(meet, range(count))
    assert len(seen) == count


def test_what_a_function_raises_comes_out(count):
    with pytest.raises(ZeroDivisionError):
        threads.in_threads(lambda item: 1 / item, [1, 0, 2])


def test_short_turns_end():
    before = sys.getswitchinterval()
    with threads.short_turns():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


def test_what_a_pool_has_not_begun_is_dropped_after_an_error():
    begun, running, free = [], threading.Event(), threading.Event()

    def work(number):
        begun.append(number)
        running.set()
        free.wait(10)

    def fail():
        with threads.cancelling_pool(1) as pool:
            for number in range(3):
                pool.submit(work, number)
            running.wait(10)
            threading.Timer(0.2, free.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert begun == [0]
