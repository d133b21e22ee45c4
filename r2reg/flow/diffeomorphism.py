"""A map that is one-to-one by construction: a composition of steps, each of them an invertible residual block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.flow.certificate import Certificate
from r2reg.flow.integrate import STEP_LIMIT
from r2reg.flow.jacobian import lipschitz_bound
from r2reg.flow.warp import compose

Tensor = Any

LARGEST_BOUND = STEP_LIMIT["euler"]  # of a step's Lipschitz constant


@dataclass(frozen=True)
class Diffeomorphism:
    """phi = (id + v_1) o ... o (id + v_n), carried along with its inverse.

    Attributes:
        displacement: of phi, (1, *S, d), voxels of its grid.
        inverse: of phi^-1, alike: the steps run backwards, to first order, a start for `inverse.invert`.
        certificate: of the steps.
    """

    displacement: Tensor
    inverse: Tensor
    certificate: Certificate = field(default_factory=Certificate)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return tuple(self.displacement.shape[1:-1])


def identity(shape: Sequence[int]) -> Diffeomorphism:
    """The map from which a flow starts."""
    zero = ops.zeros((1, *shape, len(shape)))
    return Diffeomorphism(zero, zero)


def bounded(velocity: Tensor) -> tuple[Tensor, Certificate]:
    """A step's velocity (1, *S, d), voxels, halved until id + v is one-to-one by its bound; and that bound."""
    bound, halved = float(lipschitz_bound(velocity)), 0
    while bound >= LARGEST_BOUND:
        velocity, bound, halved = velocity / 2, bound / 2, halved + 1
    return velocity, Certificate(1, bound, halved)


def advance(phi: Diffeomorphism, velocity: Tensor) -> Diffeomorphism:
    """phi o (id + v): one more residual block, with v as `bounded` allows it.

    Backwards it is w(y) <- w(y) - v(y + w(y)), the first term of the series of (id + v)^-1 at the place to which
    phi^-1 leads.

    Args:
        velocity: (1, *S, d), voxels: v, the step's own displacement.
    """
    velocity, step = bounded(velocity)
    return Diffeomorphism(
        _composed(phi.displacement, velocity),
        _composed(-velocity, phi.inverse),
        step.after(phi.certificate),
    )


_composed = backend.accelerate()(compose)  # as a whole: no field in between, and nobody asks for its gradient


def follow(outer: Diffeomorphism, inner: Diffeomorphism) -> Diffeomorphism:
    """outer o inner, on one grid."""
    return Diffeomorphism(
        compose(outer.displacement, inner.displacement),
        compose(inner.inverse, outer.inverse),
        inner.certificate.after(outer.certificate),
    )


def resampled(phi: Diffeomorphism, carry: Any) -> Diffeomorphism:
    """The same map on another grid; `carry` takes a displacement there."""
    return replace(phi, displacement=carry(phi.displacement), inverse=carry(phi.inverse))
