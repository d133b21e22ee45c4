"""What networks cost over the image's size: each cell measured in a process of its own (Joshi & Hong 2023, Table 2).

As a program, `python -m r2reg.evaluation.cost METHOD SIZE MODE RUNS`, it measures one cell and prints it as JSON.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2reg.errors import ConfigError
from r2reg.io.files import atomic_path
from r2reg.io.tables import write_table

if TYPE_CHECKING:
    from r2reg.config import NetworkConfig

# Name -> settings of the network.
METHODS: dict[str, dict[str, Any]] = {
    "vm-diff-full": {"network": "vm-diff", "velocity_size": "full"},
    "vm-diff-half": {"network": "vm-diff"},
    "svf-r2net-prob": {"network": "svf-r2net", "velocity": "prob"},
    "nsvf-r2net-prob": {"network": "nsvf-r2net", "velocity": "prob"},
    "svf-r2net-nonprob": {"network": "svf-r2net"},
    "nsvf-r2net-nonprob": {"network": "nsvf-r2net"},
    "nsvf-r2net-nonprob-flow": {"network": "nsvf-r2net", "integrator": "flow"},
    "ms-nsvf-r2net": {"network": "ms-nsvf-r2net"},  # phase 2
    "ms-nsvf-r2net-chunk": {"network": "ms-nsvf-r2net"},
    "ms-nsvf-r2net-coarse": {"network": "ms-nsvf-r2net"},
}
MODES = ("train", "infer")
# The paper's, a TITAN X: seconds per iteration, GB.
PAPER: dict[tuple[str, int], tuple[float, float]] = {
    (method, size): cell
    for method, column in {
        "vm-diff-full": ((0.113, 1.4), (0.298, 2.4), (0.419, 4.4), (0.600, 8.5), (0.907, 8.5)),
        "svf-r2net-prob": ((0.170, 0.9), (0.432, 1.4), (0.651, 2.4), (0.915, 4.5), (1, 4.5), (3, 8.5), (4, 11.8)),
        "nsvf-r2net-prob": ((0.174, 0.9), (0.433, 1.4), (0.660, 2.4), (0.908, 4.5), (1, 4.5), (3, 8.5), (4, 11.8)),
        "svf-r2net-nonprob": ((0.153, 0.7), (0.387, 1.4), (0.567, 2.4), (0.788, 2.4), (1, 4.5), (2, 8.5), (3, 11.8)),
        "nsvf-r2net-nonprob": (
            *((0.156, 0.7), (0.390, 1.4), (0.577, 2.4), (0.799, 2.4), (1, 4.5), (2, 8.5), (3.5, 11.8)),
        ),
    }.items()
    for size, cell in zip((64, 96, 112, 128, 144, 192, 224), column, strict=False)
}
COLUMNS = (
    "method",
    "size",
    "mode",
    "status",
    "seconds_mean",
    "seconds_sd",
    "runs",
    "threads",
    "peak_gigabytes",
    "device",
    "reason",
)


def measure_all(
    folder: Path, sizes: Sequence[int], methods: Sequence[str], runs: int, threads: int, say: Callable[[str], None]
) -> list[dict[str, str]]:
    """Fill FOLDER/cost.csv with what it lacks, smallest sizes first; a cell that fails becomes a row with its reason.

    A cell is measured anew where it failed, or was measured with other runs or threads.

    Returns:
        All rows of the table, as text, by size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "cost.csv"
    known = {_key(row): row for row in _read(table)}
    for size, method, mode in _cells(sizes, methods):
        asked = {"method": method, "size": str(size), "mode": mode, "runs": str(runs), "threads": str(threads)}
        before = known.get(_key(asked), {})
        if asked.items() <= before.items() and before["status"] == "done":
            continue
        row = asked | _cell_in_a_process(method, size, mode, runs, threads)
        if row["status"] == "done" or before.get("status") != "done":
            known[_key(row)] = row
        write_table(table, _sorted(known.values()), COLUMNS)
        figures = row.get("reason") or f"{row['seconds_mean']} s, {row['peak_gigabytes']} GB"
        say(f"{method} {size}^3 {mode}: {figures}")
    rows = _sorted(known.values())
    with atomic_path(folder / "cost.md") as path:
        path.write_text(report(rows), encoding="utf-8")
    return rows


def _key(row: dict[str, str]) -> tuple[int, int, str, int]:
    """A cell's place in the table."""
    place = list(METHODS).index(row["method"]) if row["method"] in METHODS else len(METHODS)
    return int(row["size"]), place, row["method"], MODES.index(row["mode"])


def _sorted(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=_key)


