"""Moving's grey values under an affine at points of fixed, with the way back from derivatives by them to the affine."""

from __future__ import annotations

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.pyramid import Working


class Sampling:
    """Where fixed's points lie in moving, and what is there.

    Args:
        moving: the image.
        points: (n, d) RAS mm, of fixed.
    """

    def __init__(self, moving: Working, points: Array) -> None:
        self.points = np.column_stack([points, np.ones(len(points))])
        weight = np.ones(moving.array.shape) if moving.mask is None else moving.mask
        self.volumes = np.stack([np.pad(moving.array, 1, mode="edge"), np.pad(weight, 1)]).astype(np.float32)
        self.to_index = np.linalg.inv(moving.grid.affine)
        self.to_index[:-1, -1] += 1  # of the padding

    def __call__(self, matrix: Array) -> tuple[np.ndarray, np.ndarray]:
        """(2, n) grey values, and weights that fall to 0 beyond the view and the mask; (2, d, n) their slopes.

        Args:
            matrix: (d+1, d+1) RAS mm, fixed -> moving points.
        """
        return interpolate(self.volumes, (self.to_index @ matrix)[:-1] @ self.points.T)

    def by_matrix(self, by_index: np.ndarray) -> Array:
        """(d+1, d+1) derivative by the matrix of a sum over the points, from those by their indices (d, n)."""
        gradient = np.zeros_like(self.to_index)
        gradient[:-1] = self.to_index[:-1, :-1].T @ (by_index @ self.points)
        return gradient


def interpolate(volumes: np.ndarray, index: Array) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation and its exact slopes; beyond the volume the nearest border's values, level.

    Args:
        volumes: (C, X, Y[, Z]) float32.
        index: (d, n) voxels.
    Returns:
        (C, n) values and (C, d, n) slopes per voxel.
    """
    shape = volumes.shape[1:]
    last = np.array(shape)[:, None] - 1
    inside = (index >= 0) & (index <= last)
    index = np.clip(index, 0, last)
    base = np.minimum(index.astype(np.intp), last - 1)
    share = (index - base).astype(np.float32)
    corners = np.stack(list(np.ndindex(*(2,) * len(shape))), axis=1)  # (d, 2^d), the last axis changes fastest
    where = np.ravel_multi_index(tuple(base), shape) + np.ravel_multi_index(tuple(corners), shape)[:, None]
    values = np.take(volumes.reshape(len(volumes), -1), where, axis=1)  # (C, 2^d, n)
    slopes: list[np.ndarray] = []
    for axis in reversed(range(len(shape))):
        difference = values[:, 1::2] - values[:, ::2]
        values = values[:, ::2] + share[axis] * difference
        slopes = [s[:, ::2] + share[axis] * (s[:, 1::2] - s[:, ::2]) for s in slopes]
        slopes.append(difference * inside[axis])
    return values[:, 0], np.stack([s[:, 0] for s in reversed(slopes)], axis=1)
