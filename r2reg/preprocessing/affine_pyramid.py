"""A pair of images at the coarse resolutions that an affine alignment needs, and a score of an alignment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from r2reg.geometry.grid import Array, Grid, index_map

# An affine map has 12 parameters: about 110 voxels along the longest axis (2 mm for a head) decide them.
FINEST_VOXELS = 112
LEVELS = (4, 2, 1)  # of the finest working spacing, coarse to fine
MIN_VOXELS = 8  # an axis is not averaged below this
SCORE_BINS = 16
SCORE_SAMPLES = 20_000


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
    samples: Array = field(init=False)  # (n, d) indices of fixed, for `score`

    @property
    def spacing(self) -> float:
        """Finest of fixed's spacings, mm: the measure of a step. Small images are not averaged at all."""
        return float(self.fixed.grid.spacing.min())

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", _sample_indices(self.fixed))


def _sample_indices(fixed: Working) -> Array:
    """SCORE_SAMPLES voxels of fixed (of its mask), or all where there are fewer."""
    flat = np.arange(fixed.array.size) if fixed.mask is None else np.flatnonzero(fixed.mask)
    # A stride would alias with the rows; a fixed seed repeats.
    if flat.size > SCORE_SAMPLES:
        flat = np.sort(np.random.default_rng(0).choice(flat, SCORE_SAMPLES, replace=False))
    return np.stack(np.unravel_index(flat, fixed.array.shape), axis=-1).astype(np.float64)


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
    mask = None if image.mask is None else _block_mean(image.mask.astype(np.float32), factors, count) >= 0.5
    if mask is not None and not mask.any():
        mask = _block_mean(image.mask.astype(np.float32), factors, count) > 0  # type: ignore[union-attr]
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


def score(level: Level, matrix: Array) -> float:
    """Normalised mutual information of fixed with moving carried by `matrix`, from 1 (unrelated) to 2.

    What lies outside moving's view or mask counts as intensity 0, so a start that slides the images apart
    until a sliver overlaps does not win.

    Args:
        level: the pair.
        matrix: (d+1, d+1) RAS mm, fixed -> moving points.
    """
    from scipy.ndimage import map_coordinates

    index = index_map(level.fixed.grid, level.moving.grid, matrix)
    where = (level.samples @ index[:-1, :-1].T + index[:-1, -1]).T
    moved = map_coordinates(level.moving.array, where, order=1, mode="constant", cval=0, output=np.float32)
    if level.moving.mask is not None:
        moved *= map_coordinates(level.moving.mask.astype(np.float32), where, order=0, mode="constant")
    fixed = level.fixed.array[tuple(level.samples.astype(int).T)]
    return mutual_information(fixed, moved)


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """(H(a) + H(b)) / H(a, b) of samples in [0, 1], 16 bins; 1 where one is constant."""
    bins = [np.minimum((x * SCORE_BINS).astype(np.int64), SCORE_BINS - 1) for x in (a, b)]
    joint = np.bincount(bins[0] * SCORE_BINS + bins[1], minlength=SCORE_BINS**2).reshape(SCORE_BINS, SCORE_BINS)
    both = _entropy(joint.ravel())
    return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / both if both > 0 else 1.0


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
