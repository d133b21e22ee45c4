"""One image in the other's contrast: for networks that know pairs of one contrast, and for the refinement.

Source: the mean grey of one image over the greys of the other, as in the correlation ratio (Roche et al. 1998).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.geometry.grid import Grid
from r2reg.registration.aligned import Aligned

if TYPE_CHECKING:
    from r2reg.registration.refinement import LevelImages, MapOnGrid

Tensor = Any
log = logging.getLogger("r2reg")

BLACK = 0.02  # up to which a voxel, of intensities in [0, 1], counts as background, which stays as it is
BINS = 64  # of moving's greys, of one count each: a brain in an unclipped CT fills few greys of many
SMOOTHING = 1.0  # bins, sd, of the means in them
# Correlation of fixed's greys with what they become in moving's contrast, learnt along a network's map (without one,
# along that of the coarsest level, where only T1-T2 was measured), from which a pair is of one contrast. Painted pairs:
# T1 0.984 and more, T2 0.955 and more; T1 with FLAIR and CT 0.72 to 0.975, opposed ones below 0; FLAIR, CT and both
# 0.90 to 0.97. Refined in both contrasts, six T1 pairs lost .001 to .010 of Dice and T2 pairs .01 to .02; T1 with FLAIR
# and CT gained .03 to .14, six FLAIR and CT pairs -.007 to .024, .008 in the mean. Moving's greys tell less: the warp
# blurs them before they are learnt.
ONE_CONTRAST = 0.98
# From which it is, too, where moving's greys correlate so with what they become in fixed's contrast, learnt along the
# affine. A painted T1 pair of 160x192x224 has 0.976 and 0.992; refined in both contrasts its Dice is .807, as it is
# .816. T1 with FLAIR and CT come as near as 0.974 and 0.979, 0.970 and 0.988.
NEARLY_ONE_CONTRAST, ALIKE_BEFORE = 0.974, 0.99
# Correlation, as for ONE_CONTRAST, from which opposed greys of a pair tell tissues apart that are alike in the other
# contrast, so that its own greys drive the refinement, too. Six pairs of T2 onto fixed T1 have -0.43 and more and gain
# .014 of Dice by that in the mean; seven of T1, FLAIR and CT onto T2 have -0.86 and less, and lose .005 to .02.
OWN_GREYS_TELL = -0.65
# Correlation of moving's greys with what they become in fixed's contrast, learnt along the affine, from which a
# network's own map is believed about contrasts. From a T2-T1 and a T1-FLAIR pair as they are `brain` goes onto wrong
# tissue, and along that map they look like one contrast; along the affine they have -0.9 and 0.77, T1 pairs 0.97 and
# more.
SAME_CONTRAST = 0.95
# And below which a pair without a network's map counts as of two contrasts: painted T1-T2 at most 0.45; T2 0.6 to 0.9,
# all others 0.76 and more.
TWO_CONTRASTS = 0.5
# Voxels, about, of the grid on which contrasts are matched without a network's: a brain's view at 2 mm has .9 million,
# and at 4 mm, where tissues mix, three painted T1-T2 pairs ended .01 to .18 of Dice lower.
MATCHED_VOXELS = 1 << 20


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


def of_one_contrast(images: LevelImages, found: MapOnGrid) -> bool:
    """Whether the greys of a pair go together where a map aligns it."""
    return _of_one(images, _fixed_correlation(images, *_greys(images, found)))


def _of_one(images: LevelImages, told: float) -> bool:
    """Whether a correlation along a map, or one that is nearly as high and that before it, tell of one contrast."""
    return told >= ONE_CONTRAST or (told >= NEARLY_ONE_CONTRAST and correlation_before(images) >= ALIKE_BEFORE)


def correlation_before(images: LevelImages) -> float:
    """`contrasts_correlation` of a pair as it lies."""
    return _correlation(images, _in_one_contrast(images, *_greys(images, None)))


def in_contrasts(aligned: Aligned, images: LevelImages, found: MapOnGrid) -> list[Aligned]:
    """The pair as the refinement is to see it, where a map aligns it.

    Of one contrast it is left as it is. Of two, its own greys may pull tissue onto the wrong one, and in fixed's
    contrast moving may lose tissues that they tell apart. So there are two pairs: in fixed's contrast and in moving's;
    where greys are opposed, but do not go together, in fixed's and as it is.

    Args:
        images: the pair on the grid on which the contrasts are learnt.
    """
    greys = _greys(images, found)
    told = _fixed_correlation(images, *greys)
    if _of_one(images, told):
        return [aligned]
    if told > OWN_GREYS_TELL and _correlation(images, _in_one_contrast(images, *greys)) <= 0:
        log.info("the refinement sees both images in the fixed one's contrast, too")
        return [aligned, _as_fixed(aligned, *greys)]
    log.info("the refinement sees both images in the fixed one's contrast and in the moving one's")
    return [_as_fixed(aligned, *greys), _as_moving(aligned, *greys)]


def in_both_contrasts(images: LevelImages, found: MapOnGrid | None = None) -> list[LevelImages]:
    """A pair with both images in fixed's contrast and in moving's, matched as a map aligns them, by default as they
    lie."""
    from keras import ops

    moving, fixed, inside = _greys(images, found)
    as_moving = match_contrast(_array(images.fixed), fixed, moving, inside)
    return [
        _in_one_contrast(images, moving, fixed, inside),
        replace(images, fixed=ops.convert_to_tensor(as_moving[None, ..., None])),
    ]


def in_either_contrast(aligned: Aligned, images: LevelImages) -> list[Aligned]:
    """A pair of two contrasts in fixed's and in moving's, matched along the affine; nothing where it is of one.

    Where the affine leaves two tissues beside each other, the pair's own greys pull them together: without a network's
    map, Dice of three of twelve painted T1-T2 pairs fell from .5 to .1.

    Args:
        images: as for `in_contrasts`.
    """
    if correlation_before(images) >= TWO_CONTRASTS:
        return []
    log.info("the refinement begins with both images in the fixed one's contrast and in the moving one's")
    greys = _greys(images, None)
    return [_as_fixed(aligned, *greys), _as_moving(aligned, *greys)]


def matching_grid(full: Grid) -> Grid:
    """A grid to learn contrasts on where no network has one: `full`, coarser where it is large."""
    from r2reg.registration.refinement import level_grid

    factor = max(1, round((math.prod(full.shape) / MATCHED_VOXELS) ** (1 / full.ndim)))
    return level_grid(full, factor)


def _in_one_contrast(
    images: LevelImages, moving: np.ndarray, fixed: np.ndarray, inside: np.ndarray | None
) -> LevelImages:
    """The pair with moving in fixed's contrast, learnt from what `_greys` gives."""
    from keras import ops

    matched = match_contrast(_array(images.moving), moving, fixed, inside)
    return replace(images, moving=ops.convert_to_tensor(matched[None, ..., None]))


