"""From paths to a run folder: read, register, write, and say how."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2reg.config import RegisterConfig
from r2reg.geometry.grid import Grid
from r2reg.io.files import sha256
from r2reg.io.images import read_reference
from r2reg.registration.pair import read_pair
from r2reg.registration.pipeline import Clock, peak_memory_bytes, register
from r2reg.registration.writing import check_folder, staging, write_metrics, write_result
from r2reg.startup import start_backend, versions

log = logging.getLogger("r2reg")

# Peak bytes per voxel of each stage's grid, measured on a CPU with TensorFlow 2.21 at 160x192x224 and rounded up.
PROCESS_BYTES = 700e6
NETWORK_BYTES_PER_VOXEL = 450
FIELD_BYTES_PER_VOXEL = 300


def register_files(
    moving: Path | str,
    fixed: Path | str,
    folder: Path | str,
    config: RegisterConfig,
    *,
    optional: Mapping[str, Path | None] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Register two files and write the run folder.

    Args:
        optional: paths of labels, masks and points by the names of `pair.OPTIONAL`.
    Returns:
        The content of metrics.json.
    Raises:
        R2RegError: one line; nothing is left in the folder.
    """
    start = time.perf_counter()
    folder = Path(folder)
    check_folder(folder, overwrite)
    clock = Clock()
    with clock.stage("load"):
        pair = read_pair(moving, fixed, **(optional or {}))
        inputs = {str(path): sha256(path) for path in pair.paths if path.is_file()}
    if config.transform == "flow":
        start_backend(config.device, config.threads, config.deterministic, config.seed)
    result = register(pair, config, clock)
    with staging(folder) as temporary:
        with clock.stage("write"):
            write_result(result, temporary)
        seconds = dict.fromkeys(("load", "affine", "network", "refine", "write"), 0.0) | clock.seconds
        metrics = result.metrics | {
            "seconds": seconds | {"total": time.perf_counter() - start},
            "peak_memory_bytes": peak_memory_bytes(),
            **_environment(config),
            "config": config.to_dict(),
            "command": " ".join(sys.argv),
            "inputs": inputs,
        }
        write_metrics(metrics, temporary)
    return metrics


def _environment(config: RegisterConfig) -> dict[str, Any]:
    found = {"backend": "none", "device": "cpu"}
    if config.transform == "flow":
        import keras

        from r2reg.flow import backend

        gpu = config.device != "cpu" and backend.devices()["gpu"] > 0
        found = {"backend": keras.backend.backend(), "device": "gpu" if gpu else "cpu"}
    threads = config.threads or len(os.sched_getaffinity(0))
    return {**found, "threads": threads, "versions": versions(), "seed": config.seed}


def plan(moving: Path | str, fixed: Path | str, config: RegisterConfig) -> dict[str, Any]:
    """What a registration would do, from headers and settings alone: grids, stages and memory.

    Raises:
        ImageError, ModelError: a file or model that cannot be used.
    """
    grids = {"moving": read_reference(moving).grid, "fixed": read_reference(fixed).grid}
    full = grids["fixed"].canonical()
    stages: list[dict[str, Any]] = [{"stage": "affine", "init": config.init}]
    network_voxels = 0
    if config.transform == "flow" and config.model != "none":
        from r2reg.networks.saving import load_model
        from r2reg.registration.network import network_grid

        grid = network_grid(load_model(config.model), full)
        network_voxels = _voxels(grid)
        stages.append({"stage": "network", "model": config.model, "grid": _describe(grid)})
    if config.transform == "flow":
        from r2reg.registration.refinement import level_grid, levels_for

        for level in levels_for(config.refine):
            grid = level_grid(full, level.factor)
            stages.append({"stage": "refine", "steps": level.steps, "grid": _describe(grid)})
    memory = PROCESS_BYTES + max(
        network_voxels * NETWORK_BYTES_PER_VOXEL,
        (_voxels(grids["fixed"]) + _voxels(grids["moving"])) * FIELD_BYTES_PER_VOXEL,
    )
    return {
        **{name: _describe(grid) for name, grid in grids.items()},
        "stages": stages,
        "estimated_memory_bytes": int(memory),
    }


def _voxels(grid: Grid) -> int:
    count = 1
    for n in grid.shape:
        count *= n
    return count


def _describe(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "spacing_mm": [round(float(s), 4) for s in grid.spacing]}
