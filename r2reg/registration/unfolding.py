"""Opening the few places where a map, or its inverse, is more than the grid resolves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops
from scipy import ndimage

from r2reg.flow.certificate import Certificate
from r2reg.flow.diffeomorphism import bounded
from r2reg.flow.inverse import invert, norm, spread_interpolation_error
from r2reg.flow.reference import folded_voxels
from r2reg.flow.relaxation import relaxation
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import compose

Tensor = Any

ROUNDS = 100  # of relaxation at most; a few are usual
STEP = 0.04  # of a round, in units of time; with the largest haste just below where diffusion overshoots, 1/6
REACH_SIGMA = 2.0  # voxels; the relaxation falls off around a place like this Gaussian
INVERSE_TOLERANCE = 0.01  # voxels; interpolation between the inverse's voxels errs by more
LARGEST_MISS = 0.45  # voxels, of going there and back; the inverse is relaxed towards less
INVERSE_ROUNDS, INVERSE_STEPS = 8, 4  # of relaxing where it misses, and relaxation steps in each
MARGIN = 10  # voxels around a place that a box holds; REACH_SIGMA reaches 6 from what is joined
JOINING = 4  # voxels; folds that arise so near are opened along with a place
BOX = 48  # voxels; boxes of one size compile once
MOST_BOXES = 400  # a map with more to mend is no good as a whole
PASSES = 3  # over the map; what one opens seldom folds elsewhere


def unfold(displacement: Tensor, certificate: Certificate) -> tuple[Tensor, Certificate]:
    """Relax a map around the voxels where its sampled form folds, and only there, until none folds.

    The steps are one-to-one, but where they compress more than the grid resolves the map between its voxels is not.
    These are steps of the same flow, confined to the folds' surroundings.

    Args:
        displacement: (1, *S, d), voxels. certificate: of its steps so far.
    Returns:
        (1, *S, d), as it was at more than MARGIN voxels from any fold, and the certificate of all steps. A map whose
        folds fill more than MOST_BOXES boxes is left as it is.
    """
    for _ in range(PASSES):
        folded = folded_voxels(ops.convert_to_numpy(displacement)[0])
        if not folded.any():
            break
        displacement, certificate = relax_near(displacement, certificate, folded)
    return displacement, certificate


def unfold_with_inverse(
    displacement: Tensor, start: Tensor, certificate: Certificate
) -> tuple[Tensor, Tensor, Certificate]:
    """`unfold`, then relax the map also where its inverse, sampled on the grid, misses by too much between voxels.

    Args:
        displacement: (1, *S, d), voxels. start: of its inverse, alike. certificate: of its steps so far.
    Returns:
        (1, *S, d) the map, (1, *S, d) its inverse, and the certificate of all steps.
    """
    displacement, certificate = unfold(displacement, certificate)
    exact = invert(displacement, start, INVERSE_TOLERANCE)[0]
    inverse = spread_interpolation_error(exact)
    left: float = math.inf
    for _ in range(INVERSE_ROUNDS):
        missed = _missed(displacement, inverse)
        before, left = left, float(np.count_nonzero(missed))
        if not 0 < left < before:
            break
        displacement, certificate = unfold(*relax_near(displacement, certificate, missed, INVERSE_STEPS))
        exact = invert(displacement, exact, INVERSE_TOLERANCE)[0]
        inverse = spread_interpolation_error(exact)
    return displacement, inverse, certificate


def rehearse(still: Tensor) -> None:
    """Have the backend compile what this module runs on a grid.

    Args:
        still: the displacement of no movement, (1, *S, d).
    """
    shape = still.shape[1:-1]
    moved = np.zeros(still.shape, dtype=np.float32)
    moved[(0, *(n // 2 for n in shape))] = 2 * INVERSE_TOLERANCE  # one place to iterate on
    displacement = ops.convert_to_tensor(moved)
    _missed(displacement, spread_interpolation_error(invert(displacement, still, INVERSE_TOLERANCE)[0]))
    box = np.zeros([min(BOX, n) for n in shape], dtype=bool)
    box[(0,) * box.ndim] = True
    _relax(np.zeros((*box.shape, box.ndim), dtype=np.float32), box, 1)


def _missed(displacement: Tensor, inverse: Tensor) -> np.ndarray:
    """(*S) bool: the map's voxels from where, or to where, going there and back misses by LARGEST_MISS."""
    missed = np.zeros(displacement.shape[1:-1], dtype=bool)
    starts, _ = _misses(displacement, inverse)
    _, origins = _misses(inverse, displacement)
    for places in (starts, np.rint(origins).astype(int)):
        missed[tuple(places.T)] = True
    return missed


