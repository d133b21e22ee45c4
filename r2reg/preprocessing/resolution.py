"""Low-pass before a change of resolution, the same in training and in registration."""

from __future__ import annotations

import numpy as np

from r2reg.geometry.grid import Grid

# sd of the low-pass before a downsampling by f, in source voxels: 0.425 sqrt(f^2 - 1) makes a voxel's
# full width at half maximum (0.425 = 1 / 2.355) grow from 1 to f.
BLUR_PER_FACTOR = 0.425


REACH = 3  # standard deviations to which the Gaussian is carried


def low_pass(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Gaussian smoothing that a downsampling from `source` to `target` needs, axis by axis."""
    from scipy.ndimage import gaussian_filter

    sigma = _sigma(source, target)
    return gaussian_filter(array, sigma, truncate=REACH) if sigma.any() else array


def low_pass_reach(source: Grid, target: Grid) -> np.ndarray:
    """(d,), voxels of `source` along each of its axes that a value is spread over by `low_pass`, to either side."""
    return REACH * _sigma(source, target)


def _sigma(source: Grid, target: Grid) -> np.ndarray:
    # The target's spacing along each of the source's axes: their axes may be permuted or oblique.
    along = 1 / np.linalg.norm(np.linalg.inv(target.affine[:-1, :-1]) @ source.directions, axis=0)
    factor = along / source.spacing
    sigma: np.ndarray = BLUR_PER_FACTOR * np.sqrt(np.maximum(factor**2 - 1, 0))
    return sigma
