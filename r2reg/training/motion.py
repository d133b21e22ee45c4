"""Random motion of images: an affine map of space and a smooth one-to-one warp, drawn apart from being carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r2reg.flow.reference import compose
from r2reg.geometry.grid import identity_points

TURN, SCALE, SHIFT = 10.0, 0.1, 10.0  # degrees, share, mm: uniform within
PUSH_MM = 6.0  # largest standard deviation of the warp's velocity
WAVES_MM = (20.0, 60.0)  # between two of its control points, uniform within
GRID_MM = 8.0  # at which it is integrated
SQUARINGS = 5


@dataclass(frozen=True)
class Motion:
    """Where the new image's places lie in the old one: affine(warp(x)).

    Attributes:
        matrix: (d+1, d+1), voxels about the centre.
        push, waves: of the warp's velocity, mm; 0: none. seed: of its control points.
        own_push, own_seed: of what is added to that velocity.
    """

    matrix: np.ndarray
    push: float = 0.0
    waves: float = 40.0
    seed: int = 0
    own_push: float = 0.0
    own_seed: int = 0

    @property
    def still(self) -> bool:
        """Whether nothing moves."""
        return self.push == self.own_push == 0 and np.array_equal(self.matrix, np.eye(len(self.matrix)))


def draw_matrix(rng: np.random.Generator, spacing: np.ndarray, share: float) -> np.ndarray:
    """A random affine map within `share` of the bounds, (d+1, d+1), voxels about the centre; spacing: (d,) mm."""
    from scipy.spatial.transform import Rotation

    ndim = len(spacing)
    angles = share * rng.uniform(-TURN, TURN, 3)
    turn = Rotation.from_euler("xyz", angles if ndim == 3 else [0, 0, angles[2]], degrees=True).as_matrix()
    matrix = np.eye(ndim + 1)
    in_mm = turn[:ndim, :ndim] * (1 + share * rng.uniform(-SCALE, SCALE, ndim))
    matrix[:-1, :-1] = in_mm * spacing / spacing[:, None]  # to voxels
    matrix[:-1, -1] = share * rng.uniform(-SHIFT, SHIFT, ndim) / spacing
    return matrix


def places(motion: Motion, shape: Sequence[int], spacing: np.ndarray) -> np.ndarray:
    """(*shape, d) float32: the voxel of the old image that each voxel of the new one shows."""
    points = identity_points(tuple(shape)).astype(np.float32)
    if motion.push > 0 or motion.own_push > 0:
        points += warp_field(motion, shape, spacing)
    centre = (np.array(shape) - 1) / 2
    linear, shift = motion.matrix[:-1, :-1], motion.matrix[:-1, -1]
    found: np.ndarray = (points - centre) @ linear.T + (centre + shift)
    return found.astype(np.float32)


def warp_field(motion: Motion, shape: Sequence[int], spacing: np.ndarray) -> np.ndarray:
    """(*shape, d) float32: the displacement of the warp, voxels; the exponential of a velocity, so one-to-one."""
    extent = np.array(shape) * spacing
    knots = np.maximum(np.ceil(extent / motion.waves), 2).astype(int)
    coarse = np.maximum(np.ceil(extent / GRID_MM), 4).astype(int)
    values = np.random.default_rng(motion.seed).normal(0, motion.push, (*knots, len(shape)))
    values += np.random.default_rng(motion.own_seed).normal(0, motion.own_push, values.shape)
    displacement = resized(values, coarse, order=3) / (extent / coarse) / 2**SQUARINGS
    for _ in range(SQUARINGS):
        displacement = compose(displacement, displacement)
    return resized(displacement.astype(np.float32), shape, order=1) * (np.array(shape) / coarse).astype(np.float32)


def resized(field: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """(*S, C) on another grid over the same field of view, by splines of an order; the edge held beyond it."""
    from scipy.ndimage import zoom

    for axis, n in enumerate(shape):
        points = np.eye(field.shape[axis])
        weights = zoom(points, (n / len(points), 1), order=order, mode="nearest", grid_mode=True).astype(field.dtype)
        field = np.moveaxis(np.tensordot(weights, field, (1, axis)), 0, axis)
    return field


def moved_image(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(*S) at the places of `places`, linear, 0 outside."""
    from scipy.ndimage import map_coordinates

    found: np.ndarray = map_coordinates(image, np.moveaxis(where, -1, 0), order=1)
    return found


def moved_labels(labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Labels at the places of `places`, nearest, 0 outside.

    Args:
        labels: (*S) integers, or on a grid that divides each voxel of the places' into equal parts.
    """
    index, inside = [], np.array(True)
    for axis, n in enumerate(labels.shape):
        values = where[..., axis]
        for split, (whole, m) in enumerate(zip(labels.shape, values.shape, strict=True)):
            values = divided(values, split, whole // m)
        parts = n // where.shape[axis]
        place = np.rint((values + 0.5) * parts - 0.5).astype(np.int32)
        inside = inside & (place >= 0) & (place < n)
        index.append(np.clip(place, 0, n - 1))
    found: np.ndarray = labels[tuple(index)] * inside
    return found.astype(labels.dtype, copy=False)


def divided(values: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Values at the centres of the equal parts of each voxel along an axis, linear, carried on at the ends."""
    if parts == 1:
        return values
    slope = np.gradient(values, axis=axis) if values.shape[axis] > 1 else np.zeros_like(values)
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    split = np.stack([values + np.float32(offset) * slope for offset in offsets], axis=axis + 1)
    return split.reshape([parts * n if a == axis else n for a, n in enumerate(values.shape)])
