"""One image in the other's contrast, for networks that know pairs of one contrast.

Source: the mean grey of one image over the greys of the other, as in the correlation ratio (Roche et al. 1998).
"""

from __future__ import annotations

import numpy as np

BLACK = 0.02  # up to which a voxel, of intensities in [0, 1], counts as background, which stays as it is
BINS = 48  # of moving's greys
SMOOTHING = 1.0  # bins, sd, of what is counted in them
LEAST_SHARE = 1e-4  # of all counts, in a bin whose mean is to be trusted


def match_contrast(moving: np.ndarray, aligned: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Moving with each grey in place of which fixed shows another, in the mean, replaced by that.

    Args:
        moving: (X, Y[, Z]) in [0, 1]. aligned: the same, carried onto fixed's anatomy as well as is known.
        fixed: (X, Y[, Z]) in [0, 1], on aligned's grid.
    Returns:
        (X, Y[, Z]) float32; moving itself where nothing of both overlaps.
    """
    from scipy.ndimage import gaussian_filter1d

    seen = (aligned > BLACK) & (fixed > BLACK)
    if not seen.any():
        return moving
    places = np.minimum((aligned[seen] * BINS).astype(np.int64), BINS - 1)
    count, total = (
        gaussian_filter1d(np.bincount(places, weights, minlength=BINS).astype(np.float64), SMOOTHING)
        for weights in (None, fixed[seen])
    )
    known = count > LEAST_SHARE * count.sum()
    greys = (np.arange(BINS) + 0.5) / BINS
    replaced = np.interp(moving, greys[known], total[known] / count[known])
    return np.where(moving > BLACK, replaced, moving).astype(np.float32)


def share_contrast(moving: np.ndarray, matched: np.ndarray, least: float) -> bool:
    """Whether moving is in fixed's contrast already: what `match_contrast` made of it correlates with it."""
    seen = moving > BLACK
    greys, replaced = (image[seen].astype(np.float64) for image in (moving, matched))
    if not seen.any() or greys.std() == 0:
        return True
    return replaced.std() > 0 and bool(np.corrcoef(greys, replaced)[0, 1] >= least)
