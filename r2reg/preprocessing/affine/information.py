"""Normalised mutual information of two images under an affine, with its derivative: what the fine search climbs on.

Parzen windows after Thevenaz & Unser 2000: fixed's grey values are counted in bins, moving's spread over three by a
quadratic B-spline, so the information is differentiable by where moving is sampled.
"""

from __future__ import annotations

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.likeness import content
from r2reg.preprocessing.affine.pyramid import Level
from r2reg.preprocessing.affine.sampling import Sampling

BINS = 32
PADDING = 1  # bins beyond both ends, for the spline's support
OVERLAP_POWER = 0.5  # between none, under which images slide apart, and 1, under which half views are pulled together
LEAST_WEIGHT = 1e-3  # share of the samples within moving's view; with less there is nothing to climb on


class Information:
    """Normalised mutual information of what lies in both views (and masks), and its derivative by the affine.

    Args:
        level: the pair.
        count: samples of fixed, at random places within its voxels: sampled at their centres, maps that carry
            voxels onto voxels would stand out.
        seed: of the samples.
    """

    def __init__(self, level: Level, count: int, seed: int = 0) -> None:
        from scipy.ndimage import map_coordinates

        rng = np.random.default_rng(seed)
        shape = level.fixed.array.shape
        flat = content(level.fixed)
        flat = np.sort(rng.choice(flat, count, replace=flat.size < count))
        index = np.stack(np.unravel_index(flat, shape), axis=-1) + rng.uniform(-0.5, 0.5, (count, len(shape)))
        index = np.clip(index, 0, np.array(shape) - 1)
        values = map_coordinates(level.fixed.array, index.T, order=1, output=np.float32)
        self.rows = np.minimum((values * BINS).astype(np.intp), BINS - 1) * (BINS + 2 * PADDING)
        self.moving = Sampling(level.moving, level.fixed.grid.index_to_ras(index))

    def __call__(self, matrix: Array) -> tuple[float, Array]:
        """Normalised information, and (d+1, d+1) its derivative by the matrix's entries (its last row 0).

        The information over the joint entropy, Studholme et al. 1999 less 1: in nats alone it would pay to shrink
        the overlap onto what varies most. In [0, 1]; 0 without overlap.

        Args:
            matrix: (d+1, d+1) RAS mm, fixed -> moving points.
        """
        value, gradient, _, _ = self._measure(matrix)
        return value, gradient

    def whole(self, matrix: Array) -> tuple[float, Array]:
        """As a call, times a root of the compared share of the samples and of the volume change.

        For searches from afar: it keeps images that tell much of each other from sliding apart. Those that tell little
        do so still, for a sliver of few samples seems to tell more than it does. Near the optimum it pulls a little
        towards more overlap or larger volumes. The root of the volume change makes the share the geometric mean of
        what is compared of fixed and of moving, as in `likeness`.
        """
        value, gradient, share, share_gradient = self._measure(matrix)
        if not share:
            return 0.0, gradient
        linear = matrix[:-1, :-1]
        compared = (share * float(abs(np.linalg.det(linear))) ** 0.5) ** OVERLAP_POWER
        gradient = gradient + OVERLAP_POWER * value * share_gradient / share
        gradient[:-1, :-1] += 0.5 * OVERLAP_POWER * value * np.linalg.inv(linear).T
        return compared * value, compared * gradient

    def _measure(self, matrix: Array) -> tuple[float, Array, float, Array]:
        """Information and compared share of the samples, each with its derivative."""
        (values, weights), slopes = self.moving(matrix)
        total = float(weights.sum(dtype=np.float64))
        if total < LEAST_WEIGHT * len(weights):
            return 0.0, np.zeros_like(matrix), 0.0, np.zeros_like(matrix)
        first, spline, spline_slope = _windows(values)
        cells = self.rows + first + np.arange(3)[:, None]  # (3, n)
        columns = BINS + 2 * PADDING
        joint = np.bincount(cells.ravel(), (spline * weights).ravel(), minlength=BINS * columns)
        value, slope = _normalised_information(joint.reshape(BINS, columns) / total)
        told = slope.ravel()[cells]
        by_value = weights * (spline_slope * told).sum(axis=0) / total
        by_weight = ((spline * told).sum(axis=0) - (joint @ slope.ravel()) / total) / total
        gradient = self.moving.by_matrix(slopes[0] * by_value + slopes[1] * by_weight)
        return value, gradient, total / len(weights), self.moving.by_matrix(slopes[1] / len(weights))


def _windows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First of the three columns that a grey value in [0, 1] counts in, (3, n) shares, and (3, n) their slopes."""
    place = values * (BINS - 1) + PADDING
    middle = np.rint(place).astype(np.intp)
    t = place - middle  # -0.5 to 0.5
    shares = np.stack([(0.5 - t) ** 2 / 2, 0.75 - t**2, (0.5 + t) ** 2 / 2])
    return middle - 1, shares, np.stack([t - 0.5, -2 * t, t + 0.5]) * (BINS - 1)


def _normalised_information(joint: np.ndarray) -> tuple[float, np.ndarray]:
    """Mutual information over joint entropy of shares that add up to 1, and its derivative by each.

    The derivative is up to a constant, which is nothing to shares that keep adding up to 1; 0 where a cell is empty.
    """
    filled = joint > 0
    log_joint = np.log(joint, out=np.zeros_like(joint), where=filled)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    log_ratio = log_joint - np.log(independent, out=np.zeros_like(joint), where=filled & (independent > 0))
    information, entropy = float((joint * log_ratio).sum()), -float((joint * log_joint).sum())
    if entropy <= 0:  # both images constant
        return 0.0, np.zeros_like(joint)
    value = information / entropy
    return value, np.where(filled, log_ratio + value * log_joint, 0) / entropy
