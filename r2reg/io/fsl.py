"""FSL's transforms: FLIRT's matrices and FNIRT's fields, in millimetres along the voxels of both images.

FSL measures from the first voxel's centre along the array axes; x runs backwards where the affine has a positive
determinant. A map from fixed to moving therefore depends on the grids of both, not on the world.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from r2reg.errors import GridsNeededError, TransformError
from r2reg.geometry.grid import Array, Grid, identity_points
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io.files import atomic_path

log = logging.getLogger("r2reg.io")

INTENT_FIELD, INTENT_COEFFICIENTS = 2006, (2007, 2008, 2009)  # NIfTI intents of FNIRT
RELATIVE = "relative"  # our name of the intent; FSL's own files have none


def index_to_fsl(grid: Grid) -> Array:
    """(4, 4) voxel index -> FSL's mm."""
    matrix = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(grid.affine[:-1, :-1]) > 0:
        matrix[0] *= -1
        matrix[0, -1] = (grid.shape[0] - 1) * grid.spacing[0]
    return matrix


def ras_to_fsl(grid: Grid) -> Array:
    """(4, 4) RAS mm -> FSL's mm."""
    return index_to_fsl(grid) @ np.linalg.inv(grid.affine)


def is_flirt(path: Path) -> bool:
    """Whether a file holds 4 x 4 numbers as text."""
    return _numbers(path) is not None


def _numbers(path: Path) -> Array | None:
    try:
        found = np.array(
            [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()], float
        )
    except (OSError, ValueError):
        return None
    return found if found.shape == (4, 4) else None


def read_flirt(path: Path, fixed: Grid | None, moving: Grid | None) -> Affine:
    """A matrix of FLIRT (moving's mm -> fixed's) as a map of fixed to moving points.

    Raises:
        GridsNeededError: without both grids. TransformError: not 4 x 4 numbers. GeometryError: singular.
    """
    matrix = _numbers(path)
    if matrix is None:
        raise TransformError(f"{path}: is no matrix of FLIRT; it holds other than 4 x 4 numbers")
    fixed, moving = both(path, fixed, moving)
    return Affine(np.linalg.inv(ras_to_fsl(moving)) @ Affine(matrix).inverse().matrix @ ras_to_fsl(fixed))


def write_flirt(path: Path, affine: Affine, fixed: Grid | None, moving: Grid | None) -> None:
    """Write a matrix as FLIRT does, for `flirt -applyxfm -init`.

    Raises:
        GridsNeededError: without both grids. OutputError: it cannot be written.
    """
    fixed, moving = both(path, fixed, moving)
    matrix = ras_to_fsl(fixed) @ np.linalg.inv(affine.matrix) @ np.linalg.inv(ras_to_fsl(moving))
    with atomic_path(path) as temporary:
        temporary.write_text("".join(" ".join(f"{v:.17g}" for v in row) + "\n" for row in matrix), encoding="ascii")


def from_fsl(path: Path, vectors: np.ndarray, grid: Grid, moving: Grid | None, name: str = "") -> Displacement:
    """A field of FNIRT, (X, Y, Z, 3), on the fixed image's grid.

    Args:
        name: of its intent; RELATIVE: it holds displacements. Otherwise that is guessed as FSL's tools do.
    """
    grid, moving = both(path, grid, moving)
    index = identity_points(grid.shape)
    here = Affine(index_to_fsl(grid)).map_points(index)
    values: Array = np.array(vectors, dtype=np.float64)
    there = values if name != RELATIVE and _looks_absolute(values, here) else here + values
    ras = Affine(ras_to_fsl(moving)).inverse().map_points(there)
    return Displacement(grid, (ras - grid.index_to_ras(index)).astype(np.float32))


def to_fsl(path: Path, field: Displacement, moving: Grid | None) -> np.ndarray:
    """(X, Y, Z, 3) float32: what `applywarp --rel` adds to the fixed image's mm to get the moving image's."""
    grid, moving = both(path, field.grid, moving)
    index = identity_points(grid.shape)
    here = Affine(index_to_fsl(grid)).map_points(index)
    found = Affine(ras_to_fsl(moving)).map_points(grid.index_to_ras(index) + field.vectors.astype(np.float64)) - here
    if _looks_absolute(found, here):
        log.warning("%s: FSL's tools will take its displacements for places: give --rel to applywarp", path)
    return found.astype(np.float32)


def _looks_absolute(values: Array, here: Array) -> bool:
    """Whether values vary more than what is left once the voxels' own places are subtracted, FSL's rule."""
    return bool(values.std(axis=(0, 1, 2)).sum() > (values - here).std(axis=(0, 1, 2)).sum())


def both(path: Path, fixed: Grid | None, moving: Grid | None) -> tuple[Grid, Grid]:
    """Both grids.

    Raises:
        GridsNeededError: one is missing. TransformError: 2-D.
    """
    if fixed is None or moving is None:
        raise GridsNeededError(f"{path}: FSL's transforms depend on the grids of both images; name both")
    if fixed.ndim != 3 or moving.ndim != 3:
        raise TransformError(f"{path}: FSL's transforms are 3-D; write .nii.gz or .h5 for ITK")
    return fixed, moving
