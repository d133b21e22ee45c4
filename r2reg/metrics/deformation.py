"""How regular a deformation is, and how well its inverse undoes it."""

from __future__ import annotations

import numpy as np

from r2reg.errors import GeometryError
from r2reg.flow.reference import as_field, cell_determinants, full_jacobian_determinant, slabs
from r2reg.geometry.transforms import Displacement

# log|J| needs a positive number; a voxel that folds or collapses counts as shrunk by this factor.
JACOBIAN_FLOOR = 1e-9


def deformation_metrics(displacement_voxels: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """Regularity of x -> x + u(x).

    Args:
        displacement_voxels: (X, Y[, Z], d), voxels, components in array-axis order, at least 2 voxels per
            axis.
        mask: (X, Y[, Z]), voxels to judge; default: all, the border with one-sided differences.
    Returns:
        folds: number of voxels whose Jacobian determinant (central differences) is <= 0.
        ndv_percent: non-diffeomorphic volume (3-D) or area (2-D), percent of the mask.
        digital_folds: number of voxels where any of the ten (2-D: four) finite-difference determinants is <=
            0; 0 means digitally diffeomorphic.
        jacobian_min, jacobian_max: of the central-difference determinant.
        sdlogj: standard deviation of its logarithm, the determinant clipped to >= 1e-9.
    Raises:
        GeometryError: a field or mask whose shape does not fit, or an empty mask.
    Source: NDV and digital folds, Liu et al., IJCV 2024.
    """
    field = as_field(displacement_voxels)
    inside = _checked_mask(mask, field.shape[:-1])
    jacobian = full_jacobian_determinant(field)
    values = jacobian.ravel() if inside is None else jacobian[inside]
    volume, digital_folds = _non_diffeomorphic(field, inside)
    return {
        "folds": int(np.count_nonzero(values <= 0)),
        "ndv_percent": 100 * volume / values.size,
        "digital_folds": digital_folds,
        "jacobian_min": float(values.min()),
        "jacobian_max": float(values.max()),
        "sdlogj": float(np.std(np.log(np.maximum(values, JACOBIAN_FLOOR)), dtype=np.float64)),
    }


def _checked_mask(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if mask is None:
        return None
    mask = np.asarray(mask) > 0
    if mask.shape != shape:
        raise GeometryError(f"the mask has shape {mask.shape}, the displacement {shape}; give a mask on its grid")
    if not mask.any():
        raise GeometryError("the mask is empty; leave it out to judge the whole field")
    return mask


def _non_diffeomorphic(field: np.ndarray, inside: np.ndarray | None) -> tuple[float, int]:
    """Non-diffeomorphic volume in voxels, and the number of voxels with any determinant <= 0."""
    # A determinant is d! times its simplex' volume; the cell is cut in two ways, so each simplex counts half.
    share = 0.5 / (6 if field.ndim == 4 else 2)
    volume, count = 0.0, 0
    for start, stop, dets in cell_determinants(field):
        bad = (dets <= 0).any(axis=0)
        if inside is not None:
            bad &= inside[start:stop]
        if bad.any():
            count += int(np.count_nonzero(bad))
            volume -= share * float(np.minimum(dets[:, bad], 0).sum(dtype=np.float64))
    return volume, count


def inverse_residual(displacement: Displacement, inverse: Displacement) -> dict[str, float]:
    """|phi_inv(phi(x)) - x| in mm, over the grid points x of phi that phi carries into inverse's grid.

    Args:
        displacement: phi.
        inverse: phi_inv, on the same or another grid.
    Returns:
        mean, p99 and max; all nan where no point stays inside.
    """
    grid = displacement.grid
    last = np.array(inverse.grid.shape) - 1
    residuals = []
    for start, stop in slabs(grid.shape):
        index = np.stack(np.meshgrid(*_ranges(grid.shape, start, stop), indexing="ij"), axis=-1)
        ras = grid.index_to_ras(index.astype(np.float64)).reshape(-1, grid.ndim)
        image = ras + displacement.vectors[start:stop].reshape(-1, grid.ndim)
        where = inverse.grid.ras_to_index(image)
        inside = ((where >= 0) & (where <= last)).all(axis=-1)
        back = inverse.map_points(image[inside])
        residuals.append(np.linalg.norm(back - ras[inside], axis=-1).astype(np.float32))
    values = np.concatenate(residuals)
    if not values.size:
        return {"mean": float("nan"), "p99": float("nan"), "max": float("nan")}
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "p99": float(np.percentile(values, 99)),
        "max": float(values.max()),
    }


def _ranges(shape: tuple[int, ...], start: int, stop: int) -> list[np.ndarray]:
    return [np.arange(start, stop), *(np.arange(n) for n in shape[1:])]
