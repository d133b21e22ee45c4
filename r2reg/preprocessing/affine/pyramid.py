"""A pair of images at the coarse resolutions that an affine alignment needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from r2reg.geometry.grid import Grid

# An affine map has 12 parameters: about 110 voxels along the longest axis (2 mm for a head) decide them.
FINEST_VOXELS = 112
LEVELS = (4, 2, 1)  # of the finest working spacing, coarse to fine
MIN_VOXELS = 8  # an axis is not averaged below this


@dataclass(frozen=True, eq=False)
class Working:
    """A normalised image on its working grid.

    Args:
        array: (X, Y[, Z]) float32 in [0, 1].
        grid: its placement.
        mask: (X, Y[, Z]) bool, where it may be compared; None: everywhere.
    """

    array: np.ndarray
    grid: Grid
    mask: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Level:
    """Both images at one resolution."""

    fixed: Working
    moving: Working

    @property
    def spacing(self) -> float:
        """Finest of fixed's spacings, mm: the measure of a step. Small images are not averaged at all."""
        return float(self.fixed.grid.spacing.min())


def make_levels(fixed: Working, moving: Working) -> list[Level]:
    """Averaged and slightly smoothed versions of the pair, coarse to fine."""
    extent = max(float((np.array(w.grid.shape) * w.grid.spacing).max()) for w in (fixed, moving))
    finest = max(extent / FINEST_VOXELS, float(min(fixed.grid.spacing.min(), moving.grid.spacing.min())))
    fixed, moving = block_mean(fixed, finest), block_mean(moving, finest)
    targets = [k * finest for k in LEVELS]
    return [Level(_smooth(block_mean(fixed, t), t), _smooth(block_mean(moving, t), t)) for t in targets]


def block_mean(image: Working, spacing: float) -> Working:
    """Average blocks of whole voxels; no axis gets coarser than `spacing` (mm) or shorter than 8 voxels.

    An incomplete block at the far border is dropped.
    """
    shape = np.array(image.grid.shape)
    factors = np.floor(spacing / image.grid.spacing + 1e-3).astype(int)  # 1e-3: float32 headers round
    factors = np.maximum(np.minimum(factors, shape // MIN_VOXELS), 1)
    if (factors == 1).all():
        return image
    count = shape // factors
    affine = image.grid.affine.copy()
    affine[:-1, -1] = image.grid.index_to_ras((factors - 1) / 2)
    affine[:-1, :-1] = image.grid.affine[:-1, :-1] * factors
    mask = None
    if image.mask is not None:
        mask = _block_mean(image.mask.astype(np.float32), factors, count) >= 0.5
        if not mask.any():  # thinner than the blocks, or in the part that is dropped
            mask[tuple(np.minimum(np.argwhere(image.mask) // factors, count - 1).T)] = True
    return Working(_block_mean(image.array, factors, count), Grid(tuple(count), affine), mask)


def _block_mean(array: np.ndarray, factors: np.ndarray, count: np.ndarray) -> np.ndarray:
    array = array[tuple(slice(0, f * n) for f, n in zip(factors, count, strict=True))]
    # The last axis first: it is contiguous, and what follows is then smaller.
    for axis in reversed(range(array.ndim)):
        shape = (*array.shape[:axis], count[axis], factors[axis], *array.shape[axis + 1 :])
        array = array.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return array


def _smooth(image: Working, spacing: float) -> Working:
    """Gaussian of half a working voxel; axes that are coarser than that by nature stay as they are."""
    from scipy.ndimage import gaussian_filter

    sigma = 0.5 * spacing / image.grid.spacing
    sigma = np.where(sigma < 0.25, 0, sigma)  # below a quarter voxel the sampled kernel is a single weight
    return replace(image, array=gaussian_filter(image.array, sigma, mode="nearest"))
