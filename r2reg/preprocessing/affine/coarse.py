"""The coarse search: many starts are ranked, the best followed, the best end taken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from r2reg.errors import RegistrationError
from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.information import Information
from r2reg.preprocessing.affine.likeness import likeness
from r2reg.preprocessing.affine.pyramid import Level
from r2reg.preprocessing.affine.search import Kind, improve
from r2reg.preprocessing.affine.starts import Body, Frame, about, apart, candidates

FOLLOWED, FINISHED = 12, 3  # starts that are searched from, and ends of those that are refined
FEW, MANY = 3_000, 8_000  # samples
# Volume ratio that no pair of scans of one organ has; beyond it the affine has collapsed onto a part.
LARGEST_SCALE = 4.0
NEARLY = 0.95  # of the best end's information
LEAST_INFORMATION = 1e-9  # of the joint entropy; rounding makes less
START_GAP, END_GAP = 2.0, 0.5  # of the level's spacing: starts and ends nearer to a better one are left out


def coarse_search(
    level: Level, at_fixed: Frame, at_moving: Frame, kind: Kind, seed: int, threads: int = 1
) -> list[Array]:
    """The rigid maps or similarities under which the images tell most of each other, mostly one.

    At so few voxels a rounded head turned by a right angle may look better than in its place. So what is nearly as good
    as the best is left for the next level to tell apart, and so is no turn at all, only the centres of mass together.

    Args:
        level: the pair at a coarse resolution.
        at_fixed, at_moving: centres and covariances of the images' contents, RAS mm.
        kind: rigid, or similarity: the size may change.
        seed: of the samples.
        threads: that search at once; each search is one thread's alone.
    Returns:
        The best first, (d+1, d+1) RAS mm, fixed -> moving points.
    Raises:
        RegistrationError: no start under which the images overlap and vary there, with a plausible size.
    """
    body = Body.of(at_fixed)
    few, many = Information(level, FEW, seed), Information(level, MANY, seed)
    starts = candidates(level, at_fixed, at_moving, scaling=kind != "rigid")
    starts = best_apart(level, starts, likeness(level, starts), FOLLOWED, START_GAP)
    starts.append(np.eye(level.fixed.grid.ndim + 1))  # the headers, however little they promise
    with ThreadPoolExecutor(threads) as pool:
        ends = list(pool.map(lambda start: improve(few.whole, start, body, kind, level.spacing), starts))
        led = ends[-1]
        ends = best_apart(level, ends, np.array([few.whole(end)[0] for end in ends]), FINISHED, END_GAP)
        if far_from_all(level, led, ends, END_GAP):
            ends.append(led)
        ends += pool.map(lambda end: improve(many, end, body, kind, level.spacing), ends)
    ends = [end for end in ends if plausible(end)]
    values = np.array([many.whole(end)[0] for end in ends])
    if max(values, default=0.0) <= LEAST_INFORMATION:
        raise RegistrationError(
            "fixed and moving tell nothing of each other within their views and masks; use --init com or --init FILE"
        )
    good = np.flatnonzero(values >= NEARLY * values.max())
    found = best_apart(level, [ends[n] for n in good], values[good], len(good), END_GAP)
    unturned = about(np.eye(level.fixed.grid.ndim), at_fixed[0], at_moving[0])
    if far_from_all(level, unturned, found, END_GAP):
        found.append(unturned)
    return found


def plausible(matrix: Array) -> bool:
    """Whether the volume change is one that a pair of scans may have."""
    return 1 / LARGEST_SCALE < abs(float(np.linalg.det(matrix[:-1, :-1]))) < LARGEST_SCALE


def best_apart(level: Level, matrices: list[Array], values: Array, count: int, spacings: float) -> list[Array]:
    """The few matrices of the highest values, none within some spacings of a better one; best first."""
    kept: list[Array] = []
    for n in np.argsort(-values, kind="stable"):
        if len(kept) == count:
            break
        if far_from_all(level, matrices[n], kept, spacings):
            kept.append(matrices[n])
    return kept


def far_from_all(level: Level, matrix: Array, others: list[Array], spacings: float) -> bool:
    """Whether a matrix is farther than some of the level's spacings from each of the others."""
    return all(apart(level.fixed.grid, matrix, other) > spacings * level.spacing for other in others)
