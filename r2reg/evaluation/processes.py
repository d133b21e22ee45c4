"""Commands in a process of their own: wall and CPU seconds, peak memory, exit status; and where they ran."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from r2reg.threads import processors

R2REG = (sys.executable, "-m", "r2reg.cli")
PACKAGES = ("r2reg", "tensorflow", "keras", "jax", "torch", "numpy", "scipy", "SimpleITK", "antspyx", "statsmodels")
PR_SET_PDEATHSIG = 1  # Linux: the signal that a child gets when its parent dies
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Cost:
    """What a finished process took; gigabytes are 1e9 bytes of resident memory."""

    status: int
    wall_seconds: float
    cpu_seconds: float
    peak_gigabytes: float


def run(
    command: Sequence[str],
    log: Path | None = None,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Cost:
    """Run a command to its end; where this process dies, the command dies with it (on Linux).

    Linux starts a child's peak memory at its parent's size, so a process that measures must itself stay small: images
    belong into children.

    Args:
        log: file for its output and errors; default: dropped.
        threads: of ITK, whose filters read them from the environment; ITK's random numbers are seeded too.
        environment: more variables.
    """
    variables = os.environ | dict(environment or {})
    if threads is not None:
        variables |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads), "ANTS_RANDOM_SEED": "1"}
    with Path(log or os.devnull).open("w", encoding="utf-8") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            preexec_fn=_die_with_parent if _LIBC else None,
        )
        _running.add(process)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        finally:
            _running.discard(process)
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        status=process.returncode,
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_gigabytes=usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e9,  # Linux counts KiB
    )


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_running() -> None:
    """End what `run` has running in any thread."""
    for process in list(_running):
        process.terminate()


def stop_children_when_stopped() -> None:
    """Let SIGTERM end this script as ^C does, by an exception: `run` then ends its child, which would go on alone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def run_or_fail(command: Sequence[str], threads: int | None = None) -> Cost:
    """Run a command that has to succeed.

    Raises:
        RuntimeError: it failed.
    """
    cost = run(command, threads=threads)
    if cost.status:
        raise RuntimeError(f"{' '.join(command)} ended with status {cost.status}")
    return cost


def last_line(log: Path) -> str:
    """The last line of a log that says something: mostly why a command failed."""
    lines = [line.strip() for line in log.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def environment(threads: int) -> dict[str, str | int | None]:
    """Processor, threads and versions, which every figure needs beside it."""
    found: dict[str, str | int | None] = {"processor": processor(), "cores": processors(), "threads": threads}
    found |= {"system": f"{platform.system()} {platform.release()}", "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
