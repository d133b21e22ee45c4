"""One step of an ordinary differential equation dx/dt = rate(x), for arrays and tensors of any backend alike.

The rate is constant in time over the step. Errors fall with the step h as h (euler), h^2 (midpoint), h^4 (rk4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tensor = Any
Rate = Callable[[Tensor], Tensor]
MIDPOINT_ITERATIONS = 4


def euler(rate: Rate, x: Tensor, h: float) -> Tensor:
    """x + h rate(x): a residual block."""
    return x + h * rate(x)


def rk4(rate: Rate, x: Tensor, h: float) -> Tensor:
    """The classical Runge-Kutta step (Rousseau & Fablet 2018, sec. 5.2)."""
    k1 = rate(x)
    k2 = rate(x + h / 2 * k1)
    k3 = rate(x + h / 2 * k2)
    k4 = rate(x + h * k3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def midpoint(rate: Rate, x: Tensor, h: float) -> Tensor:
    """The implicit midpoint step x' = x + h rate((x + x') / 2), by fixed-point iterations from Euler's step.

    Its own inverse with -h, where the iterations have converged: they do for h times the rate's Lipschitz constant
    below 2.
    """
    after = euler(rate, x, h)
    for _ in range(MIDPOINT_ITERATIONS):
        after = x + h * rate((x + after) / 2)
    return after


SCHEMES: dict[str, Callable[[Rate, Tensor, float], Tensor]] = {"euler": euler, "rk4": rk4, "midpoint": midpoint}
