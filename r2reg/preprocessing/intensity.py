"""Intensities to [0, 1], the same in training and in registration."""

from __future__ import annotations

import numpy as np

from r2reg.errors import ImageError

# Winsorising bounds in percent, those of ANTs' registration script.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5


def normalise(
    array: np.ndarray,
    clip: tuple[float, float] | None = None,
    mask: np.ndarray | None = None,
    *,
    name: str = "image",
) -> np.ndarray:
    """Scale to [0, 1], linear between two bounds and clipped outside.

    With `clip` the bounds are given (CT: they cut off padding such as -2048). Without, the lower is the 0.5th
    percentile of all voxels, and the upper the 99.5th percentile of the voxels above the lower one: a
    background of one value, however large (skull-stripped brains: 60 to 80 % zeros), moves neither. Where the
    percentiles leave no range (nearly all voxels alike) the bounds are minimum and maximum.

    Args:
        array: (X, Y[, Z]), any real dtype.
        clip: (low, high) intensities.
        mask: (X, Y[, Z]), voxels that decide the bounds; the whole image is scaled.
        name: the image's path, for the error messages.
    Returns:
        (X, Y[, Z]) float32.
    Raises:
        ImageError: NaN or infinite voxels, a constant image, a clip range without content, an unfit or empty
            mask.
    """
    if array.dtype == bool:
        array = array.astype(np.uint8)  # percentiles subtract
    if not np.isfinite(array).all():
        raise ImageError(f"{name}: holds NaN or infinite voxels; replace them first")
    return scale(array, intensity_bounds(array if mask is None else _masked(array, mask, name), clip, name=name))


def intensity_bounds(
    array: np.ndarray, clip: tuple[float, float] | None = None, *, name: str = "image"
) -> tuple[float, float]:
    """What becomes 0 and what becomes 1, see `normalise`."""
    return _robust_bounds(array.ravel(), name) if clip is None else _clip_bounds(array.ravel(), clip, name)


def scale(array: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """float32, linear between two bounds and clipped outside."""
    low, high = bounds
    scaled = array.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def _masked(array: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    inside = np.asarray(mask) > 0
    if inside.shape != array.shape:
        raise ImageError(f"{name}: the mask has shape {inside.shape}, the image {array.shape}; give one on its grid")
    if not inside.any():
        raise ImageError(f"{name}: the mask is empty; leave it out to use the whole image")
    return array[inside]


def _robust_bounds(values: np.ndarray, name: str) -> tuple[float, float]:
    minimum, maximum = float(values.min()), float(values.max())
    if minimum == maximum:
        raise ImageError(f"{name}: every voxel is {minimum:g}; a constant image cannot be registered")
    low = float(np.percentile(values, LOW_PERCENTILE))
    foreground = values[values > low]
    high = float(np.percentile(foreground, HIGH_PERCENTILE)) if foreground.size else low
    return (low, high) if high > low else (minimum, maximum)


def _clip_bounds(values: np.ndarray, clip: tuple[float, float], name: str) -> tuple[float, float]:
    low, high = float(clip[0]), float(clip[1])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ImageError(f"{name}: the clip range must rise. Received: {low:g} {high:g}")
    minimum, maximum = float(values.min()), float(values.max())
    if minimum == maximum:
        raise ImageError(f"{name}: every voxel is {minimum:g}; a constant image cannot be registered")
    if maximum <= low or minimum >= high:
        raise ImageError(
            f"{name}: no intensity lies between {low:g} and {high:g}, they reach from {minimum:g} to "
            f"{maximum:g}; give another --clip"
        )
    return low, high
