"""A field on the grid of twice the size, which shares its field of view."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow.smooth import axis_neighbours

Tensor = Any


def double(field: Tensor) -> Tensor:
    """Linear interpolation at the centres of the fine grid's voxels, the edge value held beyond the border.

    Voxel i covers voxels 2i and 2i + 1 of the fine grid. Values only: a displacement's vectors, in voxels of its own
    grid, are to be doubled beside.

    Args:
        field: (N, *S, C).
    Returns:
        (N, *2S, C).
    """
    for axis in range(len(field.shape) - 2):
        before, after = axis_neighbours(field, axis)
        parts = ops.stack([0.75 * field + 0.25 * before, 0.75 * field + 0.25 * after], axis=axis + 2)
        shape = [-1, *field.shape[1:]]
        shape[axis + 1] *= 2
        field = ops.reshape(parts, shape)
    return field
