"""How each similarity steers refinement: its value and its derivative in the moved image, fast enough for each step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow import backend
from r2reg.losses.correlation import LNCC_RADIUS, FixedWindows, fixed_windows, lncc_slope
from r2reg.losses.descriptors import DILATION, mind_ssc
from r2reg.losses.gradients import edge_parameters, ngf_slope
from r2reg.losses.information import fixed_bins, information_slope
from r2reg.losses.overlap import dice_slope
from r2reg.losses.slabs import in_slabs

Tensor = Any


@dataclass(frozen=True)
class Steering:
    """How a similarity steers refinement: what is warped, what is prepared once, what each step computes.

    features: (1, *S, 1) image in [0, 1] -> (1, *S, C), once per level; fixed's stay, moving's are warped.
    prepare: (fixed's features, moving's features) -> what does not change during a level, for `slope`.
    slope: (prepared, moved features (1, *S, C), weight (1, *S, 1) >= 0 or None) -> (value, derivative).
        value: scalar, lower is better, the weighted mean of the voxels' unlikeness.
        derivative: (1, *S, C), of value times the sum of the weights, in each of moved's values: so it does not
        depend on the image's size.
    reach: voxels around a voxel that its unlikeness takes in.
    """

    features: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor, Tensor], Any]
    slope: Callable[[Any, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    reach: int = 0


def steering(similarity: str, *, radius: int = LNCC_RADIUS, epsilon: float | None = None) -> Steering:
    """The steering of a similarity.

    Args:
        similarity: mse, lncc, ngf, mi, mind or dice. Dice takes images that are one-hot or probability channels.
        radius: voxels, of lncc's windows and mind's patches.
        epsilon: of ngf, intensity per voxel; None: each image's mean gradient magnitude.
    Raises:
        ConfigError: another similarity.
    """
    makers: dict[str, Callable[[], Steering]] = {
        "mse": _mse,
        "lncc": functools.partial(_lncc, radius),
        "ngf": functools.partial(_ngf, epsilon),
        "mi": _mi,
        "mind": functools.partial(_mind, radius),
        "dice": _dice,
    }
    if similarity not in makers:
        raise ConfigError(f"similarity must be one of {', '.join(makers)}. Received: similarity={similarity!r}")
    return makers[similarity]()


def _mse() -> Steering:
    return Steering(_same, _fixed_only, _squares_slope)


def _lncc(radius: int) -> Steering:
    def slope(fixed: FixedWindows, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        def of_slab(values: Tensor, mean: Tensor, variation: Tensor, m: Tensor, w: Any) -> tuple[Tensor, Tensor]:
            return lncc_slope(FixedWindows(values, mean, variation), m, w, radius)

        total, derivative = in_slabs(of_slab, (*fixed, moved, weight), radius)
        return total / weight_sum(moved, weight), derivative

    return Steering(_same, lambda fixed, _: fixed_windows(fixed, radius), slope, reach=radius)


def _ngf(epsilon: float | None) -> Steering:
    def prepare(fixed: Tensor, moving: Tensor) -> Any:
        return fixed, edge_parameters(fixed, moving, epsilon)

    def slope(prepared: Any, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        fixed, epsilons = prepared
        total, derivative = in_slabs(lambda *slab: ngf_slope(*slab, *epsilons), (fixed, moved, weight), 1)
        return total / weight_sum(moved, weight), derivative

    return Steering(_same, prepare, slope, reach=1)


def _mi() -> Steering:
    def slope(bins: Tensor, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return information_slope(bins, moved, weight)

    return Steering(_same, lambda fixed, _: fixed_bins(fixed), slope)


def _mind(radius: int) -> Steering:
    features = functools.partial(mind_ssc, radius=radius)
    return Steering(features, _fixed_only, _squares_slope, reach=radius + DILATION)


def _dice() -> Steering:
    def slope(fixed: Tensor, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return dice_slope(fixed, moved, weight, weight_sum(moved, weight))

    return Steering(_same, _fixed_only, slope)


def _same(image: Tensor) -> Tensor:
    return image


def _fixed_only(fixed: Tensor, _: Tensor) -> Tensor:
    return fixed


def _squares_slope(fixed: Tensor, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    planes, derivative = _squares(fixed, moved, weight)
    return ops.sum(planes) / weight_sum(moved, weight), derivative


@backend.accelerate()
def _squares(fixed: Tensor, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean over channels of (m - f)^2, summed over each plane, (X,), and the sum's derivative."""
    difference = moved - fixed
    share = (1.0 if weight is None else weight) / moved.shape[-1]
    planes = ops.sum(share * difference * difference, axis=(0, *range(2, len(moved.shape))))
    return planes, 2 * share * difference


def weight_sum(moved: Tensor, weight: Tensor | None) -> Tensor:
    """Sum of the weights, a scalar; the number of voxels where there are none. Of an empty mask a tiny one, not 0."""
    if weight is None:
        return ops.convert_to_tensor(float(math.prod(moved.shape[:-1])), moved.dtype)
    planes = ops.sum(weight, axis=(0, *range(2, len(weight.shape))))  # float32 loses ones in sums of millions
    return ops.maximum(ops.sum(planes), 1e-6)
