"""Fitting a map of few parameters to one pair: affine, CPAB, or both (Detlefsen et al. 2018, without the network)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from scipy.optimize import minimize

from r2reg.flow import backend
from r2reg.flow.certificate import Certificate
from r2reg.flow.diffeomorphism import Diffeomorphism
from r2reg.flow.families import (
    AffineCpab,
    AffineDiff,
    Cpab,
    Family,
    FamilyName,
    family_field,
    make_family,
)
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.registration.refinement import Driver, MapOnGrid, Term, level_grid

Tensor = Any
FACTORS = (8, 4, 2, 1)  # levels, coarse to fine,
MOST_VOXELS = 150_000  # but for those larger than this: so few parameters need no more to be told
ITERATIONS, GAIN = 40, 1e-5  # of L-BFGS, at a level; it ends when a step gains less than this share
STIFFNESS = 0.01  # weight of the mean squared slope of CPAB's velocity, where the terms begin a level at 1
SMALLEST = 1e-6  # unlikeness that counts as some
STEP = 0.5  # Lipschitz constant of the flows that CPAB's is composed of, for its certificate


def fit_grids(full: Grid) -> list[Grid]:
    """The levels' grids, coarse to fine: the coarsest, and those that differ and are small enough."""
    found = [level_grid(full, FACTORS[0])]
    for factor in FACTORS[1:]:
        grid = level_grid(full, factor)
        if grid != found[-1] and math.prod(grid.shape) <= MOST_VOXELS:
            found.append(grid)
    return found


def fit(
    terms: list[Term], full: Grid, name: FamilyName, boxes: int, progress: Callable[[str], None] = lambda _: None
) -> tuple[MapOnGrid | None, Affine, dict[str, Any] | None]:
    """The map that minimises the terms.

    Args:
        full: fixed's grid, in canonical orientation.
        name: affine-diff, cpab or affine-cpab. boxes: of CPAB's tessellation, along each axis.
    Returns:
        CPAB's part on `full`, None where there is none, and the affine part, fixed points to fixed points in RAS mm;
        CPAB's acts first. And what CPAB's follows from, None where there is none: {"boxes", "boundary", "theta",
        "grid"}, with `full`'s "shape" and "affine", voxels to RAS mm; theta is of places in shares of its box.
    Raises:
        ConfigError, RegistrationError: a tessellation that cannot be; masks that do not meet.
    """
    family = make_family(name, full.ndim, boxes)
    theta = fit_theta(family, terms, full, progress)
    known = None
    if isinstance(family, Cpab):
        _, own = _parts(family, theta)
        grid = {"shape": list(full.shape), "affine": full.affine.tolist()}
        known = {"boxes": boxes, "boundary": family.boundary, "theta": own[0].tolist(), "grid": grid}
    return *written(family, theta, full), known


