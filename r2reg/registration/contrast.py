"""One image in the other's contrast, for networks that know pairs of one contrast.

Source: the mean grey of one image over the greys of the other, as in the correlation ratio (Roche et al. 1998).
"""

from __future__ import annotations

import numpy as np

BLACK = 0.02  # up to which a voxel, of intensities in [0, 1], counts as background, which stays as it is
BINS = 64  # of moving's greys, of one count each: a brain in an unclipped CT fills few greys of many
SMOOTHING = 1.0  # bins, sd, of the means in them


def match_contrast(
    moving: np.ndarray, aligned: np.ndarray, fixed: np.ndarray, inside: np.ndarray | None = None
) -> np.ndarray:
    """Moving with each grey replaced by the mean grey that fixed has where the aligned image has it.

    Args:
        moving: (X, Y[, Z]) in [0, 1]. aligned: the same, carried onto fixed's anatomy as well as is known.
        fixed: (X, Y[, Z]) in [0, 1], on aligned's grid.
        inside: (X, Y[, Z]) bool on aligned's grid, where to learn the greys; default: everywhere but the background.
    Returns:
        (X, Y[, Z]) float32; moving itself where there is nothing to learn from.
    """
    from scipy.ndimage import gaussian_filter1d

    seen = (aligned > BLACK) & (fixed > BLACK)
    if inside is not None and (seen & inside).any():
        seen &= inside
    edges = np.unique(np.quantile(aligned[seen], np.linspace(0, 1, BINS + 1))) if seen.any() else np.zeros(0)
    if len(edges) < 2:
        return moving
    places = np.clip(np.searchsorted(edges, aligned[seen], side="right") - 1, 0, len(edges) - 2)
    count, greys, shown = (
        gaussian_filter1d(np.bincount(places, weights, minlength=len(edges) - 1).astype(np.float64), SMOOTHING)
        for weights in (None, aligned[seen], fixed[seen])
    )
    replaced = np.interp(moving, greys / count, shown / count)
    return np.where(moving > BLACK, replaced, moving).astype(np.float32)


def contrasts_correlation(moving: np.ndarray, matched: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Correlation of moving's greys with what `match_contrast` made of them: 1 where it is in fixed's contrast already.

    1, too, where there was nothing to learn from. Args as of `match_contrast`; inside is on moving's grid.
    """
    seen = moving > BLACK
    if inside is not None and (seen & inside).any():
        seen &= inside
    greys, replaced = (image[seen].astype(np.float64) for image in (moving, matched))
    if not seen.any() or greys.std() == 0:
        return 1.0
    return float(np.corrcoef(greys, replaced)[0, 1]) if replaced.std() > 0 else 0.0
