"""Refinement: the flow goes on, driven by the pair itself.

Each step is one more residual block of the same flow, phi <- phi o (id + v), with v the Gaussian-smoothed
descent direction of the similarity at the current phi. Coarse to fine, no gradient through the composition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from r2reg.config import RefinePreset
from r2reg.errors import RegistrationError
from r2reg.flow import backend
from r2reg.flow.integrate import STEP_LIMIT
from r2reg.flow.jacobian import central_gradient, lipschitz_bound
from r2reg.flow.reference import folded_voxels
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import affine_coordinates, compose, sample, warp
from r2reg.geometry.grid import Grid, index_map
from r2reg.losses.similarity import LOCAL_MAPS

Tensor = Any

LARGEST_STEP = 0.5  # voxels of the level; larger ones overshoot the interpolation's range
SMALLEST_FORCE = 1e-5  # intensity in [0, 1] per voxel; what float32 rounding leaves of identical images is below
UNFOLDING_ROUNDS = 20  # of local smoothing at most; a few are usual
FEWEST_VOXELS = 8  # along an axis of a coarse level
SLAB_VOXELS = 1 << 19  # whose similarity is differentiated at a time
UPDATE_SIGMA = 2.0  # voxels of the level, smoothing of each step
FIELD_SIGMA = 0.5  # voxels of the level, smoothing of the whole displacement after each step


@dataclass(frozen=True)
class Level:
    """One resolution: its spacing as a multiple of the finest, and how many steps are taken there."""

    factor: int
    steps: int


# Steps at 1/4, 1/2 and full size.
PRESETS: dict[RefinePreset, tuple[Level, ...]] = {
    "none": (),
    "fast": (Level(4, 60), Level(2, 40)),
    "default": (Level(4, 60), Level(2, 60), Level(1, 15)),
    "best": (Level(4, 100), Level(2, 100), Level(1, 40)),
}


def levels_for(refine: RefinePreset | int) -> tuple[Level, ...]:
    """The levels of a preset; a number n means the default's coarse levels and n steps at full size."""
    if isinstance(refine, int):
        return (*PRESETS["fast"], Level(1, refine)) if refine else ()
    return PRESETS[refine]


def level_grid(full: Grid, factor: int) -> Grid:
    """A coarser grid: `factor` times the smallest spacing, but thick slices and short axes are kept."""
    wanted = factor * full.spacing.min()
    shortest = full.spacing * np.array(full.shape) / FEWEST_VOXELS
    return full.with_spacing(np.maximum(full.spacing, np.minimum(wanted, shortest)))


def carry_displacement(displacement: Tensor, source: Grid, target: Grid) -> Tensor:
    """The same displacement on another grid: (1, *source, d) in source's voxels -> (1, *target, d) in target's."""
    where = affine_coordinates(index_map(target, source), target.shape)
    vectors = np.linalg.inv(target.affine[:-1, :-1]) @ source.affine[:-1, :-1]
    return ops.matmul(sample(displacement, where), ops.convert_to_tensor(vectors.T.astype("float32")))


@dataclass(frozen=True)
class LevelImages:
    """What a level works on: (1, *grid, 1) tensors in [0, 1], moving already carried through the affine."""

    grid: Grid
    fixed: Tensor
    moving: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Refined:
    """A refined displacement, (1, *grid, d) in the grid's voxels."""

    displacement: Tensor
    grid: Grid


def refine(
    images_on: Callable[[Grid], LevelImages],
    full: Grid,
    levels: tuple[Level, ...],
    similarity: str,
    start: tuple[Tensor, Grid] | None,
    progress: Callable[[str], None] = lambda _: None,
) -> Refined:
    """Run the levels, coarse to fine: phi = start o increment, and only the increment is carried and smoothed.

    So what the start resolves more finely than a level is not lost there.

    Args:
        images_on: makes a level's images.
        full: the finest grid.
        levels: see PRESETS; at least one.
        similarity: a key of LOCAL_MAPS.
        start: the displacement to go on from and its grid; None: the identity.
        progress: called with one line per level.
    Raises:
        RegistrationError: fewer than 3 voxels along an axis, or intensities without a finite gradient.
    """
    if min(full.shape) < 3:
        raise RegistrationError(f"fixed has {full.shape} voxels; refinement needs 3 along each axis, or --refine none")
    increment, grid = None, full
    for level in levels:
        images = images_on(level_grid(full, level.factor))
        if increment is None:
            increment = ops.zeros((1, *images.grid.shape, full.ndim))
        else:
            increment = carry_displacement(increment, grid, images.grid)
        grid = images.grid
        base = None if start is None else carry_displacement(*start, grid)
        for _ in range(level.steps):
            increment = improve(increment, base, images, similarity)
        progress(f"refine: {level.steps} steps at {grid.shape}")
    if start is None:
        return Refined(unfold(increment), grid)
    finest = start[1] if start[1].spacing.min() < grid.spacing.min() else grid
    base, increment = carry_displacement(*start, finest), carry_displacement(increment, grid, finest)
    return Refined(unfold(compose(base, increment)), finest)


