"""Grids of different resolution over one field of view: voxel i of the coarse one covers voxels f i ... f i + f - 1."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.flow.smooth import axis_neighbours

Tensor = Any


def enlarge(field: Tensor, factor: int = 2) -> Tensor:
    """Linear interpolation at the centres of the fine grid's voxels, the edge value held beyond the border.

    Values only: a displacement's vectors, in voxels of its own grid, are to be multiplied by the factor beside.

    Args:
        field: (N, *S, C). factor: whole number >= 1.
    Returns:
        (N, *factor S, C).
    """
    return _enlarged(field, factor=factor)


@backend.accelerate("factor")
def _enlarged(field: Tensor, *, factor: int) -> Tensor:
    for axis in range(len(field.shape) - 2):
        before, after = axis_neighbours(field, axis)
        parts = []
        for k in range(factor):
            offset = (k + 0.5) / factor - 0.5  # of the fine voxel's centre from the coarse one's, coarse voxels
            neighbour = before if offset < 0 else after
            parts.append((1 - abs(offset)) * field + abs(offset) * neighbour)
        shape = [-1, *field.shape[1:]]
        shape[axis + 1] *= factor
        field = ops.reshape(ops.stack(parts, axis=axis + 2), shape)
    return field


def shrink(field: Tensor, factor: int) -> Tensor:
    """Means over blocks of factor^d voxels; of a size that does not divide, the last voxel is repeated.

    Args:
        field: (N, *S, C).
    Returns:
        (N, *ceil(S / factor), C), of the dtype.
    """
    for axis in range(1, len(field.shape) - 1):
        n = field.shape[axis]
        if n % factor:
            last = ops.take(field, [n - 1] * (-n % factor), axis=axis)
            field = ops.concatenate([field, last], axis=axis)
        shape = [-1, *field.shape[1:]]
        field = ops.mean(
            ops.reshape(field, [*shape[:axis], -(-n // factor), factor, *shape[axis + 1 :]]), axis=axis + 1
        )
    return field
