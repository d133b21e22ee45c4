"""Scores of a registration from its transform files alone, the same way for every method.

As a program, `python -m r2reg.evaluation.scoring PAIR.json FOLDER`, it scores what a method left in a folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import R2RegError
from r2reg.geometry.transforms import Displacement, Transform
from r2reg.threads import set_threads

# The structures over which papers of the field report mean Dice, FreeSurfer ids; 24 is the CSF around the brain too.
FREESURFER_STRUCTURES = (
    2, 3, 4, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 28, 31, 41, 42, 43, 46, 47, 49, 50, 51, 52, 53, 54, 60, 63,
)  # fmt: skip
WARP, INVERSE_WARP, AFFINE = "warp.nii.gz", "inverse_warp.nii.gz", "affine.mat"
SCORES_FILE, PICTURES_FILE = "scores.json", "pictures.npz"
NO_DEFORMATION = {
    "folds": 0,
    "ndv_percent": 0.0,
    "digital_folds": 0,
    "sdlogj": 0.0,
    "jacobian_min": 1.0,
    "jacobian_max": 1.0,
}


def read_map(folder: Path) -> tuple[list[Transform], Displacement | None, Displacement | None]:
    """What a method left: the transforms from fixed to moving points, the first acts first; warp and inverse."""
    from r2reg.io.transforms import read_affine, read_transforms

    def field(name: str) -> Displacement | None:
        return read_transforms(folder / name)[0] if (folder / name).exists() else None  # type: ignore[return-value]

    warp, inverse = field(WARP), field(INVERSE_WARP)
    transforms: list[Transform] = [] if warp is None else [warp]
    if (folder / AFFINE).exists():
        transforms.append(read_affine(folder / AFFINE))
    return transforms, warp, inverse


def score(files: dict[str, str], folder: Path, labels: Sequence[int] | None = None) -> tuple[dict[str, Any], dict]:
    """Scores of a pair's registration on fixed's grid, and slices of the fixed and the moved image.

    Overlap: labels carried by nearest neighbour. Likeness: images scaled to [0, 1] before they are carried, linearly.
    Regularity: of the warp alone, which an affine's constant factor would only scale; within fixed's mask, where given.

    Args:
        files: paths by the names of a pairs table, moving and fixed at least.
        folder: what the method left.
        labels: ids to score; default: all but 0.
    Returns:
        {dice, hd95_mm, tre_mm: {"mean", ...}; mse, ncc, lncc; folds, ndv_percent, digital_folds, jacobian_min,
        jacobian_max, sdlogj; inverse_residual_mm: {"mean", "p99", "max"}}; what cannot be known is absent.
        fixed_PLANE and moved_PLANE -> (H, W) uint8, see `report.slices`.
    Raises:
        R2RegError: files that cannot be read or used.
    """
    from r2reg.geometry.transforms import map_points
    from r2reg.io.images import Volume
    from r2reg.metrics.deformation import deformation_metrics, inverse_residual
    from r2reg.metrics.overlap import dice
    from r2reg.metrics.points import tre_mm
    from r2reg.metrics.similarity import image_similarity
    from r2reg.metrics.surface import hd95_mm
    from r2reg.preprocessing.intensity import normalise
    from r2reg.registration.pair import read_pair
    from r2reg.report.slices import middle, slices
    from r2reg.resampling import Resampler

    pair = read_pair(**files)
    transforms, warp, inverse = read_map(folder)
    onto_fixed = Resampler(pair.fixed.grid, transforms)
    mask = pair.fixed_mask.array if pair.fixed_mask else None
    fixed = normalise(pair.fixed.array, name=str(pair.fixed.path))
    moving = normalise(pair.moving.array, name=str(pair.moving.path))
    moved = onto_fixed(Volume(moving, pair.moving.grid), "linear", 0.0)
    found: dict[str, Any] = image_similarity(fixed, moved, mask)
    if pair.fixed_labels and pair.moving_labels:
        carried = onto_fixed(pair.moving_labels, "nearest", 0)
        found["dice"] = dice(pair.fixed_labels.array, carried, labels)
        found["hd95_mm"] = hd95_mm(pair.fixed_labels.array, carried, pair.fixed.grid.spacing, labels)
    if pair.fixed_points and pair.moving_points:
        found["tre_mm"] = tre_mm(map_points(transforms, pair.fixed_points.ras), pair.moving_points.ras)
    if warp is None:
        found |= NO_DEFORMATION
    else:
        found |= deformation_metrics(warp.to_voxels(), mask if warp.grid == pair.fixed.grid else None)
        if inverse is not None:
            found["inverse_residual_mm"] = inverse_residual(warp, inverse)
    shown = {"fixed": fixed, "moved": moved}
    pictures = {
        f"{name}_{plane}": picture
        for name, image in shown.items()
        for plane, picture in slices(image, pair.fixed.grid, middle(fixed)).items()
    }
    return found, pictures


def main() -> None:
    """Score one folder; its scores.json and pictures.npz."""
    asked, folder = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    set_threads(asked["threads"])
    try:
        found, pictures = score(asked["files"], folder, asked["labels"])
    except R2RegError as error:
        sys.exit(" ".join(str(error).split()))
    np.savez_compressed(folder / PICTURES_FILE, allow_pickle=False, **pictures)
    (folder / SCORES_FILE).write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