def _misses(forth: Tensor, back: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where going there and back misses without leaving the grid, (P, d), and where forth leads, (P, d); voxels."""
    starts = np.argwhere(ops.convert_to_numpy(norm(compose(back, forth)))[0] > LARGEST_MISS)
    ends = starts + ops.convert_to_numpy(forth)[0][tuple(starts.T)]
    inside = ((ends >= 0) & (ends <= np.array(forth.shape[1:-1]) - 1)).all(axis=-1)
    return starts[inside], ends[inside]


def relax_near(
    displacement: Tensor, certificate: Certificate, places: np.ndarray, steps: int = 0
) -> tuple[Tensor, Certificate]:
    """Relax a map around some voxels, and only there.

    Args:
        displacement: (1, *S, d), voxels. certificate: of its steps so far.
        places: (*S) bool, where.
        steps: at least so many, and more while the map folds there.
    Returns:
        (1, *S, d), as it was at more than MARGIN voxels from any of the places, and the certificate of all steps.
        With places in more than MOST_BOXES boxes, the map as it was.
    """
    boxes = list(_boxes(places))
    if not 0 < len(boxes) <= MOST_BOXES:
        return displacement, certificate
    field = ops.convert_to_numpy(displacement)[0].copy()
    for box, own in boxes:
        field[box], taken = _relax(field[box], own, steps)
        certificate = taken.after(certificate)
    return ops.convert_to_tensor(field[None]), certificate


def _relax(field: np.ndarray, places: np.ndarray, steps: int) -> tuple[np.ndarray, Certificate]:
    displacement, certificate = ops.convert_to_tensor(field[None]), Certificate()
    close = ndimage.maximum_filter(places, 2 * JOINING + 1)
    near = _nearness(places)
    for taken in range(ROUNDS):
        if taken >= steps:
            folded = folded_voxels(ops.convert_to_numpy(displacement)[0]) & close
            if not folded.any():
                break
            if (folded & ~places).any():
                places = places | folded
                near = _nearness(places)
        velocity, step = bounded(near * relaxation(displacement)[0])
        displacement, certificate = compose(displacement, velocity), step.after(certificate)
    return ops.convert_to_numpy(displacement)[0], certificate


def _nearness(places: np.ndarray) -> Tensor:
    """STEP at the places and within about a voxel of them, falling to 0 smoothly: (1, *S, 1)."""
    near = ops.convert_to_tensor(places[None, ..., None].astype("float32"))
    return STEP * ops.minimum(gaussian(near, sigma=REACH_SIGMA) * (4 * REACH_SIGMA) ** places.ndim, 1.0)


def _boxes(places: np.ndarray) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Boxes of one size, and the places in the middle of each: MARGIN voxels from its faces, but for the volume's."""
    index = np.argwhere(places)
    tiles = index // (BOX - 2 * MARGIN)
    for tile in np.unique(tiles, axis=0):
        starts = [
            int(np.clip(t * (BOX - 2 * MARGIN) - MARGIN, 0, max(n - BOX, 0)))
            for t, n in zip(tile, places.shape, strict=True)
        ]
        box = tuple(slice(start, min(start + BOX, n)) for start, n in zip(starts, places.shape, strict=True))
        own = np.zeros([part.stop - part.start for part in box], dtype=bool)
        own[tuple((index[(tiles == tile).all(axis=1)] - starts).T)] = True
        yield box, own
