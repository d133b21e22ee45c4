"""Starts of an affine alignment that need no optimisation: headers, centres, second moments."""

from __future__ import annotations

import itertools

import numpy as np

from r2reg.errors import RegistrationError
from r2reg.geometry.grid import Array, Grid
from r2reg.preprocessing.affine_pyramid import Level, Working, score

OVERLAP_LATTICE = 33  # points along each axis; an overlap thinner than 3 % of a view is none
TURN_DEGREES = (-30.0, 0.0, 30.0)  # within the 15 degrees or so from which a coarse rigid search converges
Frame = tuple[Array, Array]  # centre (d,) and covariance (d, d), RAS mm


def views_overlap(fixed: Grid, moving: Grid, matrix: Array) -> bool:
    """Whether any part of fixed's view, carried by `matrix` (RAS, fixed -> moving), lies in moving's view."""
    return _reaches(fixed, moving, matrix) or _reaches(moving, fixed, np.linalg.inv(matrix).astype(np.float64))


def _reaches(source: Grid, target: Grid, matrix: Array) -> bool:
    ends = [np.linspace(-0.5, n - 0.5, OVERLAP_LATTICE) for n in source.shape]
    points = source.index_to_ras(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1))
    index = target.ras_to_index(points @ matrix[:-1, :-1].T + matrix[:-1, -1])
    return bool(((index >= -0.5) & (index <= np.array(target.shape) - 0.5)).all(axis=-1).any())


def frame(image: Working, weights: np.ndarray) -> Frame:
    """Centre and covariance of the weights on the image's grid, RAS mm.

    Raises:
        RegistrationError: no weight at all.
    """
    total = float(weights.sum(dtype=np.float64))
    if total <= 0:
        raise RegistrationError("an image or mask holds nothing to take a centre of; use --init none or affine")
    ndim = weights.ndim
    center, second = np.zeros(ndim), np.zeros((ndim, ndim))
    ranges = [np.arange(n, dtype=np.float64) for n in weights.shape]
    for i, j in itertools.combinations_with_replacement(range(ndim), 2):
        others = tuple(k for k in range(ndim) if k not in (i, j))
        margin = weights.sum(axis=others, dtype=np.float64) / total
        if i == j:
            center[i], second[i, i] = margin @ ranges[i], margin @ ranges[i] ** 2
        else:
            second[i, j] = second[j, i] = ranges[i] @ margin @ ranges[j]
    covariance = second - np.outer(center, center)
    linear = image.grid.affine[:-1, :-1]
    return image.grid.index_to_ras(center), linear @ covariance @ linear.T


def frames(fixed: Working, moving: Working) -> tuple[Frame, Frame]:
    """Frames of both images: of the masks where both have one, else of the intensities."""
    if fixed.mask is not None and moving.mask is not None:
        return frame(fixed, fixed.mask), frame(moving, moving.mask)
    return frame(fixed, fixed.array), frame(moving, moving.array)


def about(rotation: Array, fixed_center: Array, moving_center: Array) -> Array:
    """(d+1, d+1) map that carries fixed_center to moving_center and turns by `rotation` around it."""
    matrix = np.eye(len(rotation) + 1)
    matrix[:-1, :-1] = rotation
    matrix[:-1, -1] = moving_center - rotation @ fixed_center
    return matrix


def moment_rotations(fixed: Array, moving: Array) -> list[Array]:
    """Rotations that turn fixed's principal axes onto moving's: an axis has no sign, so there are 2 or 4.

    Args:
        fixed, moving: (d, d) covariances, RAS mm^2.
    """
    axes_fixed, axes_moving = np.linalg.eigh(fixed)[1], np.linalg.eigh(moving)[1]
    rotations = []
    for signs in itertools.product((1.0, -1.0), repeat=len(fixed)):
        rotation = axes_moving @ np.diag(signs) @ axes_fixed.T
        if np.linalg.det(rotation) > 0:
            rotations.append(rotation)
    return rotations


def best_moments(level: Level, fixed: Frame, moving: Frame) -> Array:
    """The map of principal axes onto each other under which the images are most alike (signs are free)."""
    matrices = [about(r, fixed[0], moving[0]) for r in moment_rotations(fixed[1], moving[1])]
    return max(matrices, key=lambda m: score(level, m))


def turns(ndim: int) -> list[Array]:
    """Rotations by -30, 0 or 30 degrees about each axis, the identity among them."""
    if ndim == 2:
        return [_turn(2, 0, 1, angle) for angle in TURN_DEGREES]
    angles = itertools.product(TURN_DEGREES, repeat=3)
    return [_turn(3, 1, 2, a) @ _turn(3, 2, 0, b) @ _turn(3, 0, 1, c) for a, b, c in angles]


def _turn(ndim: int, i: int, j: int, degrees: float) -> Array:
    matrix = np.eye(ndim)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def ranked_starts(level: Level, fixed: Frame, moving: Frame) -> list[Array]:
    """Starts for the optimiser, best score first.

    The headers as they are; the grids' centres; the centres of mass with turns of 30 degrees; the principal
    axes.
    """
    ndim = level.fixed.grid.ndim
    starts = [
        np.eye(ndim + 1),
        about(np.eye(ndim), level.fixed.grid.center_ras, level.moving.grid.center_ras),
    ]
    starts += [about(r, fixed[0], moving[0]) for r in turns(ndim) + moment_rotations(fixed[1], moving[1])]
    ranked = sorted(starts, key=lambda m: -score(level, m))
    # Headers, centres of the grids and centres of mass often agree; one search is enough for all of them.
    return [
        m for n, m in enumerate(ranked) if all(corner_gap(level.fixed.grid, m, k) > level.spacing for k in ranked[:n])
    ]


def corner_gap(grid: Grid, a: Array, b: Array) -> float:
    """Largest distance in mm between where two maps carry a corner of the grid."""
    corners = grid.index_to_ras(grid.corners())
    gap = corners @ (a - b)[:-1, :-1].T + (a - b)[:-1, -1]
    return float(np.linalg.norm(gap, axis=-1).max())
