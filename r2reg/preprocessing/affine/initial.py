"""The affine that brings moving roughly onto fixed before the network sees them."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np

from r2reg.errors import ImageError, RegistrationError
from r2reg.geometry.grid import Array, Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume
from r2reg.preprocessing.affine.coarse import coarse_search, plausible
from r2reg.preprocessing.affine.correlation import LocalCorrelation
from r2reg.preprocessing.affine.information import Information
from r2reg.preprocessing.affine.likeness import likeness
from r2reg.preprocessing.affine.pyramid import Level, Working, make_levels
from r2reg.preprocessing.affine.search import Kind, improve
from r2reg.preprocessing.affine.starts import (
    Body,
    about,
    frames,
    masks_overlap,
    moment_rotations,
    views_overlap,
)
from r2reg.preprocessing.intensity import normalise
from r2reg.settings import check_choice

log = logging.getLogger("r2reg.preprocessing")

Init = Literal["none", "com", "moments", "rigid", "affine"]
SAMPLES = 25_000  # of the fine search
# The search maximises the information within the overlap; the whole one, which counts the overlap too, may fall by
# a few per cent on a good result, and falls by a third where the images slide apart.
KEPT_INFORMATION = 0.9
# Then correlation within windows: the resolution's number and voxels on either side. For a head 24, 8 and 4 mm.
WINDOWS = ((1, 6), (1, 2), (2, 2))
CORRELATED = 1e-5  # gain of an iteration below which that search ends; a head takes 10 to 30 at each
# By which that must raise the correlation: whole heads and pairs of two contrasts, 1.07 to 1.25 times, and their brains
# overlap better by .2 and more. Where it is less, information had it right, and a flow from there ends no worse.
CORRELATION_GAIN, LEAST_CORRELATION_GAIN = 1.05, 0.01
PROMISING_GAIN = 1.02  # before the finest windows, which take most of the time
# Information goes where the outline is, and gives up to a fifth of it on the way back to what lies within.
KEPT_BY_CORRELATION = 0.7


def initial_affine(
    fixed: Volume,
    moving: Volume,
    init: str,
    *,
    fixed_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    clip: tuple[float, float] | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> Affine:
    """Align two images by an affine map of fixed points to moving points.

    none: the headers are right, identity in world mm. com: the centres of mass meet. moments: so do the
    principal axes (of the ways to point them, the one under which the images are most alike). rigid, affine:
    mutual information optimised over three resolutions, from the best of many starts, then squared local
    correlation, unless there are masks.

    Args:
        fixed, moving: images of one dimension, on any grids.
        init: none, com, moments, rigid or affine.
        fixed_mask, moving_mask: on their images' arrays; restrict the mutual information, and where both are
            given their centres and axes are used in place of the intensities'.
        clip: (low, high) intensities to use, such as -1000 400 for CT; default: robust percentiles.
        seed: of the metric's samples.
        threads: that search from different starts at once, default one; the result does not depend on them.
    Returns:
        RAS mm, fixed -> moving points.
    Raises:
        ConfigError: an unknown init.
        ImageError: constant or non-finite voxels, or a mask that is empty or does not fit.
        RegistrationError: images of different dimension; views or masks that do not overlap under `none`; nothing
            that varies in both views and masks.
    """
    check_choice("init", init, Init)
    if fixed.grid.ndim != moving.grid.ndim:
        raise RegistrationError(f"fixed is {fixed.grid.ndim}-D and moving {moving.grid.ndim}-D; both must be alike")
    fixed_mask, moving_mask = _inside(fixed, fixed_mask, "fixed"), _inside(moving, moving_mask, "moving")
    if init == "none":
        identity = np.eye(fixed.grid.ndim + 1)
        check_overlap(fixed.grid, moving.grid, identity, fixed_mask, moving_mask)
        return Affine(identity)
    pair = _working(fixed, fixed_mask, clip, "fixed"), _working(moving, moving_mask, clip, "moving")
    at_fixed, at_moving = frames(*pair)
    if init == "com":
        return Affine(about(np.eye(fixed.grid.ndim), at_fixed[0], at_moving[0]))
    levels = make_levels(*pair)
    if init == "moments":
        axes = [about(r, at_fixed[0], at_moving[0]) for r in moment_rotations(at_fixed[1], at_moving[1])]
        return Affine(axes[int(np.argmax(likeness(levels[0], axes)))])
    kinds: tuple[Kind, ...] = ("rigid", "rigid", "rigid") if init == "rigid" else ("similarity", "affine", "affine")
    found = coarse_search(levels[0], at_fixed, at_moving, kinds[0], seed, threads or 1)
    for level, kind in zip(levels[1:], kinds[1:], strict=True):
        found = [_refine(level, matrix, Body.of(at_fixed), kind, seed) for matrix in found]
        if len(found) > 1:
            information = Information(level, SAMPLES, seed)
            found = [max(found, key=lambda matrix: information.whole(matrix)[0])]
    if fixed_mask is None and moving_mask is None:  # windows would show what the masks hide
        found = [_correlate(levels, found[0], Body.of(at_fixed), kinds[-1], seed)]
    return Affine(found[0])


def check_overlap(
    fixed: Grid,
    moving: Grid,
    matrix: Array,
    fixed_mask: np.ndarray | None,
    moving_mask: np.ndarray | None,
    way: str = "by their headers",
) -> None:
    """Raise RegistrationError where an affine that is used as it is leaves nothing to compare.

    Args:
        fixed, moving: the images' grids.
        matrix: (d+1, d+1) RAS mm, fixed -> moving points.
        fixed_mask, moving_mask: on these grids.
        way: where the affine is from, for the message.
    """
    out = "use --init com or --init affine"
    if not views_overlap(fixed, moving, matrix):
        raise RegistrationError(f"fixed and moving do not overlap {way}; {out}")
    if not masks_overlap(fixed, moving, matrix, fixed_mask, moving_mask):
        both = fixed_mask is not None and moving_mask is not None
        what = "the masks of fixed and moving" if both else "a mask and the other image"
        raise RegistrationError(f"{what} do not overlap {way}; {out}, or leave the mask out")


def _name(volume: Volume, role: str) -> str:
    return str(volume.path) if volume.path else role


def _inside(volume: Volume, mask: np.ndarray | None, role: str) -> np.ndarray | None:
    inside = None if mask is None else np.asarray(mask) > 0
    if inside is not None and inside.shape != volume.grid.shape:
        shape = volume.grid.shape
        raise ImageError(f"{_name(volume, role)}: the {role} mask has shape {inside.shape}, the image {shape}")
    return inside


def _working(volume: Volume, mask: np.ndarray | None, clip: tuple[float, float] | None, role: str) -> Working:
    return Working(normalise(volume.array, clip, mask, name=_name(volume, role)), volume.grid, mask)


def _refine(level: Level, matrix: Array, body: Body, kind: Kind, seed: int) -> Array:
    """The matrix of most information nearby, unless that ran away."""
    information = Information(level, SAMPLES, seed)
    improved = improve(information, matrix, body, kind, level.spacing)
    if _keeps(information, matrix, improved, KEPT_INFORMATION):
        return improved
    log.warning("the %s alignment at %.2g mm ran away; the coarser one is kept", kind, level.spacing)
    return matrix


def _correlate(levels: list[Level], matrix: Array, body: Body, kind: Kind, seed: int) -> Array:
    """The matrix of highest local correlation nearby, where that is clearly higher, unless it ran away."""
    improved = matrix
    for (number, radius), asked in zip(WINDOWS, (0.0, PROMISING_GAIN, CORRELATION_GAIN), strict=True):
        measure = LocalCorrelation(levels[number], radius)
        improved = improve(measure, improved, body, kind, levels[number].spacing, CORRELATED)
        before, after = measure.of_both(matrix, improved)
        if after < asked * before:
            return matrix
    if after < before + LEAST_CORRELATION_GAIN:
        return matrix
    return improved if _keeps(Information(levels[-1], SAMPLES, seed), matrix, improved, KEPT_BY_CORRELATION) else matrix


def _keeps(information: Information, matrix: Array, improved: Array, share: float) -> bool:
    """Whether a search did not run away: no collapsed volume, nor images that tell clearly less of each other."""
    return plausible(improved) and information.whole(improved)[0] > share * information.whole(matrix)[0]
