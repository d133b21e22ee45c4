"""Optimisation of a likeness over rigid maps, similarities or affines, one resolution at a time."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.starts import Body, turn

Kind = Literal["rigid", "similarity", "affine"]
Measure = Callable[[Array], tuple[float, Array]]  # of a matrix: its value, and (d+1, d+1) its derivative by the entries
ITERATIONS = 60  # of L-BFGS; 10 to 30 are usual
CONVERGED = 1e-6  # of information
FIRST_STEP = 0.5  # of the level's spacing, at the body's rim: the first trial step


def improve(
    measure: Measure, matrix: Array, body: Body, kind: Kind, spacing: float, converged: float = CONVERGED
) -> Array:
    """Optimise an increment before `matrix`: x -> matrix(increment(x)).

    Args:
        measure: of the pair at one resolution, what to climb on.
        matrix: (d+1, d+1) RAS mm, fixed -> moving points, the start.
        body: what is turned, on fixed.
        kind: of the increment.
        spacing: of that resolution, mm.
        converged: gain of an iteration, of the values of at most 1, below which the search ends.
    Returns:
        The improved matrix; the start itself where nothing can be gained.
    """
    from scipy.optimize import minimize

    increments = Increments(kind, body, FIRST_STEP * spacing)

    def loss(parameters: Array) -> tuple[float, Array]:
        value, by_matrix = measure(matrix @ increments.matrix(parameters))
        return -value, -increments.by_parameters(parameters, matrix.T @ by_matrix)

    options = {"maxiter": ITERATIONS, "ftol": converged}
    found = minimize(loss, np.zeros(increments.count), jac=True, method="L-BFGS-B", options=options)
    return matrix @ increments.matrix(found.x)


@dataclass(frozen=True)
class Increments:
    """Maps near the identity by parameters that weigh alike: each is `unit` mm at the body's rim."""

    kind: Kind
    body: Body
    unit: float

    @property
    def count(self) -> int:
        """How many parameters: of the linear part, then the shift."""
        ndim = len(self.body.center)
        turns = ndim * (ndim - 1) // 2
        return {"rigid": turns, "similarity": turns + 1, "affine": ndim**2}[self.kind] + ndim

    def _linear(self, parameters: Array) -> tuple[Array, Array]:
        scaled = parameters[: -len(self.body.center)] * self.unit / self.body.radius
        return linear_part(self.kind, len(self.body.center), scaled)

    def matrix(self, parameters: Array) -> Array:
        """(d+1, d+1) RAS mm; all parameters 0: the identity."""
        center = self.body.center
        linear, _ = self._linear(parameters)
        matrix = np.eye(len(center) + 1)
        matrix[:-1, :-1] = linear
        matrix[:-1, -1] = center - linear @ center + self.unit * parameters[-len(center) :]
        return matrix

    def by_parameters(self, parameters: Array, by_matrix: Array) -> Array:
        """The derivative of a value by the parameters, from that by the matrix's entries."""
        _, derivatives = self._linear(parameters)
        by_linear = by_matrix[:-1, :-1] - np.outer(by_matrix[:-1, -1], self.body.center)
        turned = np.einsum("kij,ij->k", derivatives, by_linear) * self.unit / self.body.radius
        return np.concatenate([turned, by_matrix[:-1, -1] * self.unit])


def linear_part(kind: Kind, ndim: int, parameters: Array) -> tuple[Array, Array]:
    """(d, d) matrix of a kind, and (k, d, d) its derivatives.

    Args:
        parameters: (k,) rigid: an angle (radians) for each pair of axes, turned one after the other; similarity:
            also the logarithm of the scale; affine: the entries, less the identity's.
    """
    if kind == "affine":
        return np.eye(ndim) + parameters.reshape(ndim, ndim), np.eye(ndim**2).reshape(-1, ndim, ndim)
    planes = list(itertools.combinations(range(ndim), 2))
    turns = [turn(ndim, i, j, a) for (i, j), a in zip(planes, parameters, strict=False)]
    # A turn's derivative is the turn by 90 degrees more, without the axes that stay.
    slopes = [turn(ndim, i, j, a + np.pi / 2) for (i, j), a in zip(planes, parameters, strict=False)]
    for slope, plane in zip(slopes, planes, strict=True):
        slope[[k for k in range(ndim) if k not in plane], :] = 0
    matrix = functools.reduce(np.matmul, turns)
    derivatives = [functools.reduce(np.matmul, [*turns[:k], slope, *turns[k + 1 :]]) for k, slope in enumerate(slopes)]
    if kind == "similarity":
        matrix = matrix * np.exp(parameters[-1])
        derivatives = [d * np.exp(parameters[-1]) for d in derivatives] + [matrix]
    return matrix, np.stack(derivatives)
