"""A regular voxel grid in the world.

Frames: `index` is the voxel index in array-axis order; `ras` is world millimetres, x to the right, y to the
front, z to the top (nibabel's frame). ITK's LPS frame appears in `r2reg.io` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from r2reg.errors import GeometryError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and placement of a 2-D or 3-D image.

    Args:
        shape: (X, Y) or (X, Y, Z), voxels along each array axis.
        affine: (d+1, d+1), voxel index -> RAS mm, homogeneous.
    Raises:
        GeometryError: not 2-D or 3-D, an empty axis, or an affine that is not finite and invertible.
    """

    shape: tuple[int, ...]
    affine: Array

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        ndim = len(shape)
        if ndim not in (2, 3) or min(shape) < 1:
            raise GeometryError(f"a grid has 2 or 3 non-empty axes. Received: shape={shape}")
        if affine.shape != (ndim + 1, ndim + 1):
            raise GeometryError(f"a {ndim}-D grid needs a {ndim + 1}x{ndim + 1} affine. Received: {affine.shape}")
        if not np.isfinite(affine).all():
            raise GeometryError("the affine holds NaN or infinite values; repair the image's header")
        spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
        # A singular affine cannot say where a voxel lies; 1e-6 is far below any real obliquity or shear.
        if (spacing == 0).any() or abs(np.linalg.det(affine[:-1, :-1] / np.where(spacing, spacing, 1))) < 1e-6:
            raise GeometryError("the affine is singular (zero or parallel axes); repair the image's header")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __eq__(self, other: object) -> bool:
        """Same shape, and corners that agree to 1e-3 of the smallest spacing (float32 headers round)."""
        if not isinstance(other, Grid) or self.shape != other.shape:
            return False
        gap = np.abs(self.index_to_ras(self.corners()) - other.index_to_ras(self.corners())).max()
        return bool(gap <= 1e-3 * self.spacing.min())

    __hash__ = None  # type: ignore[assignment]

    @property
    def ndim(self) -> int:
        """Number of array axes, 2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> Array:
        """(d,) distance between voxel centres along each array axis, mm."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    @property
    def directions(self) -> Array:
        """(d, d) unit vectors of the array axes in RAS, one per column."""
        return self.affine[:-1, :-1] / self.spacing

    @property
    def center_ras(self) -> Array:
        """(d,) RAS mm of the middle of the grid."""
        return self.index_to_ras((np.array(self.shape) - 1) / 2)

    def holds(self, ras: Array) -> np.ndarray:
        """(n,) whether points (n, d) lie in some voxel."""
        index = self.ras_to_index(ras)
        return np.all((index >= -0.5) & (index <= np.array(self.shape) - 0.5), axis=-1)

    def corners(self) -> Array:
        """(2^d, d) indices of the corner voxels."""
        ends = [(0, n - 1) for n in self.shape]
        return np.array(np.meshgrid(*ends, indexing="ij"), dtype=np.float64).reshape(self.ndim, -1).T

    def index_to_ras(self, index: Array | Sequence[float]) -> Array:
        """(..., d) voxel indices -> (..., d) RAS mm."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def ras_to_index(self, ras: Array | Sequence[float]) -> Array:
        """(..., d) RAS mm -> (..., d) voxel indices."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(ras, dtype=np.float64) @ inverse[:-1, :-1].T + inverse[:-1, -1]

    def canonical(self) -> Grid:
        """The same voxels with axes permuted and flipped to lie closest to R, A(, S)."""
        order, flips = canonical_axes(self)
        shape = np.array(self.shape)[order]
        to_old = np.zeros((self.ndim + 1, self.ndim + 1))
        to_old[-1, -1] = 1
        for new, old in enumerate(order):
            to_old[old, new] = -1 if flips[new] else 1
            to_old[old, -1] = self.shape[old] - 1 if flips[new] else 0
        return Grid(tuple(shape), self.affine @ to_old)

    def with_spacing(self, spacing: float | Sequence[float]) -> Grid:
        """A grid with the same axes and outer borders (to a voxel) and the given spacing in mm.

        The number of voxels along an axis is the extent over the spacing, rounded up, and the new grid is
        centred on the old, so no part of the field of view is lost.
        """
        target = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (self.ndim,))
        if not np.isfinite(target).all() or (target <= 0).any():
            raise GeometryError(f"spacing must be positive millimetres. Received: {spacing}")
        # 1e-4 voxel of slack: 2 * 80 mm of float32 spacing must not become 81 voxels.
        count = np.maximum(np.ceil(np.array(self.shape) * self.spacing / target - 1e-4), 1).astype(int)
        affine = np.eye(self.ndim + 1)
        affine[:-1, :-1] = self.directions * target
        affine[:-1, -1] = self.center_ras - affine[:-1, :-1] @ ((count - 1) / 2)
        return Grid(tuple(count), affine)


def canonical_axes(grid: Grid) -> tuple[list[int], list[bool]]:
    """For each world axis R, A(, S): the array axis closest to it, and whether it points the other way."""

    def closeness(axes: tuple[int, ...]) -> float:
        return sum(abs(float(grid.directions[w, a])) for w, a in enumerate(axes))

    orders: list[tuple[int, ...]] = list(permutations(range(grid.ndim)))
    order = max(orders, key=closeness)
    return list(order), [bool(grid.directions[w, a] < 0) for w, a in enumerate(order)]


def identity_points(shape: tuple[int, ...]) -> Array:
    """(X, Y[, Z], d) float64, the index of each voxel."""
    return np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in shape], indexing="ij"), axis=-1)


def index_map(source: Grid, target: Grid, ras_map: Array | None = None) -> Array:
    """(d+1, d+1) matrix: index on `source` -> RAS -> `ras_map` (default: identity) -> index on `target`."""
    world = np.eye(source.ndim + 1) if ras_map is None else ras_map
    return np.linalg.inv(target.affine) @ world @ source.affine
