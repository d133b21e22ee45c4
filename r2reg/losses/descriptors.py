"""MIND-SSC: how alike a voxel's neighbours are among themselves, which does not depend on the contrast."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.losses.windows import hold_edges, window_count, window_sums

Tensor = Any

DILATION = 2  # voxels from a voxel to the neighbours that are compared
PATCH_RADIUS = 2  # voxels; with DILATION as in the authors' own code
VARIANCE_RANGE = (1e-3, 1e3)  # of a voxel's variance, times the image's mean one: flat regions hold no structure


def mind_ssc(image: Tensor, *, radius: int = PATCH_RADIUS) -> Tensor:
    """The self-similarity context of each voxel.

    A channel compares two of the voxel's face neighbours at DILATION voxels that lie on different axes:
    exp(-(D - min D) / V), D = mean squared difference of their patches, V = its mean over the channels.

    Args:
        image: (N, *S, 1), intensities about [0, 1]. radius: of the patches, voxels.
    Returns:
        (N, *S, K), in [0, 1], K = 12 in 3-D, 4 in 2-D.
    Source: Heinrich et al., MICCAI 2013; the bounds of V and the subtracted minimum from the authors' code.
    """
    near = hold_edges(image, radius + DILATION)
    count = window_count(image, radius)
    distances = []
    for one, other in _neighbour_pairs(len(image.shape) - 2):
        difference = _moved_by(near, one) - _moved_by(near, other)
        distances.append(window_sums(difference * difference, radius) / count)
    return _descriptors(*distances)


def _neighbour_pairs(ndim: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of (axis, sign): all but those on one axis."""
    neighbours = list(itertools.product(range(1, ndim + 1), (-1, 1)))
    return [(a, b) for a, b in itertools.combinations(neighbours, 2) if a[0] != b[0]]


def _moved_by(near: Tensor, neighbour: tuple[int, int]) -> Tensor:
    """What stands DILATION voxels away, without the outer DILATION voxels of each axis."""
    axis, sign = neighbour
    starts = [DILATION * (1 + sign * (a == axis)) for a in range(1, len(near.shape) - 1)]
    ends = [start + n - 2 * DILATION for start, n in zip(starts, near.shape[1:-1], strict=True)]
    return near[(slice(None), *(slice(start, end) for start, end in zip(starts, ends, strict=True)))]


@backend.accelerate()
def _descriptors(*distances: Tensor) -> Tensor:
    # Channel by channel up to the end: the last axis is a short one to compute along.
    least = functools.reduce(ops.minimum, distances)
    variance = sum(distances) / len(distances) - least
    usual = ops.mean(variance, axis=tuple(range(1, len(variance.shape))), keepdims=True)
    low, high = VARIANCE_RANGE
    # Without any structure all distances are 0; the last bound is no more than a divisor then.
    bounded = ops.maximum(ops.clip(variance, low * usual, high * usual), 1e-12)
    return ops.concatenate([ops.exp((least - distance) / bounded) for distance in distances], axis=-1)
