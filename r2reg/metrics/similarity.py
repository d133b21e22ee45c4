"""How alike two images are: numpy, intensities in [0, 1], one grid."""

from __future__ import annotations

import numpy as np

from r2reg.errors import ImageError
from r2reg.metrics.overlap import check_same_shape

# Windows whose standard deviation is below 0.3 % of the intensity range are noise or background, not
# structure.
VARIANCE_FLOOR = 1e-5


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
    check_same_shape(fixed, moved)
    inside = np.ones(fixed.shape, bool) if mask is None else _checked_mask(mask, fixed.shape)
    total, count = 0.0, 0
    # In slabs with a halo: the five filtered images of a full-size volume would need over 100 MB each way.
    thickness = max(1, (1 << 20) // int(np.prod(fixed.shape[1:])))
    for start in range(0, len(fixed), thickness):
        stop = min(start + thickness, len(fixed))
        low, high = max(start - radius, 0), min(stop + radius, len(fixed))
        squared, structured = _window_correlation(fixed[low:high], moved[low:high], radius)
        rows = slice(start - low, stop - low)
        chosen = structured[rows] & inside[start:stop]
        total += float(squared[rows][chosen].sum(dtype=np.float64))
        count += int(np.count_nonzero(chosen))
    return total / count if count else 0.0


def _window_correlation(fixed: np.ndarray, moved: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared correlation of each window, and whether either image has structure in it."""
    from scipy.ndimage import uniform_filter

    def mean(image: np.ndarray) -> np.ndarray:
        return uniform_filter(image, size=2 * radius + 1, mode="nearest")

    a, b = fixed.astype(np.float32), moved.astype(np.float32)
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b
    covariance = mean(a * b) - mean_a * mean_b
    structured = (variance_a > VARIANCE_FLOOR) | (variance_b > VARIANCE_FLOOR)
    floor = np.float32(VARIANCE_FLOOR)
    squared = covariance * covariance / (np.maximum(variance_a, floor) * np.maximum(variance_b, floor))
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
    return {"mse": mse(fixed, moved, mask), "ncc": ncc(fixed, moved, mask), "lncc": lncc(fixed, moved, mask)}


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
