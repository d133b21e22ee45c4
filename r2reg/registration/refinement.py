"""Refinement: the flow goes on, driven by the pair itself.

Each step is one more residual block of the same flow, phi <- phi o (id + v), coarse to fine. Its velocity is the
smoothed descent direction of the similarity at the current phi plus the relaxation of phi, so the map is kept smooth
by steps of the flow and never by a filter over the whole of it: what comes out is a composition of maps that are
one-to-one by their bounds. No gradient goes through the composition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from r2reg.config import NetworkConfig, RefinePreset
from r2reg.errors import RegistrationError
from r2reg.flow import backend
from r2reg.flow.diffeomorphism import Diffeomorphism, advance, follow, identity, resampled
from r2reg.flow.jacobian import central_gradient
from r2reg.flow.relaxation import relaxation
from r2reg.flow.smooth import box_mean, gaussian
from r2reg.flow.warp import affine_coordinates, compose, identity_coordinates, sample, sample_with_slopes, warp
from r2reg.geometry.grid import Grid, index_map
from r2reg.losses.steering import Steering, weight_sum

Tensor = Any

STEP = 0.4  # voxels of the level, the largest displacement of a step
SLOWER, FASTER = 0.6, 1.1  # what a step's length is multiplied by after the similarity got worse, or better
STRONG_FORCE = 1.5  # times the forces' root mean square: stronger ones are cut to it, lest a few edges rule a step
UPDATE_SIGMA = 1.5  # voxels of the level, smoothing of each step's force
RELAXATION = 0.04  # of a step, in units of time; the higher, the smoother the map
PLATEAU_STEPS = 10  # a level ends when so many steps have brought less than
PLATEAU_GAIN = 0.01  # this share of what the level has gained so far
SMALLEST_FORCE = 1e-5  # intensity in [0, 1] per voxel; what float32 rounding leaves of identical images is below
WHOLE = 0.999  # share of a window that lies in moving's view, but for rounding
FEWEST_VOXELS = 8  # along an axis of a coarse level
ROUNDED = 1.01  # spacings that differ by less are one: what is 1 mm may be written as 0.999


@dataclass(frozen=True)
class Level:
    """One resolution: its spacing as a multiple of the finest, and how many steps are taken there at most."""

    factor: int
    steps: int


# Steps at 1/4, 1/2 and full size.
PRESETS: dict[RefinePreset, tuple[Level, ...]] = {
    "none": (),
    "fast": (Level(4, 30), Level(2, 16)),
    "default": (Level(4, 60), Level(2, 60), Level(1, 10)),
    "best": (Level(4, 100), Level(2, 100), Level(1, 40)),
}


def levels_for(refine: RefinePreset | int) -> tuple[Level, ...]:
    """The levels of a preset; a number n means default's with n steps at full size, 0 the coarser levels alone."""
    if isinstance(refine, int):
        return (*PRESETS["default"][:-1], Level(1, refine)) if refine else PRESETS["default"][:-1]
    return PRESETS[refine]


def levels_from(refine: RefinePreset | int, full: Grid, network: NetworkConfig | None) -> tuple[Level, ...]:
    """The levels of a preset as they go on from a network's map; from the affine, where there is none.

    The coarsest is left out where a pyramid's velocities are as fine: at 1 and 2 mm, 14 painted pairs (T1, T1-T2) and
    one of lungs overlapped as well without it. Other networks were not measured so.

    Args:
        full: the finest grid.
    """
    levels = levels_for(refine)
    if not levels or network is None or not network.pyramid:
        return levels
    velocities = max(network.spacing) * (2 if network.velocity_size == "half" else 1)
    return levels[1:] if velocities <= level_grid(full, levels[0].factor).spacing.min() * ROUNDED else levels


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
class MapOnGrid:
    """A map of fixed's points and the grid in whose voxels its fields are."""

    phi: Diffeomorphism
    grid: Grid

    def on(self, grid: Grid) -> MapOnGrid:
        """The same map on another grid."""
        if grid == self.grid:
            return self
        return MapOnGrid(resampled(self.phi, lambda field: carry_displacement(field, self.grid, grid)), grid)