def _as_fixed(aligned: Aligned, moving: np.ndarray, fixed: np.ndarray, inside: np.ndarray | None) -> Aligned:
    """The pair in fixed's contrast, learnt from what `_greys` gives."""
    return replace(aligned, moving=match_contrast(aligned.moving, moving, fixed, inside))


def _as_moving(aligned: Aligned, moving: np.ndarray, fixed: np.ndarray, inside: np.ndarray | None) -> Aligned:
    """The pair in moving's contrast."""
    return replace(aligned, fixed=match_contrast(aligned.fixed, fixed, moving, inside))


def _fixed_correlation(images: LevelImages, moving: np.ndarray, fixed: np.ndarray, inside: np.ndarray | None) -> float:
    """Of fixed's greys with what they become in moving's contrast, learnt from what `_greys` gives."""
    image = _array(images.fixed)
    return contrasts_correlation(image, match_contrast(image, fixed, moving, inside), inside)


def _correlation(images: LevelImages, shown: LevelImages) -> float:
    return contrasts_correlation(_array(images.moving), _array(shown.moving), _within(images.moving_mask))


def _greys(images: LevelImages, found: MapOnGrid | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Moving as a map aligns it, fixed, and where both masks let them be compared: what a contrast is learnt from."""
    from r2reg.flow.warp import warp

    moving, mask = images.moving, images.moving_mask
    if found is not None:
        displacement = found.on(images.grid).phi.displacement
        moving, mask = warp(moving, displacement), None if mask is None else warp(mask, displacement)
    return _array(moving), _array(images.fixed), _within(images.mask, mask)


def _array(tensor: Tensor) -> np.ndarray:
    from keras import ops

    found: np.ndarray = ops.convert_to_numpy(tensor)[0, ..., 0]
    return found


def _within(*masks: Tensor | None) -> np.ndarray | None:
    given = [_array(mask) > 0.5 for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None
