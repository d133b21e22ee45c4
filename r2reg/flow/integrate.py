"""From velocities to a displacement: the integrators.

A velocity is (N, *S, d) in voxels per unit time; a flow over unit time is a list of velocities, each constant on its
share of the time, so a stationary field is a list of one. phi = id + u, and phi solves d phi/dt = v_t(phi)
(Joshi & Hong 2023, eqs. 1 and 3).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow.jacobian import lipschitz_bound
from r2reg.flow.schemes import SCHEMES
from r2reg.flow.warp import compose, warp

Tensor = Any

# Largest Lipschitz constant of one step. Below 1 an Euler step is one-to-one; RK4's increment is bounded by
# exp(L) - 1 for a field of constant L, which is below 1 for L < log 2. The margins absorb float32 rounding.
STEP_LIMIT = {"euler": 0.95, "rk4": 0.95 * math.log(2)}


def flow(velocities: Sequence[Tensor], scheme: str = "euler", substeps: int = 1) -> Tensor:
    """Integrate a list of velocities over unit time by composing steps.

    Args:
        velocities: T fields (N, *S, d), each constant over 1/T of the time.
        scheme: of `schemes`.
        substeps: steps per velocity.
    Returns:
        (N, *S, d), voxels: u with phi = id + u.
    Raises:
        ConfigError: no velocity, an unknown scheme, fewer than one substep.
    """
    return _last(partial_flows(velocities, scheme, substeps))


def partial_flows(velocities: Sequence[Tensor], scheme: str = "euler", substeps: int = 1) -> Iterator[Tensor]:
    """The displacement after each velocity's share of the time; the last is that of `flow`, whose arguments these are.

    Raises:
        ConfigError: as `flow`, with the first displacement.
    """
    if not velocities or scheme not in SCHEMES or substeps < 1:
        raise ConfigError(
            f"flow needs a velocity, a scheme of {', '.join(SCHEMES)} and a positive number of substeps. "
            f"Received: {len(velocities)} velocities, scheme={scheme!r}, substeps={substeps}"
        )
    step, h = SCHEMES[scheme], 1 / (len(velocities) * substeps)
    displacement = ops.zeros_like(velocities[0])
    for velocity in velocities:
        for _ in range(substeps):
            displacement = step(partial(warp, velocity), displacement, h)
        yield displacement


def backward_flow(velocities: Sequence[Tensor], scheme: str = "euler", substeps: int = 1) -> Tensor:
    """The flow run from time 1 back to 0: close to the inverse of `flow`, exact as the steps get small."""
    return flow([-velocity for velocity in reversed(velocities)], scheme, substeps)


def safe_substeps(velocities: Sequence[Tensor], scheme: str = "euler", minimum: int = 1) -> int:
    """Substeps per velocity for which every step of `flow` is one-to-one.

    Reads the values, so it works outside compiled functions only.

    Raises:
        ConfigError: a velocity with NaN or infinite values.
    """
    bound = max(float(ops.convert_to_numpy(lipschitz_bound(velocity))) for velocity in velocities)
    if not math.isfinite(bound):
        raise ConfigError("the velocity field holds NaN or infinite values")
    return max(minimum, math.ceil(bound / (len(velocities) * STEP_LIMIT[scheme])))


def scaling_squaring(velocity: Tensor, squarings: int = 7) -> Tensor:
    """exp(v) of a stationary velocity (Arsigny et al. 2006): phi_{1/2^K} = id + v/2^K, then K self-compositions."""
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement


def integrate(
    velocities: Sequence[Tensor], *, integrator: str, scheme: str = "euler", substeps: int = 1, squarings: int = 7
) -> Tensor:
    """The displacement by one of the integrators.

    Args:
        velocities: fields (N, *S, d), each constant over its share of the time.
        integrator: "residual" (the last state as it is), "flow" or "scaling_squaring" (the exponential of each
            velocity over its share, composed). scheme, substeps: of `flow`. squarings: of `scaling_squaring`.
    Raises:
        ConfigError: another integrator, and what `flow` raises.
    """
    if integrator == "residual":
        return velocities[-1]
    if integrator == "flow":
        return flow(velocities, scheme, substeps)
    if integrator != "scaling_squaring":
        raise ConfigError(
            f"integrator must be one of residual, flow, scaling_squaring. Received: integrator={integrator!r}"
        )
    return _last(partial_exponentials(velocities, squarings))


def partial_exponentials(velocities: Sequence[Tensor], squarings: int = 7) -> Iterator[Tensor]:
    """The displacement after each velocity's share of the time, composed of exponentials over the shares."""
    displacement = None
    for velocity in velocities:
        share = scaling_squaring(velocity / len(velocities), squarings)
        displacement = share if displacement is None else compose(share, displacement)
        yield displacement


def _last(displacements: Iterator[Tensor]) -> Tensor:
    """The others are forgotten on the way."""
    return deque(displacements, maxlen=1).pop()
