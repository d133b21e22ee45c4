"""The numerical inverse of a displacement field."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops
from scipy.ndimage import map_coordinates

from r2reg.flow import backend
from r2reg.flow.jacobian import determinant
from r2reg.flow.smooth import laplacian
from r2reg.flow.warp import affine_coordinates, identity_coordinates, sample, sample_with_slopes

Tensor = Any

SMALLEST_HALVED = 128  # voxels along the shortest axis for which a coarse start pays
SLAB_VOXELS = 1 << 20  # worked on at a time; 60 floats each stay below 300 MB


def invert(
    displacement: Tensor, start: Tensor | None = None, tolerance: float = 1e-3, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """w with (id + u) o (id + w) = id, by Newton's iteration, coarse to fine.

    Each voxel takes w <- w - a (I + grad u)^-1 r with r(y) = w(y) + u(y + w(y)). Its step a starts at 1 and is
    halved whenever its residual grew, and the best w seen is kept, so no iteration makes the result worse. The
    few voxels that are left are iterated on by themselves, in float64.

    Args:
        displacement: (N, *S, d), voxels.
        start: (N, *S, d), a first guess such as the backward flow; default: the inverse at half size, or -u.
        tolerance: stop when the residual is below this everywhere, voxels.
        iterations: at most so many on all voxels, and three times as many on those left.
    Returns:
        (w, residual): (N, *S, d) in voxels, and |(id + u)((id + w)(y)) - y|, (N, *S), voxels.
    """
    if start is None:
        coarse = min(displacement.shape[1:-1]) >= SMALLEST_HALVED
        start = _inverse_at_half_size(displacement, iterations) if coarse else -displacement
    best, best_size = _newton_everywhere(displacement, start, tolerance, iterations)
    size = np.array(ops.convert_to_numpy(best_size))
    if size.max() < tolerance:
        return best, best_size
    inverse = np.array(ops.convert_to_numpy(best))
    for item, field in enumerate(ops.convert_to_numpy(displacement)):
        where = np.nonzero(size[item] >= tolerance)
        places = np.stack(where, axis=-1).astype("float64")
        polished, left = _newton(field, places, inverse[item][where], tolerance, 3 * iterations)
        inverse[item][where], size[item][where] = polished, left
    return ops.convert_to_tensor(inverse), ops.convert_to_tensor(size)


def spread_interpolation_error(inverse: Tensor) -> Tensor:
    """The inverse, off by a little at its voxels so that it is off by less between them.

    A linear interpolant of f exceeds it by h^2 t (1 - t) / 2 f'' within a cell, h^2 / 12 f'' on average, and
    phi carries voxels to places between voxels. Taking that average off the values leaves an error of mean zero.

    Args:
        inverse: (N, *S, d), voxels, exact at its voxels.
    """
    return inverse - laplacian(inverse) / 12


def _inverse_at_half_size(displacement: Tensor, iterations: int) -> Tensor:
    shape = displacement.shape[1:-1]
    half = [(n + 1) // 2 for n in shape]
    ndim = len(shape)
    down = np.diag([2.0] * ndim + [1.0])  # voxel k of the half-size grid is voxel 2k of the full one
    small = sample(displacement, affine_coordinates(down, half)) / 2
    coarse, _ = invert(small, tolerance=0.05, iterations=iterations)  # a start needs no more
    return 2 * sample(coarse, affine_coordinates(np.linalg.inv(down), shape))


def _newton_everywhere(displacement: Tensor, trial: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, Tensor]:
    best, best_change, best_size = trial, None, None
    step = ops.ones_like(displacement[..., :1])
    left = np.inf
    for _ in range(iterations):
        size, change = _newton_step(displacement, trial)
        if best_size is None:
            best_change, best_size = change, size
        else:
            best, best_change, best_size, step = _keep_better(size, best_size, trial, best, change, best_change, step)
        before, left = left, float(ops.mean(ops.cast(best_size >= tolerance, "float32")))
        # Below 1 % or without much progress, going on voxel by voxel is cheaper.
        if left < 0.01 or (left < 0.1 and left > 0.7 * before):
            break
        trial = best - step * best_change
    assert best_size is not None
    return best, best_size[..., 0]


@backend.accelerate()
def _keep_better(
    size: Tensor,
    best_size: Tensor,
    trial: Tensor,
    best: Tensor,
    change: Tensor,
    best_change: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    better = size < best_size
    return (
        ops.where(better, trial, best),
        ops.where(better, change, best_change),
        ops.minimum(size, best_size),
        ops.where(better, step, step / 2),
    )


def _newton_step(displacement: Tensor, trial: Tensor) -> tuple[Tensor, Tensor]:
    """|r| and (I + grad u)^-1 r at y + w(y), slab by slab: the matrices of a whole volume would fill gigabytes."""
    shape = displacement.shape[1:-1]
    thickness = max(1, SLAB_VOXELS // math.prod(shape[1:]))
    places = identity_coordinates(shape) + trial
    parts = []
    for first in range(0, shape[0], thickness):
        slab = slice(first, first + thickness)
        parts.append(_newton_change(displacement, places[:, slab], trial[:, slab]))
    return ops.concatenate([size for size, _ in parts], 1), ops.concatenate([change for _, change in parts], 1)


@backend.accelerate()
def _newton_change(displacement: Tensor, places: Tensor, trial: Tensor) -> tuple[Tensor, Tensor]:
    """|r| and (I + grad u)^-1 r; r itself where the matrix is close to singular."""
    ndim = trial.shape[-1]
    there, slopes = sample_with_slopes(displacement, places)
    residual = trial + there
    matrix = slopes + ops.eye(ndim, dtype=trial.dtype)
    det = determinant(matrix)
    columns = []
    for axis in range(ndim):  # Cramer's rule
        replaced = [residual if k == axis else matrix[..., k] for k in range(ndim)]
        columns.append(determinant(ops.stack(replaced, axis=-1)))
    regular = det > 0.05
    change = ops.stack(columns, axis=-1) / ops.where(regular, det, 1.0)[..., None]
    size = ops.sqrt(ops.sum(residual * residual, axis=-1, keepdims=True))
    return size, ops.where(regular[..., None], change, residual)


def _newton(
    field: np.ndarray, places: np.ndarray, start: np.ndarray, tolerance: float, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's iteration at single places, its derivative a difference over one voxel, steps halved until they help.

    Args:
        field: (*S, d), voxels. places: (P, d), y. start: (P, d), w(y).
    Returns:
        (w, residual): (P, d) and (P,).
    """
    ndim = places.shape[-1]

    def at(points: np.ndarray) -> np.ndarray:
        where = points.T
        values = [map_coordinates(field[..., c], where, order=1, mode="nearest", output="float64") for c in range(ndim)]
        return np.stack(values, axis=-1)

    w = start.astype("float64")
    residual = w + at(places + w)
    size, step = np.linalg.norm(residual, axis=-1), np.ones(len(w))
    for _ in range(iterations):
        todo = (size >= tolerance) & (step > 1e-3)
        if not todo.any():
            break
        x = places[todo] + w[todo]
        halves = [0.5 * axis for axis in np.eye(ndim)]
        slope = np.stack([at(x + half) - at(x - half) for half in halves], axis=-1) + np.eye(ndim)
        # Singular where the map is about to fold; the small ridge makes such a step a short one.
        normal = slope.transpose(0, 2, 1) @ slope + 1e-6 * np.eye(ndim)
        change = np.linalg.solve(normal, (slope.transpose(0, 2, 1) @ residual[todo][..., None]))[..., 0]
        trial = w[todo] - step[todo][:, None] * change
        new = trial + at(places[todo] + trial)
        new_size = np.linalg.norm(new, axis=-1)
        better = new_size < size[todo]
        accepted = np.flatnonzero(todo)[better]
        w[accepted], residual[accepted], size[accepted] = trial[better], new[better], new_size[better]
        step[todo] = np.where(better, np.minimum(2 * step[todo], 1), step[todo] / 2)
    return w, size
