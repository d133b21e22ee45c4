"""World-space transforms: maps of points in RAS mm, on numpy.

A transform carries points of the fixed image to points of the moving image. A list of transforms is in the
order of ANTs' lists: `[warp, affine]` means `x -> affine(warp(x))`, the first entry acts on the point first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from r2reg.errors import GeometryError
from r2reg.geometry.grid import Array, Grid


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> matrix @ [x, 1], with matrix (d+1, d+1) in RAS mm.

    Raises:
        GeometryError: a matrix of the wrong shape, with NaN or infinite values, or singular.
    """

    matrix: Array

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape not in ((3, 3), (4, 4)):
            raise GeometryError(f"an affine transform is a 3x3 or 4x4 matrix. Received: shape={matrix.shape}")
        if not np.isfinite(matrix).all():
            raise GeometryError("the affine transform holds NaN or infinite values")
        if abs(np.linalg.det(matrix[:-1, :-1])) < 1e-9:
            raise GeometryError("the affine transform is singular; it must not flatten space")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.matrix.shape[0] - 1

    def map_points(self, ras: Array) -> Array:
        """(..., d) RAS mm -> (..., d) RAS mm."""
        return ras @ self.matrix[:-1, :-1].T + self.matrix[:-1, -1]

    def inverse(self) -> Affine:
        """The inverse map, exact."""
        return Affine(np.linalg.inv(self.matrix).astype(np.float64))


@dataclass(frozen=True, eq=False)
class Displacement:
    """x -> x + vectors(x), linear between the grid's voxels, zero outside the grid (ITK's convention).

    Args:
        grid: where the vectors lie.
        vectors: (X, Y[, Z], d), mm along R, A(, S).
    Raises:
        GeometryError: vectors that do not fit the grid, or with NaN or infinite values.
    """

    grid: Grid
    vectors: np.ndarray

    def __post_init__(self) -> None:
        expected = (*self.grid.shape, self.grid.ndim)
        if self.vectors.shape != expected:
            raise GeometryError(f"a displacement on this grid has shape {expected}. Received: {self.vectors.shape}")
        if not np.isfinite(self.vectors).all():
            raise GeometryError("the displacement field holds NaN or infinite values")

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.grid.ndim

    @classmethod
    def from_voxels(cls, grid: Grid, displacement: np.ndarray) -> Displacement:
        """From a displacement in voxels of `grid`, components in array-axis order, (X, Y[, Z], d)."""
        linear = grid.affine[:-1, :-1].astype(displacement.dtype)
        return cls(grid, displacement @ linear.T)

    def to_voxels(self) -> np.ndarray:
        """(X, Y[, Z], d) in voxels of the grid, components in array-axis order."""
        return self.vectors @ np.linalg.inv(self.grid.affine[:-1, :-1]).astype(self.vectors.dtype).T

    def map_points(self, ras: Array) -> Array:
        """(..., d) RAS mm -> (..., d) RAS mm."""
        from scipy.ndimage import map_coordinates

        index = self.grid.ras_to_index(ras)
        last = np.array(self.grid.shape) - 1
        # ITK's buffer reaches half a voxel beyond the outer centres; within that margin it clamps.
        inside = ((index >= -0.5) & (index < last + 0.5)).all(axis=-1, keepdims=True)
        where = np.moveaxis(np.clip(index, 0, last), -1, 0)
        moved = [map_coordinates(self.vectors[..., c], where, order=1, mode="nearest") for c in range(self.ndim)]
        return ras + np.where(inside, np.stack(moved, axis=-1), 0)


Transform = Affine | Displacement


def map_points(transforms: Sequence[Transform], ras: Array) -> Array:
    """Carry (..., d) RAS points through a list of transforms, the first entry first."""
    for transform in transforms:
        ras = transform.map_points(ras)
    return ras


def outside_of_fields(transforms: Sequence[Transform], ras: Array) -> np.ndarray:
    """(n,) whether a point (n, d) comes where a field ends, which leaves it where it is."""
    outside = np.zeros(len(ras), bool)
    for part in transforms:
        if isinstance(part, Displacement):
            outside |= ~part.grid.holds(ras)
        ras = part.map_points(ras)
    return outside


