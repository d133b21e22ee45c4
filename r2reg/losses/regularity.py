"""How unlike a smooth one-to-one map a field is: scalars, means over voxels, 0 for the identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from r2reg.flow.jacobian import difference, jacobian_determinant
from r2reg.flow.warp import compose, sample

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


def kinetic(velocity: Tensor) -> Tensor:
    """Mean over voxels of |v|^2: of a stationary velocity twice its kinetic energy, where mass is 1 a voxel.

    Args:
        velocity: (N, *S, d), voxels per unit time.
    Source: the energy of a flow's path of Beg et al. 2005, with the identity for its operator.
    """
    return ops.mean(ops.sum(ops.square(velocity), axis=-1))


def bending(field: Tensor) -> Tensor:
    """Mean over interior voxels of the squared second derivatives, mixed ones twice, summed over components.

    Args:
        field: (N, *S, d), 3 voxels at least along each axis.
    Source: the thin-plate energy of Rueckert et al. 1999.
    """
    axes = range(len(field.shape) - 2)
    total: Tensor = 0.0
    for axis in axes:
        total = total + ops.mean(ops.sum(ops.square(difference(difference(field, axis), axis)), axis=-1))
        slope = difference(field, axis, "central")
        for other in range(axis):
            total = total + 2 * ops.mean(ops.sum(ops.square(difference(slope, other, "central")), axis=-1))
    return total


def kl_divergence(mean: Tensor, log_variance: Tensor, precision: float) -> Tensor:
    """KL(q || p) per voxel, up to a constant, of q = N(mean, exp(log_variance)) from a smooth prior.

    p = N(0, (lambda L)^-1) for each component, L = D - A the Laplacian of the grid's graph, D a voxel's number of
    neighbours: (1/2) (tr(lambda D Sigma) - log |Sigma| + lambda mean^T L mean).

    Args:
        mean, log_variance: (N, *S, d). precision: lambda.
    Source: the divergence of the two Gaussians; the prior is that of Dalca et al. 2018.
    """
    neighbours = ops.convert_to_tensor(_neighbours(mean.shape[1:-1]), dtype=mean.dtype)
    variances = ops.sum(precision * neighbours * ops.exp(log_variance) - log_variance, axis=-1)
    rough = _sum_of_squared_differences(mean) / math.prod(mean.shape[:-1])
    return (ops.mean(variances) + precision * rough) / 2


def _neighbours(shape: Sequence[int]) -> np.ndarray:
    """(1, *shape, 1): how many neighbours along the axes each voxel has."""
    count = np.zeros(tuple(shape), np.float32)
    for axis, n in enumerate(shape):
        along = np.full(n, 2.0 if n > 1 else 0.0, np.float32)
        along[[0, -1]] = 1.0 if n > 1 else 0.0
        count += along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return count[None, ..., None]


def _sum_of_squared_differences(field: Tensor) -> Tensor:
    axes = range(len(field.shape) - 2)
    return sum(ops.sum(ops.square(difference(field, axis))) for axis in axes)


def inverse_consistency(forward: Tensor, backward: Tensor) -> Tensor:
    """Mean of |phi_AB(phi_BA(x)) - x|^2, in voxels squared.

    Args:
        forward, backward: (N, *S, d), the displacements of the two directions.
    Source: Christensen & Johnson 2001.
    """
    return ops.mean(ops.sum(ops.square(compose(forward, backward)), axis=-1))


def gradicon(forward: Tensor, backward: Tensor) -> Tensor:
    """Mean of |grad (phi_AB o phi_BA) - I|^2 (Frobenius): 0 where they are inverses up to a translation.

    Args:
        forward, backward: (N, *S, d), the displacements of the two directions.
    Source: Tian et al. 2023, with forward differences.
    """
    return diffusion(compose(forward, backward))


def flow_consistency(forward: Tensor, inverse: Tensor, points: Tensor) -> Tensor:
    """Mean of |x - phi(-1)(phi(1)(x))|^2 over points, in voxels squared.

    Args:
        forward, inverse: (N, *S, d): the displacements of the flow and of the flow of the negated velocity.
        points: (N, P, d), voxels: of the data, or anywhere in the domain.
    Source: Rousseau & Fablet 2018, eq. 10; phi(-1) as the flow of -v is our reading.
    """
    there = points + sample(forward, points)
    back = there + sample(inverse, there)
    return ops.mean(ops.sum(ops.square(back - points), axis=-1))
