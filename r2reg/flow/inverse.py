"""The numerical inverse of a displacement field."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from scipy.ndimage import map_coordinates

from r2reg.flow.warp import warp

Tensor = Any


def invert(
    displacement: Tensor, start: Tensor | None = None, tolerance: float = 1e-3, iterations: int = 30
) -> tuple[Tensor, Tensor]:
    """w with (id + u) o (id + w) = id: a fixed-point iteration, then Newton's where that did not converge.

    Each voxel takes w <- w - a r with r(y) = w(y) + u(y + w(y)). Its step a starts at 1 and is halved whenever its
    residual grew (u steeper than 1 there), and the best w seen is kept, so no iteration makes the result worse.

    Args:
        displacement: (N, *S, d), voxels.
        start: (N, *S, d), a first guess such as the backward flow; default -u.
        tolerance: stop when the residual is below this everywhere, voxels.
        iterations: at most so many of each kind.
    Returns:
        (w, residual): (N, *S, d) in voxels, and |(id + u)((id + w)(y)) - y|, (N, *S), voxels.
    """
    best, best_size = _fixed_point(
        displacement, -displacement if start is None else start, tolerance, iterations
    )
    size = ops.convert_to_numpy(best_size)
    if size.max() < tolerance:
        return best, best_size
    inverse, size = np.array(ops.convert_to_numpy(best)), np.array(size)
    for item, field in enumerate(ops.convert_to_numpy(displacement)):
        where = np.nonzero(size[item] >= tolerance)
        places = np.stack(where, axis=-1).astype("float64")
        polished, left = _newton(field, places, inverse[item][where], tolerance, iterations)
        inverse[item][where], size[item][where] = polished, left
    return ops.convert_to_tensor(inverse), ops.convert_to_tensor(size)


def _fixed_point(
    displacement: Tensor, trial: Tensor, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor]:
    best, best_residual, best_size = trial, None, None
    step = ops.ones_like(displacement[..., :1])
    for _ in range(iterations):
        residual = trial + warp(displacement, trial)
        size = ops.sqrt(ops.sum(residual * residual, axis=-1, keepdims=True))
        if best_size is None:
            best_residual, best_size = residual, size
        else:
            better = size < best_size
            best = ops.where(better, trial, best)
            best_residual = ops.where(better, residual, best_residual)
            best_size = ops.minimum(size, best_size)
            step = ops.where(better, step, step / 2)
        if float(ops.max(best_size)) < tolerance:
            break
        trial = best - step * best_residual
    assert best_size is not None
    return best, best_size[..., 0]


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
        values = [
            map_coordinates(field[..., c], where, order=1, mode="nearest", output="float64")
            for c in range(ndim)
        ]
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
