"""Normalised gradient fields (NGF): edges that run alike, whatever the contrast across them."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.losses.windows import fold_edges, hold_edges, shifted, zero_margin

Tensor = Any

SMALLEST_EPSILON = 1e-4  # intensity in [0, 1] per voxel, for images without edges


def edge_parameters(fixed: Tensor, moving: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor]:
    """Below which gradient each image's edges fade, scalars: `epsilon`, or each image's own by default_epsilon."""
    if epsilon is None:
        return default_epsilon(fixed), default_epsilon(moving)
    given = ops.convert_to_tensor(epsilon, fixed.dtype)
    return given, given


def default_epsilon(image: Tensor) -> Tensor:
    """The mean gradient magnitude over all voxels, a scalar; taken for a constant where the loss is differentiated.

    Source: Haber & Modersitzki 2006, sec. 3, with the noise level's factor 1.
    """
    return ops.stop_gradient(_mean_magnitude(hold_edges(image, 1)))


@backend.accelerate()
def _mean_magnitude(near: Tensor) -> Tensor:
    return ops.maximum(ops.mean(ops.sqrt(_squared_norm(_slopes(near)))), SMALLEST_EPSILON)


def ngf_map(fixed: Tensor, moved: Tensor, epsilon_f: Tensor, epsilon_m: Tensor) -> Tensor:
    """1 - <f, m>^2 / (|f|^2 |m|^2) of each voxel, with <f, m> = grad f . grad m + eps_f eps_m and |f|^2 = <f, f>.

    Args:
        fixed, moved: (N, *S, C). epsilon_f, epsilon_m: scalars, intensity per voxel.
    Returns:
        (N, *S, C), in [0, 1]; 0 where the gradients are parallel, or both far below epsilon.
    Source: Haber & Modersitzki 2006; an epsilon for each image as in Ruehaak et al. 2013.
    """
    return _unlikeness(hold_edges(fixed, 1), hold_edges(moved, 1), epsilon_f, epsilon_m)


@backend.accelerate()
def _unlikeness(near_f: Tensor, near_m: Tensor, epsilon_f: Tensor, epsilon_m: Tensor) -> Tensor:
    inner, norm_f, norm_m = _products(_slopes(near_f), _slopes(near_m), epsilon_f, epsilon_m)
    return 1 - inner * inner / (norm_f * norm_m)


def ngf_slope(
    fixed: Tensor, moved: Tensor, weight: Tensor | None, epsilon_f: Tensor, epsilon_m: Tensor
) -> tuple[Tensor, Tensor]:
    """The unlikeness of ngf_map, weighted and summed over each plane, (X,), and its sum's derivative in moved.

    The derivative in moved's gradient is -2 r (grad f - r |f|^2 grad m), r = <f, m> / (|f|^2 |m|^2); the transpose of
    the central differences takes it to the voxels.

    Args:
        fixed, moved: (1, *S, 1). weight: (1, *S, 1) or None.
    """
    planes, *pulls = _pulls(hold_edges(fixed, 1), hold_edges(moved, 1), weight, epsilon_f, epsilon_m)
    return planes, fold_edges(_spread(*(zero_margin(pull, 2) for pull in pulls)), 1)


@backend.accelerate()
def _pulls(
    near_f: Tensor, near_m: Tensor, weight: Tensor | None, epsilon_f: Tensor, epsilon_m: Tensor
) -> tuple[Tensor, ...]:
    """Each plane's unlikeness, and the derivative in each component of moved's gradient."""
    slopes_f, slopes_m = _slopes(near_f), _slopes(near_m)
    inner, norm_f, norm_m = _products(slopes_f, slopes_m, epsilon_f, epsilon_m)
    ratio = inner / (norm_f * norm_m)
    weight = 1.0 if weight is None else weight
    planes = ops.sum(weight * (1 - inner * ratio), axis=(0, *range(2, len(near_f.shape))))
    by_fixed, by_moved = -2 * weight * ratio, 2 * weight * ratio * ratio * norm_f
    return planes, *(by_fixed * f + by_moved * m for f, m in zip(slopes_f, slopes_m, strict=True))


@backend.accelerate()
def _spread(*pulls: Tensor) -> Tensor:
    """Transpose of _slopes, of pulls with a margin of two zeros: (N, *(S + 2), C)."""
    total: Tensor = 0.0
    for axis, pull in enumerate(pulls, start=1):
        total = total + (shifted(pull, axis, -1) - shifted(pull, axis, 1)) / 2
    return total


def _slopes(near: Tensor) -> list[Tensor]:
    """Central differences along each axis, of an image with a margin of one voxel."""
    return [(shifted(near, axis, 1) - shifted(near, axis, -1)) / 2 for axis in range(1, len(near.shape) - 1)]


def _products(f: list[Tensor], m: list[Tensor], epsilon_f: Tensor, epsilon_m: Tensor) -> tuple[Tensor, ...]:
    inner = sum(a * b for a, b in zip(f, m, strict=True)) + epsilon_f * epsilon_m
    return inner, _squared_norm(f) + epsilon_f * epsilon_f, _squared_norm(m) + epsilon_m * epsilon_m


def _squared_norm(slopes: list[Tensor]) -> Tensor:
    return sum(s * s for s in slopes)
