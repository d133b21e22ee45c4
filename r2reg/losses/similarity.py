"""How unlike two images are: scalars, lower is better, means over voxels so that weights do not depend on size."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.losses.correlation import LNCC_RADIUS, lncc_map
from r2reg.losses.descriptors import mind_ssc
from r2reg.losses.gradients import edge_parameters, ngf_map
from r2reg.losses.information import mutual_information

Tensor = Any


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of values, over the voxels of a mask (weights >= 0 of a shape that broadcasts) where one is given."""
    if mask is None:
        return ops.mean(values)
    mask = ops.broadcast_to(ops.cast(mask, values.dtype), ops.shape(values))
    # An empty mask gives 0, not NaN: such an item of a batch carries no information.
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1e-6)


def mse(fixed: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference.

    Args:
        fixed, moved: (N, *S, C). mask: (N, *S, 1) or None.
    Source: Joshi & Hong 2023, eq. 8.
    """
    return masked_mean(ops.square(fixed - moved), mask)


def lncc(fixed: Tensor, moved: Tensor, mask: Tensor | None = None, radius: int = LNCC_RADIUS) -> Tensor:
    """1 - mean squared local normalised cross-correlation.

    Args:
        fixed, moved: (N, *S, C), intensities about [0, 1]. mask: (N, *S, 1) or None. radius: voxels.
    Source: Avants et al. 2008, the squared form, which does not care whether contrast is inverted.
    """
    return 1 - masked_mean(lncc_map(fixed, moved, radius=radius), mask)


def ngf(fixed: Tensor, moved: Tensor, mask: Tensor | None = None, epsilon: float | None = None) -> Tensor:
    """Mean unlikeness of the directions of the gradients, see ngf_map.

    Args:
        fixed, moved: (N, *S, C). mask: (N, *S, 1) or None.
        epsilon: intensity per voxel; the paper of R2Net has 1; None: each image's mean gradient magnitude.
    Source: Joshi & Hong 2023, eq. 9, in the standard form of Haber & Modersitzki 2006.
    """
    return masked_mean(ngf_map(fixed, moved, *edge_parameters(fixed, moved, epsilon)), mask)


def mi(fixed: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """Minus the mutual information in nats, mean over the items; differentiable in moved only.

    Args:
        fixed, moved: (N, *S, 1), intensities in [0, 1]. mask: (N, *S, 1) or None.
    Source: Mattes et al. 2003.
    """
    return -ops.mean(mutual_information(fixed, moved, mask))


def mind(fixed: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of the self-similarity contexts, see mind_ssc.

    Args:
        fixed, moved: (N, *S, 1), intensities about [0, 1]. mask: (N, *S, 1) or None.
    Source: Heinrich et al. 2013.
    """
    return mse(mind_ssc(fixed), mind_ssc(moved), mask)


SIMILARITIES = {"mse": mse, "lncc": lncc, "ngf": ngf, "mi": mi, "mind": mind}
