"""How unlike a smooth one-to-one map a field is: scalars, means over voxels, 0 for the identity."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow.jacobian import difference, jacobian_determinant

Tensor = Any


def folding(displacement: Tensor) -> Tensor:
    """Mean of (|J| - J) / 2 with J = det(I + grad u): the folded volume.

    Args:
        displacement: (N, *S, d), voxels.
    Source: Joshi & Hong 2023, eq. 10 (with the identity added once).
    """
    return ops.mean(ops.relu(-jacobian_determinant(displacement)))


def diffusion(field: Tensor) -> Tensor:
    """Mean over voxels of |grad f|^2, forward differences, summed over components and axes.

    Args:
        field: (N, *S, d), a velocity or displacement in voxels.
    """
    axes = range(len(field.shape) - 2)
    return sum(ops.mean(ops.sum(ops.square(difference(field, axis)), axis=-1)) for axis in axes)
