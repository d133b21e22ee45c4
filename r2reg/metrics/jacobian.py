"""What the Jacobian of a map says at each voxel: volume, rotation and stretch, in the world."""

from __future__ import annotations

import numpy as np

from r2reg.errors import GeometryError
from r2reg.flow.reference import full_jacobian_determinant, slabs
from r2reg.geometry.transforms import Displacement
from r2reg.settings import check_choice

MEASURES = ("determinant", "log", "rotation", "stretch")


def jacobian_map(displacement: Displacement, measure: str) -> np.ndarray:
    """A measure of the Jacobian matrix J of x -> x + u(x), in mm per mm; central differences, one-sided at the border.

    Args:
        measure: determinant; log, its natural logarithm, NaN where the map folds; with the polar decomposition J = R U:
            rotation, the angle of R in degrees; stretch, the eigenvalues of U, the largest first.
    Returns:
        (X, Y[, Z]) float32; of stretch (X, Y[, Z], d).
    Raises:
        GeometryError: an axis of one voxel.
    """
    check_choice("measure", measure, MEASURES)
    if measure in ("determinant", "log"):
        determinant = full_jacobian_determinant(displacement.to_voxels()).astype(np.float32)
        if measure == "determinant":
            return determinant
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(determinant > 0, np.log(determinant), np.nan).astype(np.float32)
    shape, d = displacement.grid.shape, displacement.ndim
    if min(shape) < 2:
        raise GeometryError(f"a Jacobian needs 2 voxels along each axis. Received: {shape}")
    found = np.empty((*shape, d) if measure == "stretch" else shape, np.float32)
    for start, stop in slabs(shape):
        low, high = max(start - 1, 0), min(stop + 1, shape[0])
        inner = slice(start - low, stop - low)
        left, values, right = np.linalg.svd(_matrices(displacement, slice(low, high))[inner])
        if measure == "stretch":
            found[start:stop] = values
        else:
            # Where it folds the factor is a reflection: the rotation left once the smallest stretch is turned.
            left[..., -1] *= np.sign(np.linalg.det(left @ right))[..., None]
            rotation = left @ right
            cosine = (np.trace(rotation, axis1=-2, axis2=-1) - (d - 2)) / 2
            found[start:stop] = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    return found


def _matrices(displacement: Displacement, planes: slice) -> np.ndarray:
    """(x, Y[, Z], d, d): J at the voxels of some planes."""
    vectors = displacement.vectors[planes].astype(np.float64)
    axes = range(displacement.ndim)
    by_voxel = np.stack([np.gradient(vectors, axis=axis) for axis in axes], axis=-1)
    return np.eye(displacement.ndim) + by_voxel @ np.linalg.inv(displacement.grid.affine[:-1, :-1])
