"""Trainings of a study side by side: each in one of as many processes as there are processors, with one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
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
            for future in as_completed(waiting):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        return [future.result() for future in waiting]


def _start() -> None:
    from r2reg.startup import start_backend

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start_backend("cpu", 1, False, 0)


def _end_with_parent() -> None:
    """A process whose parent was killed would go on with what waits."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
