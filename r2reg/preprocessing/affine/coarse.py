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
from r2reg.preprocessing.affine.starts import Body, Frame, apart, candidates

FOLLOWED, FINISHED = 12, 3  # starts that are searched from, and ends of those that are refined
FEW, MANY = 3_000, 8_000  # samples
# Volume ratio that no pair of scans of one organ has; beyond it the affine has collapsed onto a part.
LARGEST_SCALE = 4.0
LEAST_INFORMATION = 1e-9  # of the joint entropy; rounding makes less
START_GAP, END_GAP = 2.0, 0.5  # of the level's spacing: starts and ends nearer to a better one are left out


def coarse_search(level: Level, at_fixed: Frame, at_moving: Frame, kind: Kind, seed: int, threads: int = 1) -> Array:
    """The rigid map or similarity under which the images tell most of each other.

    Args:
        level: the pair at a coarse resolution.
        at_fixed, at_moving: centres and covariances of the images' contents, RAS mm.
        kind: rigid, or similarity: the size may change.
        seed: of the samples.
        threads: that search at once; each search is one thread's alone.
    Returns:
        (d+1, d+1) RAS mm, fixed -> moving points.
    Raises:
        RegistrationError: no start under which the images overlap and vary there, with a plausible size.
    """
    body = Body.of(at_fixed)
    few, many = Information(level, FEW, seed), Information(level, MANY, seed)
    starts = candidates(level, at_fixed, at_moving, scaling=kind != "rigid")
    starts = best_apart(level, starts, likeness(level, starts), FOLLOWED, START_GAP)
    starts.append(np.eye(level.fixed.grid.ndim + 1))  # the headers, however little they promise
    with ThreadPoolExecutor(threads) as pool:
        ends = list(pool.map(lambda start: improve(few, start, body, kind, whole=True), starts))
        ends = best_apart(level, ends, np.array([few.whole(end)[0] for end in ends]), FINISHED, END_GAP)
        ends += pool.map(lambda end: improve(many, end, body, kind), ends)
    ends = [end for end in ends if plausible(end)]
    values = [many.whole(end)[0] for end in ends]
    if max(values, default=0.0) <= LEAST_INFORMATION:
        raise RegistrationError(
            "fixed and moving tell nothing of each other within their views and masks; use --init com or --init FILE"
        )
    return ends[int(np.argmax(values))]


def plausible(matrix: Array) -> bool:
    """Whether the volume change is one that a pair of scans may have."""
    return 1 / LARGEST_SCALE < abs(float(np.linalg.det(matrix[:-1, :-1]))) < LARGEST_SCALE


def best_apart(level: Level, matrices: list[Array], values: Array, count: int, spacings: float) -> list[Array]:
    """The few matrices of the highest values, none within some spacings of a better one; best first."""
    kept: list[Array] = []
    for n in np.argsort(-values, kind="stable"):
        if len(kept) == count:
            break
        if all(apart(level.fixed.grid, matrices[n], other) > spacings * level.spacing for other in kept):
            kept.append(matrices[n])
    return kept
