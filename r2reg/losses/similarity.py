"""How unlike two images are: scalars, lower is better, means over voxels so that weights do not depend on size."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.flow.smooth import box_sum

Tensor = Any

# Inside the ratio, on intensities in [0, 1]; 1e-8 is known to collapse trainings on flat regions (method of LapIRN).
LNCC_EPSILON = 1e-5


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


@backend.accelerate("radius")
def lncc_map(fixed: Tensor, moved: Tensor, *, radius: int = 2) -> Tensor:
    """Squared local correlation coefficient of each voxel's window.

    Args:
        fixed, moved: (N, *S, C), intensities about [0, 1].
        radius: the window is 2 radius + 1 voxels wide; at the border it holds the voxels that exist.
    Returns:
        (N, *S, C), in [0, 1]; 0 where either window is flat.
    """
    count = box_sum(ops.ones_like(fixed[:1, ..., :1]), radius=radius)
    sum_f, sum_m = box_sum(fixed, radius=radius), box_sum(moved, radius=radius)
    cross = box_sum(fixed * moved, radius=radius) - sum_f * sum_m / count
    var_f = box_sum(fixed * fixed, radius=radius) - sum_f * sum_f / count
    var_m = box_sum(moved * moved, radius=radius) - sum_m * sum_m / count
    # Rounding can leave a variance just below 0 in a flat window.
    return cross * cross / (ops.maximum(var_f, 0) * ops.maximum(var_m, 0) + LNCC_EPSILON)


def lncc(fixed: Tensor, moved: Tensor, mask: Tensor | None = None, radius: int = 2) -> Tensor:
    """1 - mean squared local normalised cross-correlation.

    Args:
        fixed, moved: (N, *S, C), intensities about [0, 1]. mask: (N, *S, 1) or None. radius: voxels.
    Source: Avants et al. 2008, the squared form, which does not care whether contrast is inverted.
    """
    return 1 - masked_mean(lncc_map(fixed, moved, radius=radius), mask)


SIMILARITIES = {"mse": mse, "lncc": lncc}
