"""Mutual information (MI) of two images by a joint histogram with Parzen windows.

Fixed counts in one bin, moved in the four that its cubic B-spline reaches. Where moved lies between two knots its four
shares are polynomials of the place t in between, so the histogram is gathered as sums of 1, t, t^2, t^3 over the
voxels of each (fixed bin, cell), one scatter for each power, and the derivative is one look-up and a quadratic in t.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from r2reg.flow import backend

Tensor = Any

BINS = 32  # of either image, over [0, 1]; ITK's and ANTs' usual number
CELLS = BINS - 3  # between moved's knots; the outermost windows reach beyond [0, 1]
CHUNK_VOXELS = 1 << 13  # summed at a time: float32 loses ones in sums of millions
SMALLEST_SHARE = 1e-10  # of the voxels in a bin; below, its logarithm is that of an empty one
# Row j: the share of the window's bin j as a polynomial of t.
SPLINE = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]], dtype="float32") / 6
SPLINE_SLOPE = SPLINE[:, 1:] * np.array([1, 2, 3], dtype="float32")  # its derivative


def mutual_information(fixed: Tensor, moved: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mutual information in nats of each item, differentiable in moved.

    Args:
        fixed, moved: (N, *S, 1), intensities in [0, 1]; others count as the nearest end.
        weight: (N, *S, 1) >= 0 or None.
    Returns:
        (N,).
    Source: Mattes et al. 2003.
    """
    return _information(_shares(joint_histogram(fixed_bins(fixed), moved, weight)))


@backend.accelerate()
def fixed_bins(fixed: Tensor) -> Tensor:
    """The bin of each voxel, int32."""
    return ops.cast(ops.clip(ops.floor(fixed * BINS), 0, BINS - 1), "int32")


def joint_histogram(bins: Tensor, moved: Tensor, weight: Tensor | None) -> Tensor:
    """(N, BINS, BINS): the weight in each pair of bins, fixed's first."""
    sums = _power_sums(bins, moved, weight)
    spread = np.zeros((CELLS, 4, BINS), dtype="float32")
    for cell in range(CELLS):
        spread[cell, :, cell : cell + 4] = SPLINE.T
    rows = ops.reshape(sums, (-1, BINS, CELLS * 4))
    return ops.matmul(rows, ops.convert_to_tensor(spread.reshape(CELLS * 4, BINS)))


@backend.accelerate()
def _power_sums(bins: Tensor, moved: Tensor, weight: Tensor | None) -> Tensor:
    """(N, BINS * CELLS, 4): the sums of weight times 1, t, t^2, t^3."""
    items, voxels = bins.shape[0], int(np.prod(bins.shape[1:]))
    chunks = -(-voxels // CHUNK_VOXELS)
    cell, t = _cell(moved)
    place = ops.reshape(bins * CELLS + cell, (items, voxels))
    chunk = ops.arange(voxels, dtype="int32") // CHUNK_VOXELS
    item = ops.arange(items, dtype="int32")[:, None]
    place = ops.reshape(place + (item * chunks + chunk) * (BINS * CELLS), (-1,))
    power = ops.ones_like(t) if weight is None else ops.broadcast_to(ops.cast(weight, t.dtype), t.shape)
    columns = []
    for _ in range(4):
        column = ops.segment_sum(ops.reshape(power, (-1,)), place, num_segments=items * chunks * BINS * CELLS)
        columns.append(ops.sum(ops.reshape(column, (items, chunks, BINS * CELLS)), axis=1))
        power = power * t
    return ops.stack(columns, axis=-1)


def _cell(moved: Tensor) -> tuple[Tensor, Tensor]:
    """Between which knots each voxel lies, int32, and how far from the lower to the upper, in [0, 1]."""
    place = ops.clip(moved, 0, 1) * CELLS
    lower = ops.clip(ops.floor(place), 0, CELLS - 1)
    return ops.cast(lower, "int32"), place - ops.stop_gradient(lower)


def _shares(histogram: Tensor) -> Tensor:
    """The share of the whole weight in each pair of bins, (N, BINS, BINS)."""
    return histogram / ops.maximum(ops.sum(histogram, axis=(1, 2), keepdims=True), SMALLEST_SHARE)


def _log_ratio(shares: Tensor) -> Tensor:
    """log(p / (p_f p_m)) of each pair of bins."""
    of_fixed, of_moved = ops.sum(shares, axis=2, keepdims=True), ops.sum(shares, axis=1, keepdims=True)
    return _log(shares) - _log(of_fixed) - _log(of_moved)


def _log(share: Tensor) -> Tensor:
    return ops.log(ops.maximum(share, SMALLEST_SHARE))


def _information(shares: Tensor) -> Tensor:
    return ops.sum(shares * _log_ratio(shares), axis=(1, 2))


def information_slope(bins: Tensor, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """-MI of one pair, scalar, and its derivative in each of moved's values times the sum of the weights.

    MI's derivative in the share p of a pair of bins is log(p / (p_f p_m)), up to constants that cancel.

    Args:
        bins: (1, *S, 1), see fixed_bins. moved: (1, *S, 1). weight: (1, *S, 1) or None.
    Source: Mattes et al. 2003; Thevenaz & Unser 2000.
    """
    shares = _shares(joint_histogram(bins, moved, weight))
    logs = _log_ratio(shares)[0]
    table = sum(logs[:, j : j + CELLS, None] * ops.convert_to_tensor(SPLINE_SLOPE[j]) for j in range(4))
    columns = [ops.reshape(-CELLS * table[..., power], (-1,)) for power in range(3)]
    return -_information(shares)[0], _look_up(bins, moved, weight, *columns)


@backend.accelerate()
def _look_up(
    bins: Tensor, moved: Tensor, weight: Tensor | None, constant: Tensor, linear: Tensor, square: Tensor
) -> Tensor:
    cell, t = _cell(moved)
    place = bins * CELLS + cell
    slope = ops.take(constant, place) + t * (ops.take(linear, place) + t * ops.take(square, place))
    slope = slope * ops.cast(moved == ops.clip(moved, 0, 1), t.dtype)
    return slope if weight is None else slope * weight