def inverse_points(
    transforms: Sequence[Transform], ras: Array, tolerance: float = 1e-4, iterations: int = 100
) -> tuple[Array, Array]:
    """The points that a list of transforms carries to given ones.

    Args:
        transforms: the first entry acts first.
        ras: (..., d) RAS mm, what the wanted points are carried to.
        tolerance: mm, where the iteration through a displacement stops.
    Returns:
        (..., d) RAS mm, and (...) mm how far from `ras` each is carried: above the tolerance where a
        displacement folds, or jumps to zero at the border of its grid.
    """
    points: Array = np.array(ras, dtype=np.float64).reshape(-1, np.shape(ras)[-1])
    for transform in reversed(transforms):
        if isinstance(transform, Affine):
            points = transform.inverse().map_points(points)
        else:
            points = _inverse_through(transform, points, tolerance, iterations)
    points = points.reshape(np.shape(ras))
    return points, np.linalg.norm(map_points(transforms, points) - ras, axis=-1)


def _inverse_through(field: Displacement, target: Array, tolerance: float, iterations: int) -> Array:
    """x with x + u(x) = target by x <- x - s * (x + u(x) - target); s halves at a point that overshoots.

    s = 1 is the plain fixed point, which needs |grad u| < 1; smaller s reach any map without folds.
    """
    best = target.copy()
    gap = field.map_points(best) - target
    size = np.linalg.norm(gap, axis=-1)
    step = np.ones((len(target), 1))
    active = np.flatnonzero(size > tolerance)
    for _ in range(iterations):
        if not active.size:
            break
        tried = best[active] - step[active] * gap[active]
        new_gap = field.map_points(tried) - target[active]
        new_size = np.linalg.norm(new_gap, axis=-1)
        closer = new_size < size[active]
        # A gap that turns round keeps swinging even where it shrinks a little; one that points the same way
        # is only slow, and a smaller step would make it slower.
        swings = (new_gap * gap[active]).sum(axis=-1) < -0.5 * size[active] ** 2
        step[active[~closer | swings]] /= 2
        kept = active[closer]
        best[kept], gap[kept], size[kept] = tried[closer], new_gap[closer], new_size[closer]
        active = active[size[active] > tolerance]
    return best


POINTS_AT_ONCE = 1 << 20  # some 200 MB of temporaries


def inverse_displacement(
    transforms: Sequence[Transform], grid: Grid, tolerance: float = 1e-4
) -> tuple[Displacement, Array]:
    """The inverse of a list of transforms, sampled on a grid: exact at its voxels, linear between them.

    Returns:
        the displacement (float32 vectors), and the residual in mm at each voxel, (X, Y[, Z]).
    """
    vectors = np.empty((*grid.shape, grid.ndim), dtype=np.float32)
    residual = np.empty(grid.shape)
    for here, ras in _centres(grid):
        points, residual[here] = inverse_points(transforms, ras, tolerance)
        vectors[here] = points - ras
    return Displacement(grid, vectors), residual


def as_displacement(transforms: Sequence[Transform], grid: Grid) -> Displacement:
    """A list of transforms as one displacement, sampled on a grid: exact at its voxels, linear between them."""
    vectors = np.empty((*grid.shape, grid.ndim), dtype=np.float32)
    for here, ras in _centres(grid):
        vectors[here] = map_points(transforms, ras) - ras
    return Displacement(grid, vectors)


def _centres(grid: Grid) -> Iterator[tuple[slice, Array]]:
    """Planes along the first axis, a few at a time, and their voxels' centres, (x, Y[, Z], d) RAS mm."""
    slab = max(1, POINTS_AT_ONCE // int(np.prod(grid.shape[1:])))
    for start in range(0, grid.shape[0], slab):
        here = slice(start, min(start + slab, grid.shape[0]))
        axes = [np.arange(here.start, here.stop), *(np.arange(n) for n in grid.shape[1:])]
        yield here, grid.index_to_ras(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
