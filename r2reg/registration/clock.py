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
    """Seconds of each stage, in the order in which they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a with-block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        # Reading says nothing: a file that is no good is then the only line on the screen.
        log.log(logging.DEBUG if name == "load" else logging.INFO, "%s: %.1f s", name, self.seconds[name])
