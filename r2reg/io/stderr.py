"""Keeping what native libraries print off stderr, without losing a line of Python's."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import TextIO

STDERR = 2  # the file descriptor to which C and C++ write


class _NativeMuted:
    """A with-block that any number of threads may be in: the first mutes, the last ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._kept: int | None = None  # where the descriptor led
        self._python: TextIO | None = None  # sys.stderr, where it writes to the descriptor

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._begin()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._end()

    def _begin(self) -> None:
        self._close()
        try:
            self._kept = os.dup(STDERR)
        except OSError:  # no stderr at all, as in some services
            return
        if _descriptor(sys.stderr) == STDERR:
            sys.stderr.flush()
            self._python = sys.stderr
            sys.stderr = open(self._kept, "w", buffering=1, errors="backslashreplace", closefd=False, encoding="utf-8")  # noqa: SIM115
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), STDERR)

    def _end(self) -> None:
        if self._kept is None:
            return
        os.dup2(self._kept, STDERR)
        if self._python is not None:
            sys.stderr.flush()
            sys.stderr, self._python = self._python, None

    def _close(self) -> None:
        """Not at the end already: another thread may just be writing a line there."""
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):  # a test's or a notebook's
        return None


native_stderr_muted = _NativeMuted()
