"""Trainings of a study side by side: each in one of as many processes as there are processors, with one thread."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from r2reg.threads import processors


def in_processes(task: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
    """task(*arguments) of each, in order; the first error ends it all.

    Args:
        task: a function of a module, which imports what it needs.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors(), mp_context=context, initializer=_start) as pool:
        waiting = [pool.submit(task, *given) for given in arguments]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start() -> None:
    from r2reg.startup import start_backend

    start_backend("cpu", 1, False, 0)
