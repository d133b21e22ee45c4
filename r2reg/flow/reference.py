"""The mathematics on displacement fields in numpy: oracle of the backend's version, base of the metrics.

Everywhere a displacement u has shape (X, Y[, Z], d), no batch axis, in voxels of its own grid with components
in array-axis order, and stands for the map x -> x + u(x). Results keep float32 where it comes in (full-size
metrics need the memory), anything else is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from r2reg.errors import GeometryError
from r2reg.geometry.grid import identity_points
from r2reg.threads import in_threads

Result = TypeVar("Result")

# Voxels worked on at a time: the ten determinants keep about 50 arrays of this length, so they stay below 100
# MB.
SLAB_VOXELS = 1 << 18


def as_field(displacement: np.ndarray) -> np.ndarray:
    """The displacement as a float32 or float64 array.

    Raises:
        GeometryError: not (X, Y, 2) or (X, Y, Z, 3).
    """
    field = np.asarray(displacement)
    if field.ndim not in (3, 4) or field.shape[-1] != field.ndim - 1:
        raise GeometryError(f"a displacement is (X, Y, 2) or (X, Y, Z, 3). Received: shape={field.shape}")
    return field if field.dtype in (np.float32, np.float64) else field.astype(np.float64)


def sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of an image at points between its voxels, linear; beyond the outer voxels the edge's value.

    Args:
        image: (X, Y[, Z]) or (X, Y[, Z], C).
        points: (..., d), voxel indices of `image`.
    Returns:
        (...) or (..., C), float64.
    """
    from scipy.ndimage import map_coordinates

    image = np.asarray(image, dtype=np.float64)
    where = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
    if image.ndim == len(where):
        return map_coordinates(image, where, order=1, mode="nearest")
    channels = [map_coordinates(image[..., c], where, order=1, mode="nearest") for c in range(image.shape[-1])]
    return np.stack(channels, axis=-1)


