"""Functions of arrays in several threads: numpy, scipy and ITK compute outside of Python's lock."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4  # each holds the temporaries of a slab, up to 100 MB
SHORT_TURN = 5e-4  # seconds; a tenth of Python's own

_wanted = 0


def set_threads(threads: int) -> None:
    """How many threads `in_threads` and ITK use from now on; 0: one per processor."""
    global _wanted
    _wanted = threads


def wanted_threads() -> int:
    """How many `set_threads` asked for; one per processor where it did not."""
    return _wanted or processors()


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """[function(item) for item in items], a few at a time; the results are in the items' order.

    Raises:
        Exception: what `function` raises, for the first item for which it does.
    """
    count = min(wanted_threads(), MOST_THREADS)
    if count == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, items))


@contextmanager
def cancelling_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that, at the end or an error, drops what it has not begun."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def short_turns() -> Iterator[None]:
    """Let threads take turns at Python's lock more often.

    One of many short array operations, each of which asks for the lock anew, is held up less by one of plain Python.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SHORT_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
