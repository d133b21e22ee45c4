"""What a person or a scheduler sees of a running training, and how they stop it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

log = logging.getLogger(__name__)
LOG_EVERY_STEPS = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Turns the first SIGINT or SIGTERM into a request to stop after the current step; a second one
    interrupts.

    A context manager. Python allows handlers in the main thread only; elsewhere signals are left alone.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.warning("stopping after this step, then saving; once more to stop at once")


class Progress(Protocol):
    """Shows one step after the other."""

    def step(self, step: int, loss: float) -> None:
        """Called after every step with the number of steps done."""


class _Lines:
    """Plain lines for a log file."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total
        self.start = time.monotonic()

    def step(self, step: int, loss: float) -> None:
        if step % LOG_EVERY_STEPS and step != self.total:
            return
        per_step = (time.monotonic() - self.start) / (step - self.first)
        left = per_step * (self.total - step)
        log.info("step %d/%d  loss %.5f  %.2f s a step  %s left", step, self.total, loss, per_step, clock(left))


class _Bar:
    """A rich progress bar."""

    def __init__(self, bar: Any, first: int, total: int) -> None:
        self.bar = bar
        self.task = bar.add_task("training", total=total, completed=first, loss=float("nan"))

    def step(self, step: int, loss: float) -> None:
        self.bar.update(self.task, completed=step, loss=loss)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def show_progress(first: int, total: int) -> Iterator[Progress]:
    """A bar with loss and time left where standard error is a terminal, a line every 20 steps elsewhere."""
    if not sys.stderr.isatty() or not log.isEnabledFor(logging.INFO):
        yield _Lines(first, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.5f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, first, total)
