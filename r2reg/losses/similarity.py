"""How unlike two images are: scalars, lower is better, means over voxels so that weights do not depend on size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.flow.smooth import box_mean

Tensor = Any

# Inside the ratio, on intensities in [0, 1]; 1e-8 is known to collapse trainings on flat regions (method of LapIRN).
LNCC_EPSILON = 1e-5
LNCC_RADIUS = 2  # voxels; windows of 5^d, radii 1 to 3 register alike


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
    return masked_mean(mse_map(fixed, moved), mask)


def mse_map(fixed: Tensor, moved: Tensor) -> Tensor:
    """Squared difference of each voxel, (N, *S, C)."""
    return ops.square(fixed - moved)


@backend.accelerate("radius")
def lncc_map(fixed: Tensor, moved: Tensor, *, radius: int = LNCC_RADIUS) -> Tensor:
    """Squared local correlation coefficient of each voxel's window.

    Args:
        fixed, moved: (N, *S, C), intensities about [0, 1].
        radius: the window is 2 radius + 1 voxels wide; beyond the border the edge value holds.
    Returns:
        (N, *S, C), in [0, 1]; 0 where either window is flat.
    """
    mean_f, mean_m = box_mean(fixed, radius=radius), box_mean(moved, radius=radius)
    count = (2 * radius + 1) ** (len(fixed.shape) - 2)
    cross = count * (box_mean(fixed * moved, radius=radius) - mean_f * mean_m)
    var_f = count * (box_mean(fixed * fixed, radius=radius) - mean_f * mean_f)
    var_m = count * (box_mean(moved * moved, radius=radius) - mean_m * mean_m)
    # Rounding can leave a variance just below 0 in a flat window.
    return cross * cross / (ops.maximum(var_f, 0) * ops.maximum(var_m, 0) + LNCC_EPSILON)


def lncc(fixed: Tensor, moved: Tensor, mask: Tensor | None = None, radius: int = LNCC_RADIUS) -> Tensor:
    """1 - mean squared local normalised cross-correlation.

    Args:
        fixed, moved: (N, *S, C), intensities about [0, 1]. mask: (N, *S, 1) or None. radius: voxels.
    Source: Avants et al. 2008, the squared form, which does not care whether contrast is inverted.
    """
    return 1 - masked_mean(lncc_map(fixed, moved, radius=radius), mask)


SIMILARITIES = {"mse": mse, "lncc": lncc}

# name -> unlikeness of each voxel (fixed, moved), and how many voxels away an intensity still changes it
LOCAL_MAPS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "mse": (mse_map, 0),
    "lncc": (lambda fixed, moved: 1 - lncc_map(fixed, moved, radius=LNCC_RADIUS), LNCC_RADIUS),
}
