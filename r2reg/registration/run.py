"""From paths to a run folder: read, register, write, and say how."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from r2reg.config import RegisterConfig
from r2reg.geometry.grid import Grid
from r2reg.io.bids import Sources, derivative, describe_dataset, forward_sidecar
from r2reg.io.files import content_sha256, staging
from r2reg.io.images import Volume
from r2reg.preprocessing.affine.initial import Init
from r2reg.registration.clock import Clock
from r2reg.registration.pair import read_pair
from r2reg.registration.pipeline import check_init, check_request, load_fitting_model, peak_memory_bytes, register
from r2reg.registration.writing import (
    METRICS_FILE,
    check_folder,
    name_as_bids,
    output_staging,
    write_metrics,
    write_result,
)
from r2reg.report.registration import PAGE, write_failure
from r2reg.startup import start_backend, versions
from r2reg.threads import processors, set_threads

log = logging.getLogger("r2reg")

# Peak bytes of the process, and per voxel of each stage's grid: measured on a CPU with TensorFlow 2.21 from 64x80x80
# (1.3 GB) over 160x192x224 (4.4) to 256^3 (7.6), and rounded up.
PROCESS_BYTES = 1.2e9
NETWORK_BYTES_PER_VOXEL = 450  # of what a U-Net sees at once
MERGE_BYTES_PER_VOXEL = 150  # of a multi-scale network's phase 2
FIELD_BYTES_PER_VOXEL = 240


def register_files(
    moving: Path | str,
    fixed: Path | str,
    folder: Path | str,
    config: RegisterConfig,
    *,
    optional: Mapping[str, Path | None] | None = None,
    overwrite: bool = False,
    report: bool = True,
    bids: bool = False,
) -> dict[str, Any]:
    """Register two files and write the run folder.

    Args:
        optional: paths of labels, masks and points by the names of `pair.OPTIONAL`.
        report: write report.html as well, also of a failure unless the folder holds an earlier result.
        bids: the folder is a data set of BIDS derivatives; files are named after moving's and fixed's.
    Returns:
        The content of metrics.json.
    Raises:
        R2RegError: one line; nothing but a report is left in the folder.
    """
    began = time.perf_counter()
    set_threads(config.threads)
    folder = Path(folder)
    check_init(config.init)
    found = derivative(moving, fixed) if bids else None
    root, folder = folder, folder / (found.folder if found else "")
    check_folder(folder, overwrite, found)
    sources = Sources(root, moving, fixed) if found else None
    clock = Clock()
    known: dict[str, Any] = {"seconds": clock.seconds, "command": shlex.join(sys.argv), "versions": versions()}
    images: dict[str, Volume] = {}

    def start() -> None:
        if config.transform != "affine":
            with clock.stage("backend"):
                start_backend(config.device, config.threads, config.deterministic, config.seed)

    def metrics() -> dict[str, Any]:
        seconds = dict.fromkeys(("load", "affine", "network", "refine", "write"), 0.0) | clock.seconds
        seconds["total"] = time.perf_counter() - began
        memory = {"peak_memory_bytes": peak_memory_bytes()}
        how = {**_environment(config), "config": config.to_dict()}
        about = forward_sidecar(found, sources) if found and sources else {}
        return about | result.metrics | known | {"seconds": seconds} | memory | how

    try:
        with clock.stage("load"):
            pair = read_pair(moving, fixed, **(optional or {}))
            images |= {"moving": pair.moving, "fixed": pair.fixed}
            given = [*pair.paths, *(Path(p) for p in [config.init] if p not in get_args(Init))]
            known["inputs"] = {str(path): content_sha256(path) for path in given}
        result = register(pair, config, clock, start)
        with output_staging(folder, found) as temporary:
            with clock.stage("write"):
                pictures = write_result(result, temporary, ("h5",) if found else None, report)
            written = write_metrics(metrics(), temporary, pictures)
            if found and sources:
                name_as_bids(temporary, found, moving, sources)
        if sources:
            describe_dataset(root, sources.links)
        return written
    except Exception as error:
        page, mark = (found.names[PAGE], found.names[METRICS_FILE]) if found else (PAGE, METRICS_FILE)
        if report and not (folder / mark).exists():
            reason = " ".join(str(error).split()) or type(error).__name__
            with suppress(Exception), staging(folder, [page]) as temporary:  # the first error is what counts
                write_failure(temporary, reason, known, images).rename(temporary / page)
        raise


def _environment(config: RegisterConfig) -> dict[str, Any]:
    found = {"backend": "none", "device": "cpu"}
    if config.transform != "affine":
        import keras

        from r2reg.flow import backend

        gpu = config.device != "cpu" and backend.devices()["gpu"] > 0
        found = {"backend": keras.backend.backend(), "device": "gpu" if gpu else "cpu"}
    threads = config.threads or processors()
    return {**found, "threads": threads, "seed": config.seed}


def plan(
    moving: Path | str,
    fixed: Path | str,
    folder: Path | str,
    config: RegisterConfig,
    *,
    optional: Mapping[str, Path | None] | None = None,
    overwrite: bool = False,
    bids: bool = False,
) -> dict[str, Any]:
    """What `register_files` would do with the same arguments, all inputs checked: grids, stages and memory.

    Raises:
        R2RegError: as `register_files` would before its work.
    """
    check_init(config.init)
    found = derivative(moving, fixed) if bids else None
    check_folder(Path(folder) / (found.folder if found else ""), overwrite, found)
    pair = read_pair(moving, fixed, **(optional or {}))
    check_request(pair, config)
    full = pair.fixed.grid.canonical()
    stages: list[dict[str, Any]] = [{"stage": "affine", "init": config.init}]
    network_bytes = 0
    if config.transform != "affine":
        start_backend(config.device, config.threads, config.deterministic, config.seed)
    model = load_fitting_model(pair, config)
    if config.transform not in ("affine", "flow"):
        from r2reg.registration.parametric import fit_grids

        stages += [{"stage": "fit", "family": config.transform, "grid": _describe(grid)} for grid in fit_grids(full)]
    if config.transform == "flow":
        from r2reg.registration.refinement import level_grid, levels_from

        if model is not None:
            from r2reg.networks.tiles import largest_view
            from r2reg.registration.network import network_grid

            grid = network_grid(model, full)
            network_bytes = NETWORK_BYTES_PER_VOXEL * largest_view(grid.shape, model.network)
            if model.network.two_phase:
                network_bytes += MERGE_BYTES_PER_VOXEL * math.prod(grid.shape)
            model.check()
            stages.append({"stage": "network", "model": model.folder.resolve().name, "grid": _describe(grid)})
        for level in levels_from(config.refine, full, None if model is None else model.network):
            grid = level_grid(full, level.factor)
            stages.append({"stage": "refine", "steps": level.steps, "grid": _describe(grid)})
    voxels = math.prod(pair.fixed.grid.shape) + math.prod(pair.moving.grid.shape)
    memory = PROCESS_BYTES + max(network_bytes, voxels * FIELD_BYTES_PER_VOXEL)
    return {
        "moving": _describe(pair.moving.grid),
        "fixed": _describe(pair.fixed.grid),
        "stages": stages,
        "estimated_memory_bytes": int(memory),
    }


def _describe(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "spacing_mm": [round(float(s), 4) for s in grid.spacing]}