@dataclass(frozen=True)
class LevelImages:
    """What a level works on: (1, *grid, C) tensors, moving's already carried through the affine.

    Attributes:
        fixed, moving: intensities in [0, 1], or one channel per label.
        mask, moving_mask: (1, *grid, 1) in [0, 1], where the similarity looks; both must say so where both are given.
        view: (1, *grid, 1), 1 in moving's field of view; None: it holds all that fixed shows.
    """

    grid: Grid
    fixed: Tensor
    moving: Tensor
    mask: Tensor | None = None
    moving_mask: Tensor | None = None
    view: Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One thing that drives the refinement: a similarity and the images that it compares.

    Attributes:
        finest: the smallest factor of a level on which it is computed; finer levels take its force from there.
    """

    steering: Steering
    images_on: Callable[[Grid], LevelImages]
    finest: int = 1


def refine(
    terms: list[Term],
    full: Grid,
    levels: tuple[Level, ...],
    start: MapOnGrid | None = None,
    progress: Callable[[str], None] = lambda _: None,
    observe: Callable[[MapOnGrid], None] = lambda _: None,
) -> MapOnGrid:
    """Run the levels, coarse to fine: phi = start o increment, and only the increment is carried and relaxed.

    So what the start resolves more finely than a level is not lost there.

    Args:
        terms: what to be driven by, all with one weight.
        full: the finest grid, 3 voxels or more along each axis.
        levels: see PRESETS; at least one.
        start: the map to go on from; None: the identity.
        progress: called with one line per level.
        observe: called with the increment after each step.
    Raises:
        RegistrationError: masks that do not meet, or intensities without a finite gradient.
    """
    increment = None
    for level in levels:
        grid = level_grid(full, level.factor)
        increment = MapOnGrid(identity(grid.shape), grid) if increment is None else increment.on(grid)
        base = None if start is None else start.on(grid).phi.displacement
        drivers = [Driver(term, grid, level_grid(full, max(level.factor, term.finest))) for term in terms]
        phi, taken = _run_level(increment, base, drivers, level.steps, observe)
        increment = MapOnGrid(phi, grid)
        progress(f"refine: {taken} steps at {grid.shape}")
    assert increment is not None
    if start is None:
        return increment
    finest = min(start.grid, increment.grid, key=lambda grid: grid.spacing.min())
    return MapOnGrid(follow(start.on(finest).phi, increment.on(finest).phi), finest)


def _run_level(
    start: MapOnGrid,
    base: Tensor | None,
    drivers: list[Driver],
    steps: int,
    observe: Callable[[MapOnGrid], None],
) -> tuple[Diffeomorphism, int]:
    """At most so many steps, fewer where they no longer pay; the map and the number of steps taken."""
    phi = start.phi
    values: list[float] = []
    pace = 1.0
    for taken in range(steps):
        displacement = phi.displacement if base is None else compose(base, phi.displacement)
        found = [driver.direction(displacement) for driver in drivers]
        values.append(sum(value for value, _ in found))
        directions = [direction for _, direction in found if direction is not None]
        del displacement, found
        if not directions or on_plateau(values):
            return phi, taken
        worse = len(values) > 1 and values[-1] > values[-2]
        pace = SLOWER * pace if worse else min(FASTER * pace, 1.0)
        velocity = step_velocity(phi.displacement, directions, ops.convert_to_tensor(pace), drivers=len(drivers))
        del directions  # before the step needs as much memory again
        phi = advance(phi, velocity)
        observe(MapOnGrid(phi, start.grid))
    return phi, steps


@backend.accelerate("drivers")
def step_velocity(displacement: Tensor, directions: list[Tensor], pace: Tensor, *, drivers: int) -> Tensor:
    """A step's velocity: where the drivers want to go, each with the same largest vector, and the relaxation.

    Args:
        displacement: of the map so far, (1, *S, d), voxels.
        directions: (1, *S, d) each, in units of their own; of the `drivers` that have one.
        pace: scalar, what the step's length is multiplied by.
    Returns:
        (1, *S, d), voxels.
    """
    relaxing, room = relaxation(displacement)
    force = sum(direction * (STEP / drivers / _longest(direction)) for direction in directions)
    return ops.cast(pace, displacement.dtype) * (room * force + RELAXATION * relaxing)


def on_plateau(values: list[float]) -> bool:
    """Whether the last PLATEAU_STEPS steps brought too little of what the level has gained."""
    if len(values) <= PLATEAU_STEPS:
        return False
    before, now = min(values[:-PLATEAU_STEPS]), min(values)
    return before - now <= PLATEAU_GAIN * (values[0] - now)


class Driver:
    """A term at one level."""

    def __init__(self, term: Term, grid: Grid, own: Grid):
        """Prepare the images.

        Args:
            grid: the level's. own: where the term is computed, as fine or coarser.
        """
        images = term.images_on(own)
        features = term.steering.features
        self.grid, self.own = grid, own
        self.moving = features(images.moving)
        self.prepared = term.steering.prepare(features(images.fixed), self.moving)
        self.slope = term.steering.slope
        self.mask, self.moving_mask, self.view = images.mask, images.moving_mask, images.view
        self.reach = term.steering.reach + 1  # and one for the moved image's gradient
        # The force is a gradient per voxel and moves by voxels: in mm, both shrink with the square of the spacing.
        self.by_axis = tuple(float(share) for share in (own.spacing.min() / own.spacing) ** 2)
        still = ops.zeros((1, *own.shape, own.ndim))
        while self.reach and self.view is not None and _is_empty(self._weight(still)):
            self.reach -= 1  # a view thinner than the windows
        if _is_empty(self._weight(still)):
            raise RegistrationError(
                "the masks of moving and fixed do not overlap after the affine; check the masks, or give another --init"
            )

    def direction(self, displacement: Tensor) -> tuple[float, Tensor | None]:
        """The similarity's value, lower is better, and where to go, in arbitrary units; None: nowhere.

        Args:
            displacement: (1, *grid, d), voxels.
        """
        if self.own != self.grid:
            displacement = carry_displacement(displacement, self.grid, self.own)
        moved = warp(self.moving, displacement)
        value, by_moved = self.slope(self.prepared, moved, self._weight(displacement))
        strongest, velocity = smoothed_force(by_moved, moved, self.by_axis)
        if not np.isfinite(strongest):
            raise RegistrationError("the similarity of the images has no finite gradient; check their intensities")
        if strongest < SMALLEST_FORCE:
            return float(value), None
        if self.own != self.grid:
            velocity = carry_displacement(velocity, self.own, self.grid)
        return float(value), velocity

    def pull(self, displacement: Tensor) -> tuple[float, Tensor]:
        """The similarity's value and its derivative in the displacement, (1, *own, d) each, voxels."""
        moved, slopes = _sampled(self.moving, identity_coordinates(self.own.shape) + displacement)
        weight = self._weight(displacement)
        value, by_moved = self.slope(self.prepared, moved, weight)
        return float(value), ops.sum(by_moved[..., None] * slopes, axis=-2) / weight_sum(moved, weight)

    def _weight(self, displacement: Tensor) -> Tensor | None:
        """Where the similarity looks: in both masks, and where all that it takes in lies in moving's view."""
        weight = self.mask
        if self.moving_mask is not None:
            weight = _product(weight, warp(self.moving_mask, displacement))
        if self.view is not None:
            share = box_mean(warp(self.view, displacement), radius=self.reach)
            weight = _product(weight, ops.cast(share > WHOLE, share.dtype))
        return weight