def _cells(sizes: Sequence[int], methods: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    for size in sorted(sizes):
        for method in methods:
            for mode in MODES:
                if mode == "train" or not method.endswith(("-chunk", "-coarse")):
                    yield size, method, mode


def _read(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _cell_in_a_process(method: str, size: int, mode: str, runs: int, threads: int) -> dict[str, str]:
    command = [sys.executable, "-m", "r2reg.evaluation.cost", method, str(size), mode, str(runs), str(threads)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    if done.returncode:
        killed = f"killed by signal {-done.returncode}, perhaps for memory" if done.returncode < 0 else ""
        return {"status": "failed", "reason": killed or (lines[-1][:200] if lines else f"status {done.returncode}")}
    found: dict[str, Any] = json.loads(lines[-1])
    return {"status": "done", **{key: str(value) for key, value in found.items()}}


def cell(method: str, size: int, mode: str, runs: int, threads: int) -> dict[str, Any]:
    """One cell, measured in this process: seconds of `runs` after a first that is not counted, and peak memory."""
    if method not in METHODS or mode not in MODES:
        raise ConfigError(
            f"method must be one of {', '.join(METHODS)}, mode train or infer. Received: {method}, {mode}"
        )
    from r2reg.startup import start_backend

    start_backend("auto", threads, False, 0)
    from r2reg.config import NetworkConfig
    from r2reg.flow import backend
    from r2reg.registration.pipeline import peak_memory_bytes

    model = NetworkConfig(**METHODS[method])
    shape = (size,) * model.ndim
    part = method.rpartition("-")[2]
    call = training_step(model, shape, part) if mode == "train" else forward_pass(model, shape)
    seconds = seconds_of(call, runs)
    gpus = backend.devices()["gpu"]
    peak = backend.peak_gpu_bytes() if gpus else peak_memory_bytes()
    return {
        "seconds_mean": round(statistics.fmean(seconds), 4),
        "seconds_sd": round(statistics.stdev(seconds), 4) if runs > 1 else 0.0,
        "peak_gigabytes": round(peak / 1e9, 3),
        "device": "gpu" if gpus else "cpu",
    }


def seconds_of(call: Callable[[], Any], runs: int) -> list[float]:
    """What each of `runs` calls takes, after a first that is not counted."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def training_step(model: NetworkConfig, shape: tuple[int, ...], part: str = "") -> Callable[[], Any]:
    """A training step of the paper's objective on random images.

    Args:
        shape: of the images. part: of a multi-scale network, chunk or coarse: that branch; else phase 2.
    """
    import numpy as np

    from r2reg.config import TrainConfig
    from r2reg.networks.build import build_network
    from r2reg.networks.tiles import tile_shape
    from r2reg.training.trainer import make_trainer

    if part == "chunk":
        shape = tile_shape(shape, model.chunks, model.overlap, model.stride)
        model = model.branch("chunk")
    if part == "coarse":
        shape = tuple(-(-n // model.downsampling) for n in shape)
        model = model.branch("coarse")
    network = build_network(model, shape)
    trainer = make_trainer(network, TrainConfig(model=model, weights={"diffusion": 0.0}))
    rng = np.random.default_rng(0)
    batch = {name: rng.random((1, *shape, 1), np.float32) for name in ("moving", "fixed")}
    batch |= {
        tensor.name: np.zeros((1, *tensor.shape[1:]), np.float32)
        for tensor in network.inputs
        if tensor.name not in batch
    }
    return lambda: trainer.train_on_batch(batch)


def forward_pass(model: NetworkConfig, shape: tuple[int, ...]) -> Callable[[], Any]:
    """A pair's displacement; of a multi-scale network its chunks and its coarse image as well."""
    import numpy as np

    from r2reg.flow import backend
    from r2reg.networks.branches import Branches
    from r2reg.networks.build import build_network

    network = build_network(model, shape)
    network.compile(jit_compile=backend.jit_compile())
    images = list(np.random.default_rng(0).random((2, 1, *shape, 1), np.float32))
    if not model.two_phase:
        return lambda: network.predict_on_batch(images)
    branches = Branches.untrained(model, shape)
    return lambda: network.predict_on_batch(list(branches(*images).values()))


def report(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table: a line per size and method, the paper's figures beside ours."""
    cells = {(row["size"], row["method"], row["mode"]): row for row in rows}
    lines = [
        "| n^3 | network | training step, s | memory, GB | inference, s | memory, GB | paper: step, s | memory, GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = dict.fromkeys((row["size"], row["method"]) for row in rows)
    for size, method in keys:
        told = []
        for mode in MODES:
            row = cells.get((size, method, mode))
            if row is None:
                told += ["", ""]
            elif row["status"] != "done":
                told += [f"failed: {row['reason']}", ""]
            else:
                told += [f"{float(row['seconds_mean']):.3f} ± {float(row['seconds_sd']):.3f}", row["peak_gigabytes"]]
        theirs = PAPER.get((method, int(size)))
        told += [f"{theirs[0]:g}", f"{theirs[1]:g}"] if theirs else ["", ""]
        lines.append(f"| {size} | {method} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(json.dumps(cell(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
