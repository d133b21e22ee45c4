"""Squared local correlation of two images under an affine, with its derivative: what the last steps climb on.

Mutual information is had best from what has most contrast, such as a head's outline. Within small windows every place
counts alike, and each pair of tissues may have a contrast of its own.

Source: LNCC, the local cross-correlation of Avants et al. 2008; `metrics.similarity.lncc` is the score by that name,
over all voxels and without a derivative.
"""

from __future__ import annotations

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.pyramid import Level, Working
from r2reg.preprocessing.affine.sampling import Sampling

FLAT = 1e-8  # product of two variances, of grey values in [0, 1], at which a window's correlation counts half
# Fixed's variance with which a window counts half, and the share below which it is left out. Were background to count,
# the mean would rise where it is moved out of view.
TELLING, LEAST_SHARE = 1e-3, 0.05


class LocalCorrelation:
    """Mean squared correlation of the windows around those of fixed's voxels where it varies, and its derivative.

    Args:
        level: the pair; its masks are not looked at.
        radius: of the windows, voxels of fixed.
    """

    def __init__(self, level: Level, radius: int) -> None:
        fixed = level.fixed
        shape = fixed.array.shape
        self.radius = radius
        self.counts = self._sums(np.ones(shape))  # within the grid
        self.fixed = fixed.array.astype(np.float64)
        self.mean = self._means(self.fixed)
        self.variance = np.maximum(self._means(self.fixed**2) - self.mean**2, 0)
        share = self.variance / (self.variance + TELLING)
        self.counted = np.where(share > LEAST_SHARE, share, 0)
        self.needed = self._sums((self.counted > 0).astype(np.float64)) > 0.5  # within any window that counts
        points = fixed.grid.index_to_ras(np.argwhere(self.needed).astype(np.float64))
        self.moving = Sampling(Working(level.moving.array, level.moving.grid), points)

    def __call__(self, matrix: Array) -> tuple[float, Array]:
        """The mean over the windows whose middles are in both views, in [0, 1], and its derivative by the matrix.

        Args:
            matrix: (d+1, d+1) RAS mm, fixed -> moving points.
        Returns:
            The mean, 0 where there is none, and (d+1, d+1) the derivative by the matrix's entries.
        """
        moved, weights, slopes = self._moved(matrix)
        seen = weights * self.counted
        total = float(seen.sum())
        if not total:
            return 0.0, np.zeros_like(matrix)
        mean, covariance, power, squared = self._correlate(moved)
        value = float((squared * seen).sum()) / total
        # What each window asks of its covariance and of moved's variance goes back to the voxels within it.
        by_covariance = 2 * seen * covariance / power / self.counts
        by_variance = -seen * squared * self.variance / power / self.counts
        by_moved = self.fixed * self._sums(by_covariance) + 2 * moved * self._sums(by_variance)
        by_moved -= self._sums(by_covariance * self.mean + 2 * by_variance * mean)
        by_weight = (squared - value) * self.counted
        by_index = slopes[0] * by_moved[self.needed] + slopes[1] * by_weight[self.needed]
        return value, self.moving.by_matrix(by_index) / total

    def of_both(self, matrix: Array, other: Array) -> tuple[float, float]:
        """The means under two affines over the windows that both leave in view, so that none gains by hiding some."""
        (one, seen), (two, also) = ((self._moved(each)[:2]) for each in (matrix, other))
        both = np.minimum(seen, also) * self.counted
        total = float(both.sum())
        if not total:
            return 0.0, 0.0
        first, second = (float((self._correlate(moved)[-1] * both).sum()) / total for moved in (one, two))
        return first, second

    def _moved(self, matrix: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(*S) moving's greys and weights on fixed's grid, 0 out of view, and their slopes where they are needed."""
        sampled, slopes = self.moving(matrix)
        moved, weights = np.zeros((2, *self.fixed.shape))
        moved[self.needed], weights[self.needed] = sampled
        return moved, weights, slopes

    def _correlate(self, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each window moved's mean, the covariance, the product of both variances, and the squared correlation."""
        mean = self._means(moved)
        covariance = self._means(self.fixed * moved) - self.mean * mean
        power = self.variance * np.maximum(self._means(moved**2) - mean**2, 0) + FLAT
        return mean, covariance, power, covariance**2 / power

    def _sums(self, array: np.ndarray) -> np.ndarray:
        """Of the window around each voxel, as far as it is within the grid."""
        from scipy.ndimage import uniform_filter

        width = 2 * self.radius + 1
        found: np.ndarray = uniform_filter(array, width, mode="constant") * float(width**array.ndim)
        return found

    def _means(self, array: np.ndarray) -> np.ndarray:
        return self._sums(array) / self.counts
