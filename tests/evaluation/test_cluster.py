"""Jobs on a Dask cluster of two processes, one of which is killed while it works; and on a Slurm that is played."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r2reg.errors import ConfigError
from r2reg.evaluation import engine
from r2reg.evaluation.benchmark import benchmark
from r2reg.evaluation.engine import executor, run_all

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
TIMES = {"seconds", "seconds_sd", "registration_seconds", "cpu_seconds", "peak_memory_bytes", "scoring_seconds", "host"}


def wait_for(condition, seconds=90):
    """What the condition gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def start(*command):
    return subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path):
    """(address, processes of two workers)."""
    file = tmp_path / "scheduler.json"
    processes = [
        start("distributed.cli.dask_scheduler", "--scheduler-file", str(file), "--port", "0", "--no-dashboard")
    ]
    address = wait_for(lambda: file.exists() and json.loads(file.read_text(encoding="utf-8"))["address"])
    for _ in range(2):
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))
        processes.append(start("distributed.cli.dask_worker", address, *options))
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def threads_work_in(runs):
    """Folder -> process of the registrations that are running in it."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(encoding="utf-8").split("\0")
            parent = int((process / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if "r2reg.evaluation.peers" in command and str(runs) in command[command.index("-o") + 1]:
            found[Path(command[command.index("-o") + 1]).parent] = parent
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_killed_in_the_middle(cluster, pairs, tmp_path):
    address, workers = cluster
    report = tmp_path / "report"
    command = [sys.executable, "-m", "r2reg.cli", "benchmark", str(pairs), "-o", str(report), "--threads", "1"]
    command += ["--method", "identity", "--method", "demons", "--scheduler", address]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    folder, parent = wait_for(lambda: threads_work_in(report)).popitem()
    assert parent in {worker.pid for worker in workers}
    os.kill(parent, signal.SIGKILL)
    _, told = run.communicate(timeout=240)
    assert run.returncode == 0, told
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(report.glob("runs/*/*/result.json"))]
    assert [row["status"] for row in results] == ["done"] * 6
    assert (folder / "result.json").exists()  # done again by the other
    alone = benchmark(pairs, tmp_path / "alone", ["identity", "demons"], threads=1)
    same = lambda rows: sorted(  # noqa: E731
        ({k: v for k, v in row.items() if k not in TIMES} for row in rows), key=lambda row: (row["id"], row["method"])
    )
    assert same(results) == same(alone)
    assert not list(report.glob("runs/*/*/.work-*"))


def test_a_scheduler_that_is_down_is_told_at_once(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 1)
    with pytest.raises(ConfigError, match=r"--scheduler tcp://127\.0\.0\.1:9: cannot be reached \(.*\); start it"):
        benchmark(pairs, tmp_path / "report", ["identity"], scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match="--scheduler nonsense"):
        benchmark(pairs, tmp_path / "other", ["identity"], scheduler="nonsense")


def test_slurm_without_slurm(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(ConfigError, match="no sbatch on this machine"):
        benchmark(pairs, tmp_path / "report", ["identity"], scheduler="slurm")


def test_slurm_played_by_a_script(pairs, tmp_path, monkeypatch):
    """An `sbatch` that runs what it is given: dask-jobqueue's own script starts a worker that does the jobs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\nfor last; do :; done\ncp "$last" job.sh\nsh job.sh > job.log 2>&1 &\n'
        'echo $! > job.pid\necho "Submitted batch job 7"\n',
        encoding="utf-8",
    )
    (tools / "scancel").write_text(f'#!/bin/sh\nkill $(cat "{tmp_path}/job.pid")\n', encoding="utf-8")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    import dask

    settings = {"cores": 1, "memory": "1GB", "processes": 1, "python": sys.executable, "local-directory": str(tmp_path)}
    known = dask.config.get("jobqueue.slurm", {})
    with dask.config.set({"jobqueue.slurm": {**known, **settings}}):
        rows = benchmark(pairs, tmp_path / "report", ["identity"], threads=1, scheduler="slurm")
    assert [row["status"] for row in rows] == ["done"] * 3
    assert (tmp_path / "job.pid").exists()


class OnGpu:
    """A job that needs no images, but a GPU."""

    uses_gpu = True

    def __init__(self, folder, number, work):
        self.folder, self.key, self.work = folder / str(number), str(number), work

    def row(self):
        return {"id": self.key}


def test_each_job_gets_a_gpu_to_itself(tmp_path, monkeypatch):
    """Three jobs, three at a time, on two GPUs: never more than one on each."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    engine._free_gpus.cache_clear()
    busy, seen = set(), []

    def work(_scratch, variables):
        gpu = variables["CUDA_VISIBLE_DEVICES"]
        assert gpu not in busy
        busy.add(gpu)
        seen.append(gpu)
        time.sleep(0.2)
        busy.remove(gpu)
        return {}

    try:
        with executor(3) as pool:
            rows = [row for _, row in run_all([OnGpu(tmp_path, n, work) for n in (10, 11, 12)], pool)]
    finally:
        engine._free_gpus.cache_clear()
    assert [row["status"] for row in rows] == ["done"] * 3
    assert set(seen) == {"4", "6"}
