"""Derivatives of displacement and velocity fields, in voxels of their own grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from r2reg.errors import GeometryError
from r2reg.flow import backend

Tensor = Any


def difference(field: Tensor, axis: int, order: str = "forward") -> Tensor:
    """Difference along one spatial axis (0-based).

    Args:
        field: (N, *S, C).
        order: "forward": f(x+1) - f(x), one voxel shorter along the axis; "central": (f(x+1) - f(x-1)) / 2, two.
    """
    step = 1 if order == "forward" else 2
    n = field.shape[axis + 1]
    upper = _slice(field, axis, step, n)
    lower = _slice(field, axis, 0, n - step)
    return upper - lower if step == 1 else (upper - lower) / 2


def central_gradient(field: Tensor) -> Tensor:
    """(N, *(S-2), C, d): central differences on interior voxels, the derivative's axis last.

    Raises:
        GeometryError: fewer than 3 voxels along an axis.
    """
    return ops.stack([_interior_difference(field, axis) for axis in range(len(field.shape) - 2)], axis=-1)


def _interior_difference(field: Tensor, axis: int) -> Tensor:
    """(N, *(S-2), C): central differences along one axis, on interior voxels."""
    shape = field.shape[1:-1]
    if min(shape) < 3:
        raise GeometryError(f"central differences need 3 voxels along each axis. Received: shape={tuple(shape)}")
    part = difference(field, axis, "central")
    for other in range(len(shape)):
        if other != axis:
            part = _slice(part, other, 1, shape[other] - 1)
    return part


def determinant(matrix: Tensor) -> Tensor:
    """(..., d, d) -> (...), d = 2 or 3, written out: batched LU is slow for millions of tiny matrices."""
    axes = range(matrix.shape[-1])
    return _determinant([[matrix[..., row, column] for column in axes] for row in axes])


def _determinant(m: Sequence[Sequence[Tensor]]) -> Tensor:
    """Of rows of entries."""
    if len(m) == 2:
        return m[0][0] * m[1][1] - m[0][1] * m[1][0]
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )


@backend.accelerate()
def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Determinant of the Jacobian of x -> x + u(x), central differences.

    Args:
        displacement: (N, X, Y[, Z], d), voxels, components in array-axis order, on its own grid.
    Returns:
        (N, X-2, Y-2[, Z-2]): interior voxels only; 1 where u is constant.
    Raises:
        GeometryError: fewer than 3 voxels along an axis.
    Source: Joshi & Hong 2023, eq. 10 (with the identity added once).
    """
    # Component by component: stacked matrices are written out, and kept for the gradient, which took a third of a
    # training's memory.
    axes = range(displacement.shape[-1])
    parts = [displacement[..., k : k + 1] for k in axes]
    rows = [[_interior_difference(parts[k], axis) + float(k == axis) for axis in axes] for k in axes]
    return _determinant(rows)[..., 0]


@backend.accelerate()
def lipschitz_bound(field: Tensor) -> Tensor:
    """An upper bound of the Lipschitz constant of a linearly interpolated field, over the whole batch.

    Inside a cell each partial derivative is a convex combination of the differences along the cell's parallel
    edges, so their largest norm bounds it. The smaller of two bounds is returned, for the Euclidean norm (via
    Frobenius) and for the maximum norm (largest row sum); either one below 1 makes x + u(x) one-to-one.

    Args:
        field: (N, *S, d), voxels (a displacement, or a step's share h v of a velocity).
    Returns:
        Scalar tensor.
    """
    shape = field.shape[1:-1]
    squares: Tensor = 0.0
    rows: Tensor = 0.0
    for axis in range(len(shape)):
        if shape[axis] < 2:
            continue
        edge = ops.abs(difference(field, axis))
        squares = squares + _cell_maximum(ops.sum(edge * edge, axis=-1, keepdims=True), axis)
        rows = rows + _cell_maximum(edge, axis)
    return ops.minimum(ops.sqrt(ops.max(squares)), ops.max(rows))


def _cell_maximum(edge: Tensor, along: int) -> Tensor:
    """The largest of each cell's edges parallel to an axis; the other axes become one voxel shorter."""
    for axis in range(len(edge.shape) - 2):
        n = edge.shape[axis + 1]
        if axis != along and n > 1:
            edge = ops.maximum(_slice(edge, axis, 0, n - 1), _slice(edge, axis, 1, n))
    return edge


def _slice(field: Tensor, axis: int, start: int, stop: int) -> Tensor:
    index: Sequence[Any] = [slice(None)] * (axis + 1) + [slice(start, stop)]
    return field[tuple(index)]
