"""The affine that brings moving roughly onto fixed before the network sees them."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np

from r2reg.config import check_choice
from r2reg.errors import ImageError, RegistrationError
from r2reg.geometry.grid import Array
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume
from r2reg.preprocessing.affine_pyramid import Level, Working, make_levels, score
from r2reg.preprocessing.affine_search import Kind, Search, improve
from r2reg.preprocessing.affine_starts import about, best_moments, frames, ranked_starts, views_overlap
from r2reg.preprocessing.intensity import normalise

log = logging.getLogger("r2reg.preprocessing")

Init = Literal["none", "com", "moments", "rigid", "affine"]
STARTS_TRIED = 3  # starts that get a coarse rigid search; the rest lost by their score alone
# Volume ratio that no pair of scans of one organ has; beyond it the affine has collapsed onto a part.
LARGEST_SCALE = 4.0
# The search maximises information within the overlap, the score counts what lies outside too: they may differ
# by a few per cent on a good result, and do by half where the images slide apart.
KEPT_INFORMATION = 0.9


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
    mutual information optimised over three resolutions from the best of several starts.

    Args:
        fixed, moving: images of one dimension, on any grids.
        init: none, com, moments, rigid or affine.
        fixed_mask, moving_mask: on their images' arrays; restrict the mutual information, and where both are
            given their centres and axes are used in place of the intensities'.
        clip: (low, high) intensities to use, such as -1000 400 for CT; default: robust percentiles.
        seed: of the metric's samples.
        threads: of the metric; default: one, with which the result repeats bit for bit for one seed. With two
            it takes half the time and repeats to about 1e-4 mm.
    Returns:
        RAS mm, fixed -> moving points.
    Raises:
        ConfigError: an unknown init.
        ImageError: constant or non-finite voxels, or a mask that is empty or does not fit.
        RegistrationError: images of different dimension; views that do not overlap under `none`; a failed
            search.
    """
    check_choice("init", init, Init)
    if fixed.grid.ndim != moving.grid.ndim:
        raise RegistrationError(f"fixed is {fixed.grid.ndim}-D and moving {moving.grid.ndim}-D; both must be alike")
    if init == "none":
        return Affine(_trusted_headers(fixed, moving))
    pair = _working(fixed, fixed_mask, clip, "fixed"), _working(moving, moving_mask, clip, "moving")
    at_fixed, at_moving = frames(*pair)
    if init == "com":
        return Affine(about(np.eye(fixed.grid.ndim), at_fixed[0], at_moving[0]))
    levels = make_levels(*pair)
    if init == "moments":
        return Affine(best_moments(levels[0], at_fixed, at_moving))
    starts = ranked_starts(levels[0], at_fixed, at_moving)
    search = Search(seed=seed, threads=threads or 1)
    return Affine(_optimise(levels, starts[:STARTS_TRIED], "rigid" if init == "rigid" else "affine", search))


def _trusted_headers(fixed: Volume, moving: Volume) -> Array:
    identity = np.eye(fixed.grid.ndim + 1)
    if not views_overlap(fixed.grid, moving.grid, identity):
        raise RegistrationError("fixed and moving do not overlap by their headers; use --init com or --init affine")
    return identity


def _working(volume: Volume, mask: np.ndarray | None, clip: tuple[float, float] | None, role: str) -> Working:
    name = str(volume.path) if volume.path else role
    inside = None if mask is None else np.asarray(mask) > 0
    if inside is not None and inside.shape != volume.grid.shape:
        raise ImageError(f"{name}: the {role} mask has shape {inside.shape}, the image {volume.grid.shape}")
    return Working(normalise(volume.array, clip, inside, name=name), volume.grid, inside)


def _optimise(levels: list[Level], starts: list[Array], kind: Kind, search: Search) -> Array:
    """Coarse rigid search from each start, then the best one refined level by level."""
    coarse, *finer = levels
    best = max(starts + _searched(coarse, starts, search), key=lambda m: score(coarse, m))
    if kind == "affine":
        best = _refine(finer[0], best, "rigid", search)
    for level in finer:
        best = _refine(level, best, kind, search)
    return best


def _searched(level: Level, starts: list[Array], search: Search) -> list[Array]:
    """Results of the rigid search from each start; one from which the images slide apart is passed over."""
    results, failures = [], []
    for start in starts:
        try:
            results.append(improve(level, start, "rigid", search))
        except RegistrationError as error:
            log.debug("a start of the alignment was dropped: %s", error)
            failures.append(error)
    if not results:
        raise failures[0]
    return results


def _refine(level: Level, matrix: Array, kind: Kind, search: Search) -> Array:
    """The optimised matrix, unless it ran away: a collapsed volume, or images clearly less alike."""
    try:
        improved = improve(level, matrix, kind, search)
    except RegistrationError as error:
        log.warning("%s; the coarser alignment is kept", error)
        return matrix
    scale = abs(float(np.linalg.det(improved[:-1, :-1])))
    plausible = 1 / LARGEST_SCALE < scale < LARGEST_SCALE
    keeps = score(level, improved) - 1 > KEPT_INFORMATION * (score(level, matrix) - 1)
    return improved if plausible and keeps else matrix
