"""Steps of ordinary differential equations, against closed forms."""

import math

import numpy as np
import pytest

from r2reg.flow.schemes import SCHEMES

TURN = np.array([[0.0, -2.0], [2.0, 0.0]])  # angular velocity 2


def rotated(scheme, steps):
    """A point turned for unit time; the exact answer is (cos 2, sin 2)."""
    x = np.array([1.0, 0.0])
    for _ in range(steps):
        x = SCHEMES[scheme](lambda y: TURN @ y, x, 1 / steps)
    return x


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_convergence(scheme, order):
    exact = [math.cos(2), math.sin(2)]
    coarse, fine = (np.linalg.norm(rotated(scheme, n) - exact) for n in (20, 40))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


def test_midpoint_undoes_itself_and_euler_does_not():
    x = np.array([0.7, -0.2])
    back = {s: SCHEMES[s](np.sin, SCHEMES[s](np.sin, x, 0.1), -0.1) for s in ("midpoint", "euler")}
    assert np.abs(back["midpoint"] - x).max() < 1e-7
    assert np.abs(back["euler"] - x).max() > 1e-3