_sampled = backend.accelerate()(sample_with_slopes)


def _product(weight: Tensor | None, other: Tensor) -> Tensor:
    return other if weight is None else weight * other


def smoothed_force(by_moved: Tensor, moved: Tensor, by_axis: tuple[float, ...]) -> tuple[float, Tensor]:
    """The strongest force, and the Gaussian-smoothed direction in which the loss falls.

    The loss changes by (dL/dmoved) . grad(moved) v under moved <- moved o (id + v).

    Args:
        by_moved: dL/dmoved, (1, *S, C). moved: (1, *S, C).
        by_axis: what the force's components are multiplied by.
    Returns:
        The largest |force|, and (1, *S, d), in arbitrary units.
    """
    strongest, force = _limited_force(by_moved, moved, by_axis=by_axis)
    return float(strongest), gaussian(force, sigma=UPDATE_SIGMA)


@backend.accelerate("by_axis")
def _limited_force(by_moved: Tensor, moved: Tensor, *, by_axis: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    ndim = len(moved.shape) - 2
    interior = -ops.sum(_interior(by_moved)[..., None] * central_gradient(moved), axis=-2)
    if any(share != 1 for share in by_axis):
        interior = interior * ops.convert_to_tensor(by_axis, interior.dtype)
    size = ops.sqrt(ops.sum(interior * interior, axis=-1, keepdims=True))
    acting = ops.maximum(ops.sum(ops.cast(size > 0, size.dtype)), 1.0)
    limit = STRONG_FORCE * ops.sqrt(ops.sum(size * size) / acting)
    limited = interior * ops.minimum(limit / ops.maximum(size, 1e-30), 1.0)
    return ops.max(size), ops.pad(limited, [(0, 0), *[(1, 1)] * ndim, (0, 0)])


def _interior(field: Tensor) -> Tensor:
    return field[(slice(None), *[slice(1, -1)] * (len(field.shape) - 2))]


def _longest(velocity: Tensor) -> Tensor:
    return ops.sqrt(ops.max(ops.sum(velocity * velocity, axis=-1)))


def _is_empty(weight: Tensor | None) -> bool:
    return weight is not None and not float(ops.max(weight)) > 0
