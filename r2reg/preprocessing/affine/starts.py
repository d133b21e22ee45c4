"""Starts of an affine alignment that need no optimisation: headers, centres, second moments."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from r2reg.errors import RegistrationError
from r2reg.geometry.grid import Array, Grid, index_map
from r2reg.preprocessing.affine.pyramid import Level, Working

OVERLAP_LATTICE = 33  # points along each axis; an overlap thinner than 3 % of a view is none
TURN_DEGREES = (-30.0, 0.0, 30.0)  # every turn of up to 45 degrees is within 24 of one of their products
SIZES = (0.8, 1.0, 1.25)  # every size from .7 to 1.4 is within an eighth of one
OFFSETS = (0.5, -0.5, 1.0, -1.0)  # standard deviations, along one axis at a time
Frame = tuple[Array, Array]  # centre (d,) and covariance (d, d), RAS mm


@dataclass(frozen=True)
class Body:
    """What is turned: where its middle lies (RAS mm) and how far its rim (root of its summed variances, mm)."""

    center: Array
    radius: float

    @classmethod
    def of(cls, frame: Frame) -> Body:
        """The body of a centre and covariance."""
        return cls(frame[0], max(float(np.sqrt(np.trace(frame[1]))), 1e-6))


def views_overlap(fixed: Grid, moving: Grid, matrix: Array) -> bool:
    """Whether any part of fixed's view, carried by `matrix` (RAS, fixed -> moving), lies in moving's view."""
    return _reaches(fixed, moving, matrix) or _reaches(moving, fixed, np.linalg.inv(matrix).astype(np.float64))


def _reaches(source: Grid, target: Grid, matrix: Array) -> bool:
    ends = [np.linspace(-0.5, n - 0.5, OVERLAP_LATTICE) for n in source.shape]
    points = source.index_to_ras(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1))
    index = target.ras_to_index(points @ matrix[:-1, :-1].T + matrix[:-1, -1])
    return bool(((index >= -0.5) & (index <= np.array(target.shape) - 0.5)).all(axis=-1).any())


def masks_overlap(
    fixed: Grid, moving: Grid, matrix: Array, fixed_mask: np.ndarray | None, moving_mask: np.ndarray | None
) -> bool:
    """Whether, under `matrix` (RAS, fixed -> moving), a voxel of one mask lies in the other; no mask: in the view."""
    back = np.linalg.inv(matrix).astype(np.float64)
    return _meets(fixed, moving, matrix, fixed_mask, moving_mask) or _meets(
        moving, fixed, back, moving_mask, fixed_mask
    )


def _meets(
    source: Grid, target: Grid, matrix: Array, source_mask: np.ndarray | None, target_mask: np.ndarray | None
) -> bool:
    if source_mask is None:
        return target_mask is None
    to_target = index_map(source, target, matrix)
    for first, plane in enumerate(source_mask):  # a slice at a time: the first usually decides
        inside = np.argwhere(plane)
        places = np.column_stack([np.full(len(inside), first), inside]) @ to_target[:-1, :-1].T + to_target[:-1, -1]
        nearest = np.rint(places).astype(np.intp)
        nearest = nearest[((nearest >= 0) & (nearest < target.shape)).all(axis=1)]
        if len(nearest) and (target_mask is None or target_mask[tuple(nearest.T)].any()):
            return True
    return False


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


def about(linear: Array, fixed_center: Array, moving_center: Array) -> Array:
    """(d+1, d+1) map that carries fixed_center to moving_center and is `linear` around it."""
    matrix = np.eye(len(linear) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = moving_center - linear @ fixed_center
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


def turns(ndim: int) -> list[Array]:
    """Rotations by -30, 0 or 30 degrees about each axis, the identity among them."""
    angles = np.deg2rad(TURN_DEGREES)
    if ndim == 2:
        return [turn(2, 0, 1, a) for a in angles]
    return [turn(3, 1, 2, a) @ turn(3, 2, 0, b) @ turn(3, 0, 1, c) for a, b, c in itertools.product(angles, repeat=3)]


def turn(ndim: int, i: int, j: int, angle: float) -> Array:
    """(d, d) rotation by an angle (radians) from axis i to axis j."""
    matrix = np.eye(ndim)
    c, s = np.cos(angle), np.sin(angle)
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def candidates(level: Level, fixed: Frame, moving: Frame, *, scaling: bool) -> list[Array]:
    """Starts of a search, some hundreds to a thousand.

    The headers as they are; the grids' centres; the centres of mass, turned by 30 degrees and by the principal
    axes, in three sizes and apart by up to a standard deviation along moving's axes: where one view holds half of
    the other's content, their centres of mass are that far from each other.

    Args:
        level: the pair.
        fixed, moving: centre and covariance of each.
        scaling: whether to try sizes.
    """
    ndim = level.fixed.grid.ndim
    axes = level.moving.grid.directions
    deviations = np.sqrt(np.maximum(np.einsum("ik,ij,jk->k", axes, moving[1], axes), 0))
    offsets = np.concatenate([np.zeros((1, ndim)), *(share * (axes * deviations).T for share in OFFSETS)])
    sizes = SIZES if scaling else (1.0,)
    linear = [size * r for size in sizes for r in turns(ndim) + moment_rotations(fixed[1], moving[1])]
    starts = [np.eye(ndim + 1), about(np.eye(ndim), level.fixed.grid.center_ras, level.moving.grid.center_ras)]
    return starts + [about(part, fixed[0], moving[0] + offset) for part in linear for offset in offsets]


def apart(grid: Grid, a: Array, b: Array) -> float:
    """Largest distance in mm between where two maps carry a corner of the grid."""
    corners = grid.index_to_ras(grid.corners())
    gap = corners @ (a - b)[:-1, :-1].T + (a - b)[:-1, -1]
    return float(np.linalg.norm(gap, axis=-1).max())
