"""Commands in a process of their own: wall and CPU seconds, peak memory, exit status; and where they ran."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("r2reg", "tensorflow", "keras", "numpy", "SimpleITK", "antspyx")
R2REG = (sys.executable, "-m", "r2reg.cli")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cost:
    """What a finished process took; gigabytes are 1e9 bytes of resident memory."""

    status: int
    wall_seconds: float
    cpu_seconds: float
    peak_gigabytes: float


def stop_children_when_stopped() -> None:
    """Let SIGTERM end this script as ^C does, by an exception: `run` then ends its child, which would go on alone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def run(command: list[str], log: Path | None = None, threads: int | None = None) -> Cost:
    """Run a command to its end.

    Linux starts a child's peak memory at its parent's size, so a script that measures must itself stay small: numpy
    and images belong into children.

    Args:
        log: file for its output and errors; default: dropped.
        threads: of ITK, whose filters read them from the environment; ITK's random numbers are seeded too.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads), "ANTS_RANDOM_SEED": "1"}
    with Path(log or os.devnull).open("w") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        status=process.returncode,
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_gigabytes=usage.ru_maxrss * 1024 / 1e9,  # Linux counts KiB
    )


def run_or_fail(command: list[str], threads: int | None = None) -> Cost:
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
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def environment(threads: int) -> dict[str, str | int | None]:
    """Processor, threads and versions, which every figure needs beside it."""
    found: dict[str, str | int | None] = {"processor": processor(), "cores": os.cpu_count(), "threads": threads}
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
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
