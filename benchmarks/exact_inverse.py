"""How well the inverse of a fitted map of few parameters undoes it: as a map, and by the two fields that are written.

    python benchmarks/exact_inverse.py PAIRS.csv -o OUT.csv [--transform affine-cpab] [--boxes 4] [--threads 1]

PAIRS has the columns moving, fixed, id. Each pair is aligned and fitted as by `r2reg register --transform`. OUT gets a
row a pair: the distance, in voxels, between a voxel and where the map and then its inverse take it, mean, 99th
percentile and the largest, over the voxels that are taken to others within the grid. `theta_...`: the whole map and
its inverse at theta. `fields_...`: the two fields that are written, of CPAB's part, interpolated as a reader of the
files does. And the seconds of the fit.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from results import append_row, read_rows

from r2reg.config import RegisterConfig
from r2reg.startup import start_backend

BLOCK = 100_000  # points carried at once
COLUMNS = (
    "id", "transform", "boxes", "parameters", "seconds", "theta_mean", "theta_p99", "theta_max", "fields_mean",
    "fields_p99", "fields_max",
)  # fmt: skip


def summary(name: str, residuals: np.ndarray) -> dict[str, float]:
    """Mean, 99th percentile and largest."""
    values = {"mean": residuals.mean(), "p99": np.percentile(residuals, 99), "max": residuals.max()}
    return {f"{name}_{key}": float(value) for key, value in values.items()}


def measured(moving: Path, fixed: Path, config: RegisterConfig) -> dict[str, Any]:
    """The row of a pair."""
    from keras import ops

    from r2reg.flow.families import make_family, voxel_shares
    from r2reg.geometry.grid import Grid
    from r2reg.geometry.transforms import Displacement
    from r2reg.metrics.deformation import inverse_residual
    from r2reg.registration.deformation import terms
    from r2reg.registration.pair import read_pair
    from r2reg.registration.parametric import fit_theta, written
    from r2reg.registration.pipeline import align_pair

    aligned = align_pair(read_pair(moving, fixed), config)
    full = aligned.pair.fixed.grid.canonical()
    family = make_family(config.transform, full.ndim, config.boxes)
    begin = time.perf_counter()
    theta = fit_theta(family, terms([aligned], config), full)
    found: dict[str, Any] = {"parameters": family.parameters, "seconds": time.perf_counter() - begin}
    places, size = voxel_shares(full.shape), np.array(full.shape)
    gaps = []
    for k in range(0, len(places), BLOCK):
        x = places[None, k : k + BLOCK]
        there = ops.convert_to_numpy(family.map(theta, x))
        back = ops.convert_to_numpy(family.inverse(theta, there))
        index = there * size - 0.5
        inside = ((index >= 0) & (index <= size - 1)).all(axis=-1)
        gaps.append(np.linalg.norm((back - x) * size, axis=-1)[inside])
    found |= summary("theta", np.concatenate(gaps))
    plain = Grid(full.shape, np.eye(full.ndim + 1))  # mm are voxels
    phi = written(family, theta, full)[0].phi
    fields = [
        Displacement.from_voxels(plain, ops.convert_to_numpy(field)[0]) for field in (phi.displacement, phi.inverse)
    ]
    return found | {f"fields_{key}": value for key, value in inverse_residual(*fields).items()}


def main() -> None:
    """Measure what OUT lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--transform", default="affine-cpab", choices=("cpab", "affine-cpab"))
    parser.add_argument("--boxes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    config = RegisterConfig(transform=options.transform, boxes=options.boxes, threads=options.threads)
    start_backend("cpu", options.threads, False, 0)
    asked = {"transform": options.transform, "boxes": options.boxes}
    known = [(row["id"], row["transform"], row["boxes"]) for row in read_rows(options.output)]
    pairs = read_rows(options.pairs)
    if not pairs or not {"moving", "fixed", "id"} <= set(pairs[0]):
        parser.error(f"{options.pairs}: has no pairs; it needs the columns moving, fixed, id")
    for row in pairs:
        if (row["id"], options.transform, str(options.boxes)) in known:
            continue
        found = measured(options.pairs.parent / row["moving"], options.pairs.parent / row["fixed"], config)
        append_row(options.output, COLUMNS, {"id": row["id"], **asked, **found})
        print(row["id"], *(f"{key} {value:.4g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
