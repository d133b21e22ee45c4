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
from r2reg.flow.warp import affine_coordinates, compose, sample, sample_with_slopes
from r2reg.threads import in_threads

Tensor = Any

SMALLEST_HALVED = 128  # voxels along the shortest axis for which a coarse start pays
PLACES_AT_ONCE = 1 << 18  # of Newton's iteration; 60 floats each stay below 70 MB
FEW_LEFT = 0.01  # share of them for which going on place by place is cheaper


def invert(
    displacement: Tensor, start: Tensor | None = None, tolerance: float = 1e-3, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """w with (id + u) o (id + w) = id, by Newton's iteration, coarse to fine.

    Each voxel that is not there yet takes w <- w - a (I + grad u)^-1 r with r(y) = w(y) + u(y + w(y)). Its step a
    starts at 1 and is halved whenever its residual grew, and the best w seen is kept, so no iteration makes the
    result worse. The few voxels that are left are iterated on in float64.

    Args:
        displacement: (N, *S, d), voxels.
        start: (N, *S, d), a first guess such as the backward flow; default: the inverse at half size, or -u. An
            inverse that holds almost everywhere is left alone there, and costs little.
        tolerance: stop when the residual is below this everywhere, voxels.
        iterations: at most so many, and three times as many on those left.
    Returns:
        (w, residual): (N, *S, d) in voxels, and |(id + u)((id + w)(y)) - y|, (N, *S), voxels.
    """
    if start is None:
        coarse = min(displacement.shape[1:-1]) >= SMALLEST_HALVED
        start = _inverse_at_half_size(displacement, iterations) if coarse else -displacement
    size = np.array(ops.convert_to_numpy(norm(compose(displacement, start))))
    if size.max() < tolerance:
        return start, ops.convert_to_tensor(size)
    inverse = np.array(ops.convert_to_numpy(start))
    for item in range(len(inverse)):
        field = displacement[item : item + 1]
        where = np.nonzero(size[item] >= tolerance)
        if not len(where[0]):
            continue
        places = np.stack(where, axis=-1)
        inverse[item][where], size[item][where] = _newton(field, places, inverse[item][where], tolerance, iterations)
        where = np.nonzero(size[item] >= tolerance)
        if len(where[0]):
            places = np.stack(where, axis=-1).astype("float64")
            polished = _newton_exactly(
                ops.convert_to_numpy(field)[0], places, inverse[item][where], tolerance, 3 * iterations
            )
            inverse[item][where], size[item][where] = polished
    return ops.convert_to_tensor(inverse), ops.convert_to_tensor(size)


def spread_interpolation_error(inverse: Tensor) -> Tensor:
    """The inverse, off by a little at its voxels so that it is off by less between them.

    A linear interpolant of f exceeds it by h^2 t (1 - t) / 2 f'' within a cell, h^2 / 12 f'' on average, and
    phi carries voxels to places between voxels. Taking that average off the values leaves an error of mean zero.

    Args:
        inverse: (N, *S, d), voxels, exact at its voxels.
    """
    return inverse - laplacian(inverse) / 12


@backend.accelerate()
def norm(vectors: Tensor) -> Tensor:
    """Length of each vector: (N, *S, d) -> (N, *S)."""
    return ops.sqrt(ops.sum(vectors * vectors, axis=-1))


def _inverse_at_half_size(displacement: Tensor, iterations: int) -> Tensor:
    shape = displacement.shape[1:-1]
    half = [(n + 1) // 2 for n in shape]
    ndim = len(shape)
    down = np.diag([2.0] * ndim + [1.0])  # voxel k of the half-size grid is voxel 2k of the full one
    small = sample(displacement, affine_coordinates(down, half)) / 2
    coarse, _ = invert(small, tolerance=0.05, iterations=iterations)  # a start needs no more
    return 2 * sample(coarse, affine_coordinates(np.linalg.inv(down), shape))


def _newton(
    displacement: Tensor, places: np.ndarray, start: np.ndarray, tolerance: float, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's iteration at places, many at once.

    Args:
        displacement: (1, *S, d), voxels. places: (P, d), y. start: (P, d), w(y).
    Returns:
        (w, residual): (P, d) and (P,).
    """
    length = min(PLACES_AT_ONCE, math.prod(displacement.shape[1:-1]))  # one length compiles once

    def iterate(first: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(first, first + length)
        count = len(places[part])
        y, trial = (_filled(array[part].astype("float32"), length) for array in (places, start))
        best, best_size, best_change, step = trial, *_newton_change(displacement, y, trial), ops.ones((1, length, 1))
        for _ in range(iterations - 1):
            left = np.count_nonzero(ops.convert_to_numpy(best_size)[0, :count] >= tolerance)
            if left <= FEW_LEFT * count:
                break
            trial = best - step * best_change
            size, change = _newton_change(displacement, y, trial)
            best, best_change, best_size, step = _keep_better(size, best_size, trial, best, change, best_change, step)
        return ops.convert_to_numpy(best)[0, :count], ops.convert_to_numpy(best_size)[0, :count, 0]

    found = in_threads(iterate, range(0, len(places), length))
    return np.concatenate([w for w, _ in found]), np.concatenate([size for _, size in found])


def _filled(array: np.ndarray, length: int) -> Tensor:
    """(1, length, d): the rows, and zeros after them."""
    return ops.convert_to_tensor(np.pad(array, [(0, length - len(array)), (0, 0)])[None])


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


@backend.accelerate()
def _newton_change(displacement: Tensor, places: Tensor, trial: Tensor) -> tuple[Tensor, Tensor]:
    """|r| and (I + grad u)^-1 r, for (1, P, d) places y and w(y); r itself where the matrix is close to singular."""
    ndim = trial.shape[-1]
    there, slopes = sample_with_slopes(displacement, places + trial)
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


def _newton_exactly(
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