def fit_theta(
    family: Family, terms: list[Term], full: Grid, progress: Callable[[str], None] = lambda _: None
) -> np.ndarray:
    """theta (1, P) that minimises the terms, coarse to fine, by L-BFGS; see `fit`."""
    theta = np.zeros(family.parameters)
    stiffness = _stiffness(family)
    for grid in fit_grids(full):
        objective = Objective(family, [Driver(term, grid, grid) for term in terms], grid, stiffness, theta)
        found = minimize(objective, theta, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": GAIN})
        theta = found.x
        progress(f"fit: {found.nfev} evaluations at {grid.shape}")
    return family.check(theta)


class Objective:
    """theta -> the terms' unlikeness, as a share of what it is at `start`, and CPAB's stiffness; and their gradient."""

    def __init__(
        self, family: Family, drivers: list[Driver], grid: Grid, stiffness: np.ndarray, start: np.ndarray
    ) -> None:
        self.family, self.drivers, self.stiffness = family, drivers, stiffness
        self.shape, self.scale = grid.shape, 1.0
        bent = start @ stiffness @ start
        self.scale = 1 / max(abs(self(start)[0] - bent), SMALLEST)

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        point = ops.convert_to_tensor(theta[None], "float32")
        displacement = family_field(self.family, point, self.shape)
        found = [driver.pull(displacement) for driver in self.drivers]
        pull = sum(pull for _, pull in found)
        slope = backend.gradient(lambda value: ops.sum(family_field(self.family, value, self.shape) * pull), point)
        bent = self.stiffness @ theta
        value = self.scale * sum(value for value, _ in found) + theta @ bent
        return float(value), self.scale * ops.convert_to_numpy(slope)[0].astype(np.float64) + 2 * bent


def _stiffness(family: Family) -> np.ndarray:
    """(P, P): theta^T S theta is STIFFNESS times the velocity's mean squared slope."""
    found = np.zeros((family.parameters,) * 2)
    if isinstance(family, Cpab):
        t = family.tessellation
        sizes = np.abs(np.linalg.det(np.diff(t.corners[t.cells], axis=1)))
        slopes = t.to_weights[:, :, :-1]
        by_vertex = np.zeros((len(t.corners),) * 2)
        np.add.at(
            by_vertex,
            (t.cells[:, :, None], t.cells[:, None]),
            (sizes / sizes.sum())[:, None, None] * np.einsum("cka,cla->ckl", slopes, slopes),
        )
        own = np.kron(t.basis.T @ by_vertex @ t.basis, np.eye(t.ndim))
        found[-t.parameters :, -t.parameters :] = STIFFNESS * own
    return found


def written(family: Family, theta: np.ndarray, full: Grid) -> tuple[MapOnGrid | None, Affine]:
    """The map of theta (1, P) as it is written, see `fit`: CPAB's part as fields, the affine part as a matrix."""
    linear, rest = _parts(family, theta)
    affine = Affine(np.eye(full.ndim + 1)) if linear is None else _world(AffineDiff(full.ndim), linear, full)
    if not isinstance(family, Cpab):
        return None, affine
    return MapOnGrid(diffeomorphism(Cpab(family.boxes, family.boundary), rest, full.shape), full), affine


def _parts(family: Family, theta: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """theta (1, P) of the affine part, None where there is none, and of the rest."""
    if isinstance(family, AffineCpab):
        linear, rest = (ops.convert_to_numpy(part) for part in family.split(theta))
        return linear, rest
    return (theta if isinstance(family, AffineDiff) else None), theta


def diffeomorphism(family: Cpab, theta: np.ndarray, shape: tuple[int, ...]) -> Diffeomorphism:
    """The map of theta (1, P) on a grid, and its inverse.

    An affine part is one-to-one whatever its parameters, and leaves the certificate to CPAB.

    Raises:
        ConfigError: as `Family.check`.
    """
    theta = family.check(theta)
    tensor = ops.convert_to_tensor(theta)
    there, back = (family_field(family, tensor, shape, inverse) for inverse in (False, True))
    rest = ops.convert_to_numpy(family.split(tensor)[1]) if isinstance(family, AffineCpab) else theta
    return Diffeomorphism(there, back, _certificate(family, rest))


def _world(family: AffineDiff, theta: np.ndarray, full: Grid) -> Affine:
    """The family's map of shares of a grid's box, in RAS mm."""
    ndim = full.ndim
    corners = np.concatenate([np.zeros((1, ndim)), np.eye(ndim)]).astype(np.float32)
    there = ops.convert_to_numpy(family.map(ops.convert_to_tensor(theta), ops.convert_to_tensor(corners[None])))[0]
    shares = np.eye(ndim + 1)
    shares[:-1, :-1], shares[:-1, -1] = (there[1:] - there[0]).T, there[0]
    to_index = np.diag([*map(float, full.shape), 1.0])
    to_index[:-1, -1] = -0.5
    to_ras = full.affine @ to_index
    return Affine(to_ras @ shares @ np.linalg.inv(to_ras))


def _certificate(family: Cpab, theta: np.ndarray) -> Certificate:
    """The flow of unit time as n flows of time 1/n: each moves by at most exp(L/n) - 1 per distance, L the velocity's
    Lipschitz constant."""
    t = family.tessellation
    velocities = t.basis @ theta.reshape(-1, t.ndim)
    slopes = np.einsum("cki,cka->cia", velocities[t.cells], t.to_weights[:, :, :-1])
    lipschitz = float(np.linalg.norm(slopes, 2, axis=(1, 2)).max())
    steps = max(math.ceil(lipschitz / STEP), 1)
    return Certificate(steps, math.expm1(lipschitz / steps))
