"""Opening the few places where a map, sampled on its grid, folds between the voxels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops
from scipy import ndimage

from r2reg.flow.certificate import Certificate
from r2reg.flow.diffeomorphism import bounded
from r2reg.flow.reference import folded_voxels
from r2reg.flow.relaxation import relaxation
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import compose

Tensor = Any

ROUNDS = 40  # of relaxation at most; a few are usual
STEP = 0.1  # of a round, in units of time; from 1/6 on the explicit steps of a diffusion in 3-D overshoot
REACH_SIGMA = 2.0  # voxels; the relaxation falls off around a fold like this Gaussian
MARGIN = 10  # voxels around a fold that a box holds; REACH_SIGMA reaches 6
BOX_MULTIPLE = 16  # voxels; boxes of few sizes compile few times


def unfold(displacement: Tensor, certificate: Certificate) -> tuple[Tensor, Certificate]:
    """Relax a map around the voxels where its sampled form folds, and only there, until none folds.

    The steps are one-to-one, but where they compress more than the grid resolves the map between its voxels is not.
    These are steps of the same flow, confined to the folds' surroundings.

    Args:
        displacement: (1, *S, d), voxels. certificate: of its steps so far.
    Returns:
        (1, *S, d), as it was at more than MARGIN voxels from any fold, and the certificate of all steps.
    """
    field = ops.convert_to_numpy(displacement)[0]
    folded = folded_voxels(field)
    if not folded.any():
        return displacement, certificate
    field = field.copy()
    for box in _boxes(folded):
        opened, steps = _open(field[box], folded_voxels(field[box]))
        field[box] = opened
        certificate = steps.after(certificate)
    return ops.convert_to_tensor(field[None]), certificate


def _open(field: np.ndarray, folded: np.ndarray) -> tuple[np.ndarray, Certificate]:
    displacement, certificate = ops.convert_to_tensor(field[None]), Certificate()
    ever = folded
    for _ in range(ROUNDS):
        if not folded.any():
            break
        ever = ever | folded
        velocity, step = bounded(STEP * _nearness(ever) * relaxation(displacement)[0])
        displacement, certificate = compose(displacement, velocity), step.after(certificate)
        folded = folded_voxels(ops.convert_to_numpy(displacement)[0])
    return ops.convert_to_numpy(displacement)[0], certificate


def _nearness(folded: np.ndarray) -> Tensor:
    """1 at a fold and within about a voxel of it, falling to 0 smoothly: (1, *S, 1)."""
    near = ops.convert_to_tensor(folded[None, ..., None].astype("float32"))
    return ops.minimum(gaussian(near, sigma=REACH_SIGMA) * (4 * REACH_SIGMA) ** folded.ndim, 1.0)


def _boxes(folded: np.ndarray) -> Iterator[tuple[slice, ...]]:
    """Boxes that hold the folds with a margin, one per group of folds that lie close together."""
    near = ndimage.maximum_filter(folded, 2 * MARGIN + 1)
    groups, _ = ndimage.label(near)
    for found in ndimage.find_objects(groups):
        yield tuple(_rounded(part, n) for part, n in zip(found, folded.shape, strict=True))


def _rounded(part: slice, n: int) -> slice:
    """At least as long, a multiple of BOX_MULTIPLE where the axis is long enough."""
    length = min(-(-(part.stop - part.start) // BOX_MULTIPLE) * BOX_MULTIPLE, n)
    start = min(part.start, n - length)
    return slice(start, start + length)
