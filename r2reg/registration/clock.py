"""Seconds per stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

log = logging.getLogger("r2reg")


@dataclass
class Clock:
    """Seconds of each stage; of one within another, the inner one's count for it alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inner: float = 0.0  # of stages that ended within the one that is open

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a with-block to a stage."""
        start, outer = time.perf_counter(), self._inner
        self._inner = 0.0
        yield
        passed = time.perf_counter() - start
        own = passed - self._inner
        self._inner = outer + passed
        self.seconds[name] = self.seconds.get(name, 0.0) + own
        # Reading says nothing: a file that is no good is then the only line on the screen.
        log.log(logging.DEBUG if name == "load" else logging.INFO, "%s: %.1f s", name, own)