def unfold(displacement: Tensor) -> Tensor:
    """Smooth a displacement around the voxels where its sampled map folds, and only there, until none folds.

    The steps are one-to-one, but where they compress more than the grid resolves the map between its voxels is not.

    Args:
        displacement: (1, *S, d), voxels.
    Returns:
        (1, *S, d); as it was at more than about 10 voxels from any fold.
    """
    for _ in range(UNFOLDING_ROUNDS):
        folded = folded_voxels(ops.convert_to_numpy(displacement)[0])
        if not folded.any():
            break
        near = ops.convert_to_tensor(folded[None, ..., None].astype("float32"))
        # 1 at a fold and within about a voxel of it, falling to 0 smoothly.
        weight = ops.minimum(gaussian(near, sigma=UPDATE_SIGMA) * (4 * UPDATE_SIGMA) ** (len(near.shape) - 2), 1.0)
        displacement = displacement + weight * (gaussian(displacement, sigma=1.0) - displacement)
    return displacement


def improve(increment: Tensor, base: Tensor | None, images: LevelImages, similarity: str) -> Tensor:
    """One step phi <- phi o (id + v), phi = base o increment; v is halved until id + v is one-to-one."""
    displacement = increment if base is None else compose(base, increment)
    velocity = descent(displacement, images.fixed, images.moving, images.mask, similarity)
    largest = float(ops.max(ops.abs(velocity)))
    if not np.isfinite(largest):
        raise RegistrationError(f"the {similarity} of the images has no finite gradient; check their intensities")
    if largest < SMALLEST_FORCE:
        return increment
    velocity = velocity * (LARGEST_STEP / largest)
    bound = float(lipschitz_bound(velocity))
    while bound >= STEP_LIMIT["euler"]:
        velocity, bound = velocity / 2, bound / 2
    return gaussian(compose(increment, velocity), sigma=FIELD_SIGMA)


def descent(displacement: Tensor, fixed: Tensor, moving: Tensor, mask: Tensor | None, similarity: str) -> Tensor:
    """The smoothed direction in which the similarity's loss falls, (1, *S, d), in arbitrary units.

    The loss changes by (dL/dmoved) grad(moved) . v under moved <- moved o (id + v).
    """
    moved = warp(moving, displacement)
    return gaussian(_force(intensity_gradient(fixed, moved, mask, similarity), moved), sigma=UPDATE_SIGMA)


def intensity_gradient(fixed: Tensor, moved: Tensor, mask: Tensor | None, similarity: str) -> Tensor:
    """Derivative of the sum of the similarity's map in each of moved's intensities, slab by slab to save memory.

    A window's voxels reach `reach` from its centre, so a slab needs twice as many planes beyond its ends for its
    own planes' derivatives to be those of the whole volume.
    """
    _, reach = LOCAL_MAPS[similarity]
    planes = moved.shape[1]
    thickness = max(1, SLAB_VOXELS // math.prod(moved.shape[2:-1]))
    parts = []
    for first in range(0, planes, thickness):
        last = min(first + thickness, planes)
        low, high = max(first - 2 * reach, 0), min(last + 2 * reach, planes)
        slab_mask = None if mask is None else mask[:, low:high]
        part = _slab_gradient(fixed[:, low:high], moved[:, low:high], slab_mask, similarity)
        parts.append(part[:, first - low : last - low])
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


def _slab_gradient(fixed: Tensor, moved: Tensor, mask: Tensor | None, similarity: str) -> Tensor:
    # Not compiled as a whole: inside one XLA function TensorFlow takes the images for constants and compiles
    # anew for every pair of values. The map and its derivative are compiled each by itself.
    unlikeness, _ = LOCAL_MAPS[similarity]
    return backend.gradient(lambda m: ops.sum(unlikeness(fixed, m) * (1.0 if mask is None else mask)), moved)


@backend.accelerate()
def _force(by_intensity: Tensor, moved: Tensor) -> Tensor:
    ndim = len(moved.shape) - 2
    interior = central_gradient(moved)[..., 0, :]
    slope = ops.pad(interior, [(0, 0), *[(1, 1)] * ndim, (0, 0)])
    return -by_intensity * slope
