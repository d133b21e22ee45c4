"""How regular a deformation is, and how well its inverse undoes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from r2reg.errors import GeometryError
from r2reg.flow.reference import as_field, full_jacobian_determinant, map_cells, slabs
from r2reg.geometry.grid import Grid, index_map
from r2reg.geometry.transforms import Displacement
from r2reg.threads import in_threads

# log|J| needs a positive number; a voxel that folds or collapses counts as shrunk by this factor.
JACOBIAN_FLOOR = 1e-9


def deformation_metrics(
    displacement_voxels: np.ndarray, mask: np.ndarray | None = None, jacobian: np.ndarray | None = None
) -> dict[str, float]:
    """Regularity of x -> x + u(x).

    Args:
        displacement_voxels: (X, Y[, Z], d), voxels, components in array-axis order, at least 2 voxels per
            axis.
        mask: (X, Y[, Z]), voxels to judge; default: all, the border with one-sided differences.
        jacobian: `full_jacobian_determinant` of the displacement, where it is known already.
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
    if jacobian is None:
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

    def judge(start: int, stop: int, dets: np.ndarray) -> tuple[float, int]:
        bad = (dets <= 0).any(axis=0)
        if inside is not None:
            bad &= inside[start:stop]
        return -share * float(np.minimum(dets[:, bad], 0).sum(dtype=np.float64)), int(np.count_nonzero(bad))

    volumes, counts = zip(*map_cells(judge, field), strict=True)
    return sum(volumes), sum(counts)


def inverse_residual(displacement: Displacement, inverse: Displacement) -> dict[str, float]:
    """|phi_inv(phi(x)) - x| in mm, over the grid points x of phi that phi carries into inverse's grid.

    Args:
        displacement: phi.
        inverse: phi_inv, on the same or another grid.
    Returns:
        mean, p99 and max; all nan where no point stays inside.
    """
    grid, target = displacement.grid, inverse.grid
    components = np.ascontiguousarray(np.moveaxis(inverse.vectors, -1, 0))

    def residuals(slab: tuple[int, int]) -> np.ndarray:
        forth = displacement.vectors[slice(*slab)]
        index = _index_after(grid, forth, slab[0], target)
        inside = np.logical_and.reduce([(i >= 0) & (i <= n - 1) for i, n in zip(index, target.shape, strict=True)])
        # Back is the displacements' sum: taken from positions it would carry their rounding.
        gaps = [forth[..., c] + back for c, back in enumerate(_sampled(components, index))]
        return np.sqrt(sum(gap * gap for gap in gaps))[inside].astype(np.float32)

    values = np.concatenate(in_threads(residuals, slabs(grid.shape)))
    if not values.size:
        return {"mean": float("nan"), "p99": float("nan"), "max": float("nan")}
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "p99": float(np.percentile(values, 99)),
        "max": float(values.max()),
    }


def _index_after(grid: Grid, vectors: np.ndarray, first: int, target: Grid) -> list[np.ndarray]:
    """Where x -> x + vectors(x) carries the voxels of grid's planes from the `first` on.

    Args:
        vectors: (x, Y[, Z], d), RAS mm, of those planes.
    Returns:
        d arrays (x, Y[, Z]), float64, indices on target along each of its axes.
    """
    starts = [first] + [0] * (grid.ndim - 1)
    counts = zip(starts, vectors.shape[:-1], strict=True)
    voxels = np.meshgrid(*(np.arange(s, s + n, dtype=np.float64) for s, n in counts), indexing="ij", sparse=True)
    from_voxel, from_mm = index_map(grid, target), np.linalg.inv(target.affine)[:-1, :-1]
    index = []
    for row, mm_row in zip(from_voxel[:-1], from_mm, strict=True):
        at_rest = row[-1] + sum(weight * axis for weight, axis in zip(row[:-1], voxels, strict=True))
        index.append(at_rest + sum(mm_row[c] * vectors[..., c] for c in range(grid.ndim)))
    return index


def _sampled(components: np.ndarray, index: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Each component (*S) of (C, *S) at the places `index`, linear in its own precision, the edge's value outside.

    Many times as fast as scipy's `map_coordinates`, which works out each place anew for each component.
    """
    shape = components.shape[1:]
    corner = np.zeros((), dtype=np.int64)
    parts = []
    for where, count in zip(index, shape, strict=True):
        low = np.clip(where.astype(np.int64), 0, max(count - 2, 0))
        parts.append(np.clip(where - low, 0, min(count - 1, 1)).astype(components.dtype))
        corner = corner * count + low
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    for component in components:
        yield _between(component.ravel(), corner, parts, steps)


def _between(values: np.ndarray, corner: np.ndarray, parts: list[np.ndarray], steps: list[int]) -> np.ndarray:
    """Linear between the 2^d values around each place, one axis per call."""
    if not parts:
        return values.take(corner, mode="clip")  # an axis of one voxel has no neighbour, and parts of 0
    low = _between(values, corner, parts[1:], steps[1:])
    high = _between(values, corner + steps[0], parts[1:], steps[1:])
    high -= low
    high *= parts[0]
    high += low
    return high
