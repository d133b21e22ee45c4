"""Trainings of a study side by side: each in one of as many processes as there are processors, with one thread."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from r2reg.threads import processors

log = logging.getLogger(__name__)

_shared: tuple[Any, ...] = ()  # in a worker: what all its tasks begin with


def in_processes(task: Callable[..., Any], shared: tuple[Any, ...], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
    """task(*shared, *given) of each of the arguments, in order; the first error ends it all.

    Args:
        task: a function of a module, which imports what it needs. shared: sent to each process once.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors(), mp_context=context, initializer=_start, initargs=(shared,)) as pool:
        waiting = [pool.submit(_call, task, given) for given in arguments]
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                log.info("%d of %d done", done, len(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        return [future.result() for future in waiting]


def _call(task: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    return task(*_shared, *given)


def _start(shared: tuple[Any, ...]) -> None:
    from r2reg.startup import start_backend

    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start_backend("cpu", 1, False, 0)


def _end_with_parent() -> None:
    """A process whose parent was killed would go on with what waits."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
