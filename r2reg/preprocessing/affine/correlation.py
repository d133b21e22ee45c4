"""Squared local correlation of two images under an affine, with its derivative: what the last steps climb on.

Mutual information is had best from what has most contrast, such as a head's outline. Within small windows every place
counts alike, and each pair of tissues may have a contrast of its own.

Source: LNCC, the local cross-correlation of Avants et al. 2008.
"""

from __future__ import annotations

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.pyramid import Level
from r2reg.preprocessing.affine.sampling import Sampling

FLAT = 1e-8  # product of two variances, of grey values in [0, 1], far below which a window tells nothing
# Fixed's variance with which a window counts half, and the share below which it is left out. Were background to count,
# the mean would rise where it is moved out of view.
TELLING, LEAST_SHARE = 1e-3, 0.05


class LocalCorrelation:
    """Mean squared correlation of the windows around those of fixed's voxels where it varies, and its derivative.

    Args:
        level: the pair.
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
        share = self.variance / (self.variance + TELLING) * (1 if fixed.mask is None else fixed.mask)
        self.counted = np.where(share > LEAST_SHARE, share, 0)
        self.needed = self._sums((self.counted > 0).astype(np.float64)) > 0.5  # within any window that counts
        self.moving = Sampling(level.moving, fixed.grid.index_to_ras(np.argwhere(self.needed).astype(np.float64)))

    def __call__(self, matrix: Array) -> tuple[float, Array]:
        """The mean over the voxels in both views and masks, in [0, 1], and (d+1, d+1) its derivative by the matrix.

        Args:
            matrix: (d+1, d+1) RAS mm, fixed -> moving points.
        """
        sampled, slopes = self.moving(matrix)
        moved, weights = np.zeros((2, *self.fixed.shape))
        moved[self.needed], weights[self.needed] = sampled
        seen = weights * self.counted
        total = float(seen.sum())
        if not total:
            return 0.0, np.zeros_like(matrix)
        mean = self._means(moved)
        covariance = self._means(self.fixed * moved) - self.mean * mean
        power = self.variance * np.maximum(self._means(moved**2) - mean**2, 0) + FLAT
        squared = covariance**2 / power
        value = float((squared * seen).sum()) / total
        # What each window asks of its covariance and of moved's variance goes back to the voxels within it.
        by_covariance = 2 * seen * covariance / power / self.counts
        by_variance = -seen * squared * self.variance / power / self.counts
        by_moved = self.fixed * self._sums(by_covariance) + 2 * moved * self._sums(by_variance)
        by_moved -= self._sums(by_covariance * self.mean + 2 * by_variance * mean)
        by_weight = (squared - value) * self.counted
        by_index = slopes[0] * by_moved[self.needed] + slopes[1] * by_weight[self.needed]
        return value, self.moving.by_matrix(by_index) / total

    def _sums(self, array: np.ndarray) -> np.ndarray:
        """Of the window around each voxel, as far as it is within the grid."""
        from scipy.ndimage import uniform_filter

        width = 2 * self.radius + 1
        found: np.ndarray = uniform_filter(array, width, mode="constant") * float(width**array.ndim)
        return found

    def _means(self, array: np.ndarray) -> np.ndarray:
        return self._sums(array) / self.counts
