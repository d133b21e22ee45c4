"""How alike two images are: numpy, intensities in [0, 1], one grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from r2reg.errors import ImageError
from r2reg.flow.reference import slabs
from r2reg.metrics.overlap import check_same_shape
from r2reg.threads import in_threads

# Windows whose standard deviation is below 0.3 % of the intensity range are noise or background, not
# structure.
VARIANCE_FLOOR = 1e-5
SLAB_VOXELS = 1 << 20  # whose windows are looked at together: some 60 MB of filtered images


def mse(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared difference, over the mask where one is given."""
    return _mse_and_ncc(fixed, moved, mask)["mse"]


def ncc(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Pearson correlation, in [-1, 1], over the mask where one is given; 0 where an image is constant."""
    return _mse_and_ncc(fixed, moved, mask)["ncc"]


def _mse_and_ncc(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    check_same_shape(fixed, moved)
    inside = None if mask is None else _checked_mask(mask, fixed.shape)
    count = fixed.size if inside is None else int(np.count_nonzero(inside))

    def values(slab: slice) -> list[np.ndarray]:
        return [image[slab].ravel() if inside is None else image[slab][inside[slab]] for image in (fixed, moved)]

    def first(slab: slice) -> list[np.float64]:
        a, b = values(slab)
        return [part.sum(dtype=np.float64) for part in (a, b, np.square(a - b))]

    def second(slab: slice) -> list[np.float64]:
        a, b = (part - mean for part, mean in zip(values(slab), (mean_a, mean_b), strict=True))  # float64
        return [(a * a).sum(), (b * b).sum(), (a * b).sum()]

    parts = [slice(*ends) for ends in slabs(fixed.shape, SLAB_VOXELS)]
    mean_a, mean_b, squared_gap = np.sum(in_threads(first, parts), axis=0) / count
    aa, bb, ab = np.sum(in_threads(second, parts), axis=0)
    scale = np.sqrt(aa * bb)
    return {"mse": float(squared_gap), "ncc": float(ab / scale) if scale > 0 else 0.0}


def lncc(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None = None, radius: int = 2) -> float:
    """Mean of the squared correlation within windows of (2 radius + 1)^d voxels, in [0, 1].

    Windows in which neither image has a variance above 1e-5 hold no structure and are left out; where only
    one has, the other's variance is taken as 1e-5, so flat against structured scores near 0. Identical images
    score 1 (0 if flat).

    Args:
        fixed, moved: (X, Y[, Z]), intensities in [0, 1].
        mask: (X, Y[, Z]), the windows' centres to average over; default: all.
        radius: of the window, voxels.
    Raises:
        ImageError: different shapes, or an empty mask.
    """
    return _lnccs(fixed, [moved], mask, radius)[0]


def _lnccs(fixed: np.ndarray, moved: Sequence[np.ndarray], mask: np.ndarray | None, radius: int) -> list[float]:
    """`lncc` of several images with one; what concerns fixed alone is worked out once."""
    for image in moved:
        check_same_shape(fixed, image)
    inside = None if mask is None else _checked_mask(mask, fixed.shape)

    def sums(slab: slice) -> list[tuple[float, int]]:
        halo = slice(max(slab.start - radius, 0), min(slab.stop + radius, len(fixed)))
        own = slice(slab.start - halo.start, slab.stop - halo.start)
        ours = _windows(fixed[halo], radius)
        found = []
        for image in moved:
            squared, structured = _correlation(ours, _windows(image[halo], radius), radius)
            chosen = structured[own] if inside is None else structured[own] & inside[slab]
            found.append((float(squared[own][chosen].sum(dtype=np.float64)), int(np.count_nonzero(chosen))))
        return found

    by_slab = in_threads(sums, [slice(*ends) for ends in slabs(fixed.shape, SLAB_VOXELS)])
    totals = [tuple(map(sum, zip(*pairs, strict=True))) for pairs in zip(*by_slab, strict=True)]
    return [total / count if count else 0.0 for total, count in totals]


class _Windows(NamedTuple):
    """An image, and mean and variance of the window around each of its voxels."""

    values: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _window_mean(image: np.ndarray, radius: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    return uniform_filter(image, size=2 * radius + 1, mode="nearest")


def _windows(image: np.ndarray, radius: int) -> _Windows:
    values = image.astype(np.float32, copy=False)
    mean = _window_mean(values, radius)
    return _Windows(values, mean, _window_mean(values * values, radius) - mean * mean)


def _correlation(a: _Windows, b: _Windows, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared correlation of each window, and whether either image has structure in it."""
    covariance = _window_mean(a.values * b.values, radius) - a.mean * b.mean
    structured = (a.variance > VARIANCE_FLOOR) | (b.variance > VARIANCE_FLOOR)
    floor = np.float32(VARIANCE_FLOOR)
    squared = covariance * covariance / (np.maximum(a.variance, floor) * np.maximum(b.variance, floor))
    return np.minimum(squared, 1), structured


def image_similarity(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """The three similarities that `metrics.json` reports.

    Args:
        fixed, moved: (X, Y[, Z]), intensities in [0, 1], one grid.
        mask: (X, Y[, Z]), where to compare; default: everywhere.
    Returns:
        {"mse", "ncc", "lncc"}; lncc is the squared local correlation, window radius 2.
    Raises:
        ImageError: different shapes, or an empty mask.
    """
    return image_similarities(fixed, [moved], mask)[0]


def image_similarities(
    fixed: np.ndarray, moved: Sequence[np.ndarray], mask: np.ndarray | None = None
) -> list[dict[str, float]]:
    """`image_similarity` of several images with one, in a fraction of the time of one after the other."""
    local = _lnccs(fixed, moved, mask, radius=2)
    return [_mse_and_ncc(fixed, image, mask) | {"lncc": found} for image, found in zip(moved, local, strict=True)]


def _checked_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    inside = np.asarray(mask) > 0
    if inside.shape != shape:
        raise ImageError(f"the mask has shape {inside.shape}, the images {shape}; give a mask on the images' grid")
    if not inside.any():
        raise ImageError("the mask is empty; leave it out to compare whole images")
    return inside
