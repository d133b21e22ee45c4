"""How alike two images are: numpy, intensities in [0, 1], one grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from r2reg.errors import ImageError
from r2reg.metrics.overlap import check_same_shape
from r2reg.threads import in_threads

# Windows whose standard deviation is below 0.3 % of the intensity range are noise or background, not
# structure.
VARIANCE_FLOOR = 1e-5
SLAB_VOXELS = 1 << 20  # whose windows are looked at together: some 60 MB of filtered images


def mse(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared difference, over the mask where one is given."""
    a, b = _inside(fixed, moved, mask)
    return float(np.mean(np.square(a - b), dtype=np.float64))


def ncc(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Pearson correlation, in [-1, 1], over the mask where one is given; 0 where an image is constant."""
    a, b = _inside(fixed, moved, mask)
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    scale = np.sqrt(np.sum(a * a, dtype=np.float64) * np.sum(b * b, dtype=np.float64))
    return float(np.sum(a * b, dtype=np.float64) / scale) if scale > 0 else 0.0


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
    thickness = max(1, SLAB_VOXELS // int(np.prod(fixed.shape[1:])))

    def sums(start: int) -> list[tuple[float, int]]:
        stop = min(start + thickness, len(fixed))
        halo = slice(max(start - radius, 0), min(stop + radius, len(fixed)))
        own = slice(start - halo.start, stop - halo.start)
        ours = _windows(fixed[halo], radius)
        found = []
        for image in moved:
            squared, structured = _correlation(ours, _windows(image[halo], radius), radius)
            chosen = structured[own] if inside is None else structured[own] & inside[start:stop]
            found.append((float(squared[own][chosen].sum(dtype=np.float64)), int(np.count_nonzero(chosen))))
        return found

    by_slab = in_threads(sums, range(0, len(fixed), thickness))
    totals = [tuple(map(sum, zip(*slabs, strict=True))) for slabs in zip(*by_slab, strict=True)]
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
    whole = in_threads(lambda image: {"mse": mse(fixed, image, mask), "ncc": ncc(fixed, image, mask)}, moved)
    local = _lnccs(fixed, moved, mask, radius=2)
    return [scores | {"lncc": found} for scores, found in zip(whole, local, strict=True)]


def _checked_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    inside = np.asarray(mask) > 0
    if inside.shape != shape:
        raise ImageError(f"the mask has shape {inside.shape}, the images {shape}; give a mask on the images' grid")
    if not inside.any():
        raise ImageError("the mask is empty; leave it out to compare whole images")
    return inside


def _inside(fixed: np.ndarray, moved: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    check_same_shape(fixed, moved)
    if mask is None:
        return fixed, moved
    inside = _checked_mask(mask, fixed.shape)
    return fixed[inside], moved[inside]
