"""Scores of a registration from its transform files alone, the same way for every method.

    python benchmarks/transform_scores.py MOVING FIXED RUN [--labels MOVING_LABELS FIXED_LABELS]

RUN holds affine.mat and, where the method deforms, warp.nii.gz and inverse_warp.nii.gz. ANTsPy applies them: labels by
nearest neighbour, the image linearly, both on fixed's grid. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

# The structures over which papers of the field report mean Dice, FreeSurfer ids; 24 is the CSF around the brain too.
STRUCTURES = (
    2, 3, 4, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 28, 31, 41, 42, 43, 46, 47, 49, 50, 51, 52, 53, 54, 60, 63,
)  # fmt: skip


def moved(array: np.ndarray, moving: Path, fixed: Path, run: Path, interpolator: str) -> np.ndarray:
    """(X, Y, Z) voxels of moving, given as an array on its grid, carried onto fixed's grid; axes as nibabel's."""
    import ants

    transforms = [str(run / name) for name in ("warp.nii.gz", "affine.mat") if (run / name).exists()]
    image = ants.image_read(str(moving)).new_image_like(array.astype(np.float32))
    result = ants.apply_transforms(ants.image_read(str(fixed)), image, transforms, interpolator=interpolator)
    return np.asarray(result.numpy())


def overlap(labels: tuple[Path, Path], fixed: Path, run: Path) -> dict[str, Any]:
    """Mean Dice over the structures that either map holds, and each one's."""
    from r2reg.io.images import read_labels
    from r2reg.metrics.overlap import dice

    moving, target = (read_labels(path).array for path in labels)
    carried = np.rint(moved(moving, labels[0], fixed, run, "nearestNeighbor")).astype(np.int32)
    scores = dice(target, carried, STRUCTURES)
    return {"dice_mean": scores["mean"], "dice_per_label": scores["per_label"]}


def likeness(moving: Path, fixed: Path, run: Path) -> dict[str, float]:
    """LNCC and MSE of the images, normalised before they are moved."""
    from r2reg.io.images import read_image
    from r2reg.metrics.similarity import lncc, mse
    from r2reg.preprocessing.intensity import normalise

    source, target = (normalise(read_image(path).array) for path in (moving, fixed))
    result = moved(source, moving, fixed, run, "linear")
    return {"lncc": lncc(target, result), "mse": mse(target, result)}


def regularity(run: Path) -> dict[str, float]:
    """Folds and the like of the warp, and how well the inverse undoes it, in voxels; nothing for an affine alone."""
    from r2reg.io.transforms import read_transforms
    from r2reg.metrics.deformation import deformation_metrics, inverse_residual

    if not (run / "warp.nii.gz").exists():
        return {}
    (warp,), (inverse,) = (read_transforms(run / f"{name}.nii.gz") for name in ("warp", "inverse_warp"))
    residual = inverse_residual(warp, inverse)  # type: ignore[arg-type]
    voxel = float(warp.grid.spacing.mean())  # type: ignore[union-attr]
    measured = deformation_metrics(warp.to_voxels())  # type: ignore[union-attr]
    return measured | {f"inverse_residual_{key}_voxels": residual[key] / voxel for key in ("p99", "max")}


def main() -> None:
    """Score one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moving", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--labels", type=Path, nargs=2, metavar=("MOVING", "FIXED"))
    options = parser.parse_args()
    scores: dict[str, Any] = {**likeness(options.moving, options.fixed, options.run), **regularity(options.run)}
    if options.labels:
        scores |= overlap(tuple(options.labels), options.fixed, options.run)
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
