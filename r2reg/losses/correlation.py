"""Squared local correlation (LNCC): its map, and its derivative in closed form."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from r2reg.flow import backend
from r2reg.losses.windows import fold_edges, hold_edges, window_count, window_sums, zero_margin

Tensor = Any

# Inside the ratio, on intensities in [0, 1]; 1e-8 is known to collapse trainings on flat regions (method of LapIRN).
LNCC_EPSILON = 1e-5
LNCC_RADIUS = 2  # voxels; windows of 5^d, radii 1 to 3 register alike


class FixedWindows(NamedTuple):
    """Fixed, (N, *S, C), and of each of its windows the mean and the variance times the window's count of voxels."""

    values: Tensor
    mean: Tensor
    variation: Tensor


def fixed_windows(fixed: Tensor, radius: int) -> FixedWindows:
    """The statistics of fixed's windows, once per level."""
    padded, count = hold_edges(fixed, radius), window_count(fixed, radius)
    mean = window_sums(padded, radius) / count
    return FixedWindows(fixed, mean, _variation(window_sums(padded * padded, radius), mean, count))


def lncc_map(fixed: Tensor, moved: Tensor, *, radius: int = LNCC_RADIUS) -> Tensor:
    """Squared local correlation coefficient of each voxel's window.

    Args:
        fixed, moved: (N, *S, C), intensities about [0, 1].
        radius: the window is 2 radius + 1 voxels wide; beyond the border the edge value holds.
    Returns:
        (N, *S, C), in [0, 1]; 0 where either window is flat.
    """
    windows = fixed_windows(fixed, radius)
    sums = _moved_sums(hold_edges(fixed, radius), hold_edges(moved, radius), radius)
    return _squared_correlation(windows.mean, windows.variation, *sums, radius=radius)


def lncc_slope(fixed: FixedWindows, moved: Tensor, weight: Tensor | None, radius: int) -> tuple[Tensor, Tensor]:
    """The unlikeness 1 - lncc_map, weighted and summed over each plane, (X,), and its sum's derivative in moved.

    The map is A^2 / D, D = B C + epsilon, A, B, C = the window's covariance and variances times its count. With
    r = A / D, a voxel's derivative is the sum of -2 r (f - mean f) + 2 r^2 B (m - mean m) over the windows that hold
    it: three window sums more.

    Args:
        fixed: see fixed_windows. moved: (1, *S, 1). weight: (1, *S, 1) or None.
    Source: Avants et al. 2008; their derivative keeps only the window around the voxel itself.
    """
    near_f, near_m = hold_edges(fixed.values, radius), hold_edges(moved, radius)
    sums = _moved_sums(near_f, near_m, radius)
    planes, *coefficients = _coefficients(weight, fixed.mean, fixed.variation, *sums, radius=radius)
    spread = [window_sums(zero_margin(c, 2 * radius), radius) for c in coefficients]
    return planes, fold_edges(_derivative(near_f, near_m, *spread), radius)


def _moved_sums(near_f: Tensor, near_m: Tensor, radius: int) -> list[Tensor]:
    return [window_sums(product, radius) for product in (near_m, near_m * near_m, near_f * near_m)]


@backend.accelerate("radius")
def _squared_correlation(
    mean_f: Tensor, var_f: Tensor, sum_m: Tensor, sum_mm: Tensor, sum_fm: Tensor, *, radius: int
) -> Tensor:
    cross, _, ratio = _correlation(mean_f, var_f, sum_m, sum_mm, sum_fm, radius)
    return cross * ratio


@backend.accelerate("radius")
def _coefficients(
    weight: Tensor | None, mean_f: Tensor, var_f: Tensor, sum_m: Tensor, sum_mm: Tensor, sum_fm: Tensor, *, radius: int
) -> tuple[Tensor, ...]:
    """Each plane's unlikeness; and of each window: 2 r, 2 r^2 B, and what goes with the means."""
    cross, mean_m, ratio = _correlation(mean_f, var_f, sum_m, sum_mm, sum_fm, radius)
    weight = 1.0 if weight is None else weight
    planes = ops.sum(weight * (1 - cross * ratio), axis=(0, *range(2, len(mean_f.shape))))
    by_fixed = 2 * weight * ratio
    by_moved = by_fixed * ratio * var_f
    return planes, by_fixed, by_moved, by_fixed * mean_f - by_moved * mean_m


def _correlation(
    mean_f: Tensor, var_f: Tensor, sum_m: Tensor, sum_mm: Tensor, sum_fm: Tensor, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A, mean m and r, see lncc_slope."""
    count = window_count(mean_f, radius)
    mean_m = sum_m / count
    cross = sum_fm - mean_f * sum_m
    return cross, mean_m, cross / (var_f * _variation(sum_mm, mean_m, count) + LNCC_EPSILON)


@backend.accelerate()
def _derivative(near_f: Tensor, near_m: Tensor, by_fixed: Tensor, by_moved: Tensor, offset: Tensor) -> Tensor:
    return near_m * by_moved - near_f * by_fixed + offset


def _variation(sum_of_squares: Tensor, mean: Tensor, count: float) -> Tensor:
    # Rounding can leave it just below 0 in a flat window.
    return ops.maximum(sum_of_squares - count * mean * mean, 0)
