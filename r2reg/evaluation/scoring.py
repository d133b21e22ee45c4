"""Scores of a registration from its transform files alone, the same way for every method.

As a program, `python -m r2reg.evaluation.scoring PAIR.json FOLDER`, it scores what a method left in a folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.errors import R2RegError, TableError
from r2reg.geometry.transforms import Displacement, Transform
from r2reg.threads import set_threads

if TYPE_CHECKING:
    from r2reg.geometry.grid import Grid
    from r2reg.io.images import Volume
    from r2reg.resampling import Resampler

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


def evaluate(files: dict[str, str], specs: Sequence[str] = (), labels: Sequence[int] | None = None) -> dict[str, Any]:
    """Scores of transforms, or without any of images, labels and points as they lie, on fixed's grid.

    Args:
        files: paths by the names of a pairs table, as many as there are; a moving one needs its fixed one.
        specs: transforms, see `read_transform_list`.
        labels: ids to score; default: all but 0.
    Returns:
        As `score`, what cannot be known is absent; `inverse_residual_mm` always is. Folds are the first field's.
    Raises:
        R2RegError: files that cannot be read or used.
    """
    from r2reg.geometry.transforms import map_points
    from r2reg.io.images import read_image, read_labels, read_mask
    from r2reg.io.points import warn_of_outside
    from r2reg.io.transforms import read_transform_list
    from r2reg.metrics.points import tre_mm
    from r2reg.registration.pair import on_grid
    from r2reg.resampling import Resampler

    readers = {"": read_image, "_labels": read_labels, "_mask": read_mask}
    kinds = {f"{side}{kind}": read for side in ("fixed", "moving") for kind, read in readers.items()}
    given = {name: read(files[name]) for name, read in kinds.items() if name in files}
    grids = {
        side: next((given[name].grid for name in (side, f"{side}_labels") if name in given), None)
        for side in ("fixed", "moving")
    }
    transforms = read_transform_list(specs, **grids)

    def mask_on(grid: Grid) -> np.ndarray | None:
        return on_grid(given["fixed_mask"], grid, "fixed_mask").array if "fixed_mask" in given else None

    found: dict[str, Any] = {}
    if {"fixed", "moving"} <= given.keys():
        fixed = given["fixed"]
        onto_fixed = Resampler(fixed.grid, transforms)
        found |= _likeness(fixed, given["moving"], onto_fixed, mask_on(fixed.grid))[0]
    if {"fixed_labels", "moving_labels"} <= given.keys():
        still = given["fixed_labels"]
        found |= _overlap(still, given["moving_labels"], Resampler(still.grid, transforms), labels)
    if {"fixed_points", "moving_points"} <= files.keys():
        ndims = [part.ndim for part in (*transforms, *grids.values()) if part is not None]
        points = [_points(files[f"{side}_points"], ndims[0] if ndims else None) for side in ("fixed", "moving")]
        warn_of_outside(transforms, points[0])
        found["tre_mm"] = tre_mm(map_points(transforms, points[0]), points[1])
    warp = next((part for part in transforms if isinstance(part, Displacement)), None)
    return found if warp is None else found | _regularity(warp, mask_on(warp.grid))


def _points(path: str, ndim: int | None) -> np.ndarray:
    """(n, d) RAS mm; of unknown dimension 3-D where the file says so."""
    from r2reg.io.points import read_points

    try:
        return read_points(path, ndim or 3).ras
    except TableError:
        if ndim is not None:
            raise
        return read_points(path, 2).ras


def _likeness(
    fixed: Volume, moving: Volume, onto_fixed: Resampler, mask: np.ndarray | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scores, and both images in [0, 1] on fixed's grid."""
    from r2reg.metrics.similarity import image_similarity
    from r2reg.preprocessing.intensity import normalise

    still = normalise(fixed.array, name=str(fixed.path))
    moved = onto_fixed(moving.with_array(normalise(moving.array, name=str(moving.path))), "linear", 0.0)
    return image_similarity(still, moved, mask), {"fixed": still, "moved": moved}


def _overlap(fixed: Volume, moving: Volume, onto_fixed: Resampler, labels: Sequence[int] | None) -> dict[str, Any]:
    from r2reg.metrics.overlap import dice
    from r2reg.metrics.surface import hd95_mm

    carried = onto_fixed(moving, "nearest", 0)
    distances = hd95_mm(fixed.array, carried, fixed.grid.spacing, labels)
    return {"dice": dice(fixed.array, carried, labels), "hd95_mm": distances}


def _regularity(warp: Displacement, mask: np.ndarray | None) -> dict[str, Any]:
    from r2reg.metrics.deformation import deformation_metrics

    return deformation_metrics(warp.to_voxels(), mask)


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
        fixed_PLANE and moved_PLANE -> (H, W) uint8, see `report.views`.
    Raises:
        R2RegError: files that cannot be read or used.
    """
    from r2reg.geometry.transforms import map_points
    from r2reg.metrics.deformation import inverse_residual
    from r2reg.metrics.points import tre_mm
    from r2reg.registration.pair import read_pair
    from r2reg.report.views import grey, slices, views
    from r2reg.resampling import Resampler

    pair = read_pair(**files)
    transforms, warp, inverse = read_map(folder)
    onto_fixed = Resampler(pair.fixed.grid, transforms)
    mask = pair.fixed_mask.array if pair.fixed_mask else None
    found, shown = _likeness(pair.fixed, pair.moving, onto_fixed, mask)
    if pair.fixed_labels and pair.moving_labels:
        found |= _overlap(pair.fixed_labels, pair.moving_labels, onto_fixed, labels)
    if pair.fixed_points and pair.moving_points:
        found["tre_mm"] = tre_mm(map_points(transforms, pair.fixed_points.ras), pair.moving_points.ras)
    if warp is None:
        found |= NO_DEFORMATION
    else:
        found |= _regularity(warp, mask if warp.grid == pair.fixed.grid else None)
        if inverse is not None:
            found["inverse_residual_mm"] = inverse_residual(warp, inverse)
    pictures = {
        f"{name}_{plane}": grey(slices(pair.fixed.with_array(image), view))[0]
        for plane, view in views(shown["fixed"], pair.fixed.grid).items()
        for name, image in shown.items()
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
