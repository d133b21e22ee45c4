"""Jobs that run commands, several at a time here or on a cluster, and keep each result as soon as it is there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import shutil
import statistics
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from r2reg.errors import ConfigError, OutputError, R2RegError
from r2reg.evaluation.processes import last_line, run, stop_running
from r2reg.io.files import atomic_path

RESULT_FILE, LOG_FILE = "result.json", "log.txt"
SCHEMA_VERSION = 1
CONNECT_SECONDS = 15
RETRIES = 2  # of a job whose worker died
_stopping = threading.Event()


class Job(Protocol):
    """One thing to do, which can be sent to another process."""

    @property
    def folder(self) -> Path:
        """Its own; `result.json` in it, with `key`, says that it is done."""

    @property
    def key(self) -> str:
        """Digest of all that decides the result."""

    def row(self) -> dict[str, Any]:
        """What a row of results begins with."""

    def work(self, scratch: Path, variables: dict[str, str]) -> dict[str, Any]:
        """Do it in an empty folder of its own; raises R2RegError where it fails. What is to stay is moved out of it."""

    @property
    def uses_gpu(self) -> bool:
        """Whether it wants a GPU to itself, where there is one."""


AnyJob = TypeVar("AnyJob", bound=Job)


class Stopped(Exception):
    """The run was interrupted; what was in flight leaves nothing."""


def known_result(job: Job) -> dict[str, Any] | None:
    """The result of a job that was done before, with the same settings and inputs; None where it has to be done."""
    try:
        found: dict[str, Any] = json.loads((job.folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    valid = isinstance(found, dict) and found.get("key") == job.key and found.get("status") == "done"
    return found if valid and found.get("schema_version") == SCHEMA_VERSION else None


def run_job(job: Job) -> dict[str, Any]:
    """Do a job and write its result.json; a failure becomes a row with its reason.

    Raises:
        OutputError: its folder cannot be written.
        Stopped: interrupted.
    """
    scratch = job.folder / f".work-{uuid.uuid4().hex[:12]}"
    row = {"schema_version": SCHEMA_VERSION, "key": job.key, **job.row(), "host": platform.node()}
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        for left in job.folder.glob(".work-*"):  # of a run that was cut off
            shutil.rmtree(left, ignore_errors=True)
        (job.folder / RESULT_FILE).unlink(missing_ok=True)
        scratch.mkdir()
        with _a_gpu(job.uses_gpu) as variables:
            try:
                row |= {"status": "done", "reason": "", **job.work(scratch, variables)}
            except OutputError:
                raise
            except R2RegError as error:
                row |= {"status": "failed", "reason": str(error)}
        if _stopping.is_set():
            raise Stopped
        with atomic_path(job.folder / RESULT_FILE) as path:
            path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{job.folder}: cannot be written ({reason}); free space, then go on with --resume") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return row


@dataclass(frozen=True)
class Timing:
    """Of a command that was run several times: means over the runs, and the largest memory."""

    seconds: float
    seconds_sd: float
    cpu_seconds: float
    peak_memory_bytes: int


def timed(command: Sequence[str], scratch: Path, threads: int, repeats: int, variables: dict[str, str]) -> Timing:
    """Run a command, with its output in scratch/log.txt.

    Raises:
        R2RegError: it failed; the last line that it printed.
        Stopped: interrupted.
    """
    costs = []
    for _ in range(repeats):
        cost = run(command, scratch / LOG_FILE, threads, variables)
        if _stopping.is_set():
            raise Stopped
        if cost.status:
            killed = f"killed by signal {-cost.status}, perhaps for memory" if cost.status < 0 else ""
            raise R2RegError(killed or last_line(scratch / LOG_FILE))
        costs.append(cost)
    walls = [cost.wall_seconds for cost in costs]
    return Timing(
        seconds=statistics.fmean(walls),
        seconds_sd=statistics.stdev(walls) if repeats > 1 else 0.0,
        cpu_seconds=statistics.fmean(cost.cpu_seconds for cost in costs),
        peak_memory_bytes=int(max(cost.peak_gigabytes for cost in costs) * 1e9),
    )


def run_all(jobs: Sequence[AnyJob], executor: Executor) -> Iterator[tuple[AnyJob, dict[str, Any]]]:
    """Do all jobs; each with its row, in the order in which they end.

    Raises:
        OutputError: a result could not be written; what was running is ended.
    """
    options = {"retries": RETRIES, "pure": False} if _is_dask(executor) else {}
    waiting = {executor.submit(run_job, job, **options): job for job in jobs}
    try:
        for future in as_completed(waiting):
            job = waiting[future]
            try:
                row = future.result()
            except (R2RegError, Stopped):
                raise
            except Exception as error:  # a worker that died again and again, or lost its connection
                told = " ".join(str(error).split())[:300]
                row = {**job.row(), "status": "failed", "reason": f"{type(error).__name__}: {told}"}
            yield job, row
    except BaseException:
        for future in waiting:
            future.cancel()
        _stopping.set()
        stop_running()
        raise


def _is_dask(executor: Executor) -> bool:
    return type(executor).__module__.startswith("distributed")


@contextlib.contextmanager
def executor(jobs: int, scheduler: str = "") -> Iterator[Executor]:
    """What runs jobs: threads of this process, or the workers of a Dask cluster.

    Args:
        jobs: at a time; of Slurm, how many workers to ask for.
        scheduler: address of a Dask scheduler, or "slurm", set up as dask-jobqueue's own configuration says.
    Raises:
        ConfigError: the scheduler cannot be reached, or Dask is not installed.
    """
    if not scheduler:
        _stopping.clear()
        with ThreadPoolExecutor(jobs) as pool:
            yield pool
        return
    with _dask_client(jobs, scheduler) as client:
        yield client.get_executor()


@contextlib.contextmanager
def _dask_client(jobs: int, scheduler: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(f"--scheduler {scheduler}: Dask is not installed; pip install 'r2reg[cluster]'") from None
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if scheduler == "slurm":
            address = stack.enter_context(_slurm_cluster(jobs))
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"--scheduler {scheduler}: cannot be reached ({told}); start it, or check the address"
            ) from None
        yield client


def _slurm_cluster(jobs: int) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ConfigError("--scheduler slurm: dask-jobqueue is not installed; pip install 'r2reg[cluster]'") from None
    if shutil.which("sbatch") is None:
        raise ConfigError("--scheduler slurm: there is no sbatch on this machine; run it on the cluster's login node")
    try:
        cluster = SLURMCluster()
    except (ValueError, TypeError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"--scheduler slurm: {told}; set cores and memory in ~/.config/dask/jobqueue.yaml") from None
    cluster.scale(jobs=jobs)
    return cluster


@cache
def _free_gpus() -> queue.Queue[str] | None:
    """The GPUs of this machine that no job has, by the names CUDA_VISIBLE_DEVICES takes; None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    elif shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", check=False).stdout
        names = [str(k) for k, line in enumerate(listed.splitlines()) if line.startswith("GPU")]
    else:
        names = []
    if not names:
        return None
    free: queue.Queue[str] = queue.Queue()
    for name in names:
        free.put(name)
    return free


@contextlib.contextmanager
def _a_gpu(wanted: bool) -> Iterator[dict[str, str]]:
    """A GPU to oneself where there is any, as the environment that says so; waits for one."""
    free = _free_gpus() if wanted else None
    if free is None:
        yield {}
        return
    name = free.get()
    try:
        yield {"CUDA_VISIBLE_DEVICES": name}
    finally:
        free.put(name)
