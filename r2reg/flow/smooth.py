"""Separable filters on fields (N, *S, C), as sums of shifted copies: fast on every backend and under XLA.

Each axis is compiled by itself. In one function XLA fuses the passes and computes each inner sum anew for every
outer tap: a Gaussian of five taps is six times slower then.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from r2reg.flow import backend

Tensor = Any

CHANNELWISE_VOXELS = 1 << 24  # from here on channels are smoothed one at a time, in a third of the memory


@backend.accelerate("axis", "weights")
def _filter_axis(field: Tensor, *, axis: int, weights: tuple[float, ...]) -> Tensor:
    radius = len(weights) // 2
    if radius == 0:
        return field * weights[0]
    n = field.shape[axis + 1]
    first, last = _slab(field, axis, 0, 1), _slab(field, axis, n - 1, n)
    padded = ops.concatenate([first] * radius + [field] + [last] * radius, axis=axis + 1)
    total: Tensor = 0.0
    for shift, weight in enumerate(weights):
        total = total + weight * _slab(padded, axis, shift, shift + n)
    return total


def _slab(field: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return field[tuple([slice(None)] * (axis + 1) + [slice(start, stop)])]


def axis_neighbours(field: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Each voxel's neighbours before and after it along a spatial axis, the voxel itself at the border."""
    n = field.shape[axis + 1]
    first, last = _slab(field, axis, 0, 1), _slab(field, axis, n - 1, n)
    before = ops.concatenate([first, _slab(field, axis, 0, n - 1)], axis=axis + 1)
    after = ops.concatenate([_slab(field, axis, 1, n), last], axis=axis + 1)
    return before, after


def box_mean(field: Tensor, *, radius: int) -> Tensor:
    """Mean over the window of 2 radius + 1 voxels along each axis, the edge value held beyond the border."""
    width = 2 * radius + 1
    for axis in range(len(field.shape) - 2):
        field = _filter_axis(field, axis=axis, weights=(1 / width,) * width)
    return field


def gaussian_weights(sigma: float) -> tuple[float, ...]:
    """Normalised samples of a Gaussian out to 3 sigma."""
    radius = math.ceil(3 * sigma) if sigma > 0 else 0
    samples = [math.exp(-0.5 * (k / sigma) ** 2) if sigma > 0 else 1.0 for k in range(-radius, radius + 1)]
    return tuple(s / sum(samples) for s in samples)


def gaussian(field: Tensor, *, sigma: float) -> Tensor:
    """Gaussian smoothing with the edge value held beyond the border; sigma in voxels, 0 leaves the field alone."""
    if math.prod(field.shape[1:-1]) < CHANNELWISE_VOXELS:
        return _gaussian(field, sigma=sigma)
    channels = [_gaussian(field[..., c : c + 1], sigma=sigma) for c in range(field.shape[-1])]
    return ops.concatenate(channels, axis=-1)


def _gaussian(field: Tensor, *, sigma: float) -> Tensor:
    for axis in range(len(field.shape) - 2):
        field = _filter_axis(field, axis=axis, weights=gaussian_weights(sigma))
    return field


def laplacian(field: Tensor) -> Tensor:
    """Sum over the axes of second differences, per voxel squared, the edge value held beyond the border."""
    return sum(_filter_axis(field, axis=axis, weights=(1.0, -2.0, 1.0)) for axis in range(len(field.shape) - 2))