def warp(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """moved(x) = image(x + u(x)), linear, the edge's value outside.

    Args:
        image: (X', Y'[, Z']) or with a last axis of channels; its voxel grid is the displacement's, extended.
        displacement: (X, Y[, Z], d).
    Returns:
        (X, Y[, Z]) or (X, Y[, Z], C), float64.
    """
    field = as_field(displacement)
    return sample(image, identity_points(field.shape[:-1]) + field)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Displacement of x -> outer(inner(x)): u(x) = u_inner(x) + u_outer(x + u_inner(x)).

    Args:
        outer: (X, Y[, Z], d), acts second.
        inner: (X, Y[, Z], d), acts first.
    Returns:
        (X, Y[, Z], d), float64.
    """
    return as_field(inner) + warp(as_field(outer), inner)


def determinant(columns: list[np.ndarray]) -> np.ndarray:
    """Determinant of d x d matrices, d = 2 or 3, given by d columns (..., d); written out for speed."""
    if len(columns) == 2:
        a, b = columns
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return _dot(columns[0], _cross(columns[1], columns[2]))


def _cross(b: np.ndarray, c: np.ndarray) -> list[np.ndarray]:
    pairs = ((1, 2), (2, 0), (0, 1))
    return [b[..., i] * c[..., j] - b[..., j] * c[..., i] for i, j in pairs]


def _dot(a: np.ndarray, b: list[np.ndarray]) -> np.ndarray:
    return a[..., 0] * b[0] + a[..., 1] * b[1] + a[..., 2] * b[2]


def jacobian_determinant(displacement: np.ndarray) -> np.ndarray:
    """Determinant of the Jacobian of x -> x + u(x), central differences.

    Args:
        displacement: (X, Y[, Z], d).
    Returns:
        (X-2, Y-2[, Z-2]): interior voxels only; 1 where u is constant.
    Raises:
        GeometryError: fewer than 3 voxels along an axis.
    """
    field = as_field(displacement)
    if min(field.shape[:-1]) < 3:
        raise GeometryError(f"central differences need 3 voxels along each axis. Received: {field.shape[:-1]}")
    inner = (slice(1, -1),) * (field.ndim - 1)
    return full_jacobian_determinant(field)[inner]


def full_jacobian_determinant(displacement: np.ndarray) -> np.ndarray:
    """Determinant of the Jacobian of x -> x + u(x) at every voxel.

    Central differences inside, one-sided ones at the border (as `np.gradient`).

    Args:
        displacement: (X, Y[, Z], d), at least 2 voxels along each axis.
    Returns:
        (X, Y[, Z]), float32 where the displacement is, else float64.
    Raises:
        GeometryError: an axis of one voxel.
    """
    field = as_field(displacement)
    if min(field.shape[:-1]) < 2:
        raise GeometryError(f"a Jacobian needs 2 voxels along each axis. Received: {field.shape[:-1]}")
    result = np.empty(field.shape[:-1], dtype=field.dtype)

    def fill(slab: tuple[int, int]) -> None:
        start, stop = slab
        low, high = max(start - 1, 0), min(stop + 1, len(field))
        part = _np_gradient_determinant(field[low:high])
        result[start:stop] = part[start - low : len(part) - (high - stop)]

    in_threads(fill, slabs(field.shape[:-1]))
    return result


def _np_gradient_determinant(field: np.ndarray) -> np.ndarray:
    columns = [np.gradient(field, axis=axis) for axis in range(field.ndim - 1)]
    for axis, column in enumerate(columns):
        column[..., axis] += 1
    return determinant(columns)


def slabs(shape: tuple[int, ...], voxels: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of the first axis that hold about so many voxels each; default: SLAB_VOXELS."""
    thickness = max(1, (voxels or SLAB_VOXELS) // int(np.prod(shape[1:])))
    for start in range(0, shape[0], thickness):
        yield start, min(start + thickness, shape[0])


def folded_voxels(displacement: np.ndarray) -> np.ndarray:
    """(X, Y[, Z]) bool: where any of a voxel's finite-difference determinants is <= 0 (its digital folds)."""
    return np.concatenate(map_cells(lambda _start, _stop, dets: (dets <= 0).any(axis=0), displacement))


def cell_determinants(displacement: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """The finite-difference determinants that decide digital diffeomorphism, slab by slab.

    3-D: ten at each voxel p. Eight corner tetrahedra, one per choice of forward or backward difference along
    each axis (1 for the identity), and the central tetrahedra of the two cuts of a cell into five: the one on
    the even corners of the cell above p, and the one on the odd corners of the cell below p (2 for the
    identity each). 2-D: the four corner triangles (1 for the identity). Beyond the border the displacement is
    repeated.

    Args:
        displacement: (X, Y[, Z], d).
    Returns:
        Tuples (start, stop, dets): voxels [start, stop) of the first axis; dets is (10, stop - start, Y, Z),
        the corner tetrahedra first, or (4, stop - start, Y).
    Source: Liu, Chen, Wei, Carass & Prince, On Finite Difference Jacobian Computation in Deformable Image
        Registration, IJCV 2024; same attribution to voxels and border as the authors'
        `digital-diffeomorphism`.
    """
    field = as_field(displacement)
    for start, stop in slabs(field.shape[:-1]):
        yield start, stop, _determinants_of(field, start, stop)


def map_cells(function: Callable[[int, int, np.ndarray], Result], displacement: np.ndarray) -> list[Result]:
    """function(start, stop, dets) of all that `cell_determinants` yields, several at a time."""
    field = as_field(displacement)
    return in_threads(lambda slab: function(*slab, _determinants_of(field, *slab)), slabs(field.shape[:-1]))


def _determinants_of(field: np.ndarray, start: int, stop: int) -> np.ndarray:
    rows = np.clip(np.arange(start - 1, stop + 1), 0, len(field) - 1)
    edges = [(0, 0)] + [(1, 1)] * (field.ndim - 2) + [(0, 0)]
    return _slab_determinants(np.pad(field[rows], edges, mode="edge"))


def _slab_determinants(padded: np.ndarray) -> np.ndarray:
    """Determinants at the inner voxels of a field padded by one voxel, (10 or 4, ...)."""
    ndim = padded.ndim - 1
    # Components first, so that every operation below runs over contiguous voxels.
    padded = np.moveaxis(np.ascontiguousarray(np.moveaxis(padded, -1, 0)), 0, -1)
    forward, backward = [], []
    for axis in range(ndim):
        unit = np.eye(ndim, dtype=int)[axis]
        forward.append(_difference(padded, unit, 0 * unit))
        backward.append(_difference(padded, 0 * unit, -unit))
    if ndim == 2:
        x, y = zip(forward, backward, strict=True)
        return np.stack([determinant([a, b]) for a in x for b in y])
    x, y, z = zip(forward, backward, strict=True)
    out = np.empty((10, *x[0].shape[:-1]), dtype=padded.dtype)
    for i, (b, c) in enumerate((b, c) for b in y for c in z):
        normal = _cross(b, c)
        for j, a in enumerate(x):
            out[4 * j + i] = _dot(a, normal)
    diagonals = np.array([(1, 1, 0), (0, 1, 1), (1, 0, 1)])
    out[8] = determinant([_difference(padded, d, 0 * d) for d in diagonals])
    # The mirrored tetrahedron: swapping two diagonals keeps its sign.
    out[9] = determinant([_difference(padded, -d, 0 * d) for d in diagonals[[0, 2, 1]]])
    return out


def _difference(padded: np.ndarray, head: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """phi(p + head) - phi(p + tail) at the inner voxels p; from displacements, so no position is rounded."""
    shape = padded.shape[:-1]
    parts = [
        padded[tuple(slice(1 + o, n - 1 + o) for o, n in zip(offset, shape, strict=True))] for offset in (head, tail)
    ]
    gap = np.empty((padded.shape[-1], *parts[0].shape[:-1]), dtype=padded.dtype)
    for c, step in enumerate(head - tail):
        np.subtract(parts[0][..., c], parts[1][..., c], out=gap[c])
        if step:
            gap[c] += step
    return np.moveaxis(gap, 0, -1)
