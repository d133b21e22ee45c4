"""The losses in float64 numpy, written from their definitions: the oracle of the tests, slow and without compiling.

Images are (N, *S, C), weights (N, *S, 1) or None. Each returns a scalar, lower is better.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage

Array = np.ndarray


def weighted_mean(values: Array, weight: Array | None = None) -> float:
    """Mean over all voxels and channels."""
    return float(np.average(values, weights=None if weight is None else np.broadcast_to(weight, values.shape)))


def mse(fixed: Array, moved: Array, weight: Array | None = None) -> float:
    """Mean squared difference."""
    return weighted_mean((fixed - moved) ** 2, weight)


def lncc(fixed: Array, moved: Array, weight: Array | None = None, radius: int = 2, epsilon: float = 1e-5) -> float:
    """1 - mean squared correlation of windows, by scipy's filter."""

    def window_sum(values: Array) -> Array:
        width = 2 * radius + 1
        size = (1, *[width] * (values.ndim - 2), 1)
        return width ** (values.ndim - 2) * ndimage.uniform_filter(values, size, mode="nearest")

    count = (2 * radius + 1) ** (fixed.ndim - 2)
    cross = window_sum(fixed * moved) - window_sum(fixed) * window_sum(moved) / count
    var_f = window_sum(fixed**2) - window_sum(fixed) ** 2 / count
    var_m = window_sum(moved**2) - window_sum(moved) ** 2 / count
    return weighted_mean(1 - cross**2 / (var_f * var_m + epsilon), weight)


def gradient(image: Array) -> Array:
    """Central differences, the edge value held beyond the border: (N, *S, C, d)."""
    ndim = image.ndim - 2
    padded = np.pad(image, [(0, 0), *[(1, 1)] * ndim, (0, 0)], mode="edge")
    inner = (slice(None), *[slice(1, -1)] * ndim)
    return np.stack([((np.roll(padded, -1, a) - np.roll(padded, 1, a)) / 2)[inner] for a in range(1, ndim + 1)], -1)


def mean_gradient(image: Array) -> float:
    """The mean gradient magnitude."""
    return float(np.linalg.norm(gradient(image), axis=-1).mean())


def ngf(fixed: Array, moved: Array, weight: Array | None = None, epsilon: tuple[float, float] = (1.0, 1.0)) -> float:
    """1 - mean squared cosine of (gradient, epsilon) of either image."""
    f, m = gradient(fixed), gradient(moved)
    inner = (f * m).sum(-1) + epsilon[0] * epsilon[1]
    norm_f, norm_m = (f * f).sum(-1) + epsilon[0] ** 2, (m * m).sum(-1) + epsilon[1] ** 2
    return weighted_mean(1 - inner**2 / (norm_f * norm_m), weight)


def cubic_spline(x: Array) -> Array:
    """The cubic B-spline, by its two pieces."""
    x = np.abs(x)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.where(x < 2, (2 - x) ** 3 / 6, 0))


def mi(fixed: Array, moved: Array, weight: Array | None = None, bins: int = 32) -> float:
    """Minus the mutual information: fixed's bins by position, moved's by a Parzen window three bins inside them."""
    row = np.eye(bins)[np.clip(np.floor(fixed * bins), 0, bins - 1).astype(int).ravel()]
    place = 1 + np.clip(moved, 0, 1) * (bins - 3)
    column = cubic_spline(place.reshape(-1, 1) - np.arange(bins))
    shares = (row * (1.0 if weight is None else weight.reshape(-1, 1))).T @ column
    shares /= shares.sum()
    independent = shares.sum(1, keepdims=True) * shares.sum(0, keepdims=True)
    filled = shares > 0
    return -float(np.sum(shares[filled] * np.log(shares[filled] / independent[filled])))


def mind_ssc(image: Array, radius: int = 2, dilation: int = 2) -> Array:
    """exp(-D / V) of the patches around pairs of neighbours: (N, *S, K)."""
    ndim, reach = image.ndim - 2, radius + dilation
    padded = np.pad(image[..., 0], [(0, 0), *[(reach, reach)] * ndim], mode="edge")
    steps = [sign * dilation * np.eye(ndim, dtype=int)[axis] for axis in range(ndim) for sign in (-1, 1)]
    distances = []
    for one, other in itertools.combinations(steps, 2):
        if np.any(one + other) and one @ other == 0:
            # roll by -step brings x + step to x; what wraps around is cut off below.
            ahead = [np.roll(padded, tuple(-s), tuple(range(1, ndim + 1))) for s in (one, other)]
            mean = ndimage.uniform_filter((ahead[0] - ahead[1]) ** 2, (1, *[2 * radius + 1] * ndim))
            distances.append(mean[(slice(None), *[slice(reach, -reach)] * ndim)])
    above = np.stack(distances, -1) - np.min(distances, 0)[..., None]
    variance = above.mean(-1, keepdims=True)
    usual = variance.mean(tuple(range(1, ndim + 2)), keepdims=True)
    return np.exp(-above / np.maximum(np.clip(variance, 1e-3 * usual, 1e3 * usual), 1e-12))


def soft_dice(fixed: Array, moved: Array, weight: Array | None = None) -> float:
    """1 - mean soft Dice over the channels that fixed has within the weights, of one pair."""
    weight = np.ones_like(fixed[..., :1]) if weight is None else weight
    axes = tuple(range(fixed.ndim - 1))
    of_fixed = (weight * fixed).sum(axes)
    present = of_fixed > 0
    overlap, of_moved = (weight * fixed * moved).sum(axes), (weight * moved).sum(axes)
    return 1 - float(np.mean((2 * overlap / (of_fixed + of_moved))[present]))
