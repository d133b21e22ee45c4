"""The flow of a piecewise affine velocity by Runge-Kutta in float64 numpy."""

import numpy as np


def velocity(tessellation, theta):
    """(P,) -> a function of (N, d) places."""
    t = tessellation
    at = t.basis @ theta.reshape(-1, t.ndim)

    def of(x):
        box = np.clip(np.floor((x - t.low) / t.size), 0, np.array(t.boxes) - 1).astype(int)
        first = np.ravel_multi_index(box.T, t.boxes) * t.per_box
        one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        weights = np.stack([np.einsum("nij,nj->ni", t.to_weights[first + k], one) for k in range(t.per_box)], axis=1)
        best = weights.min(-1).argmax(1)
        return np.einsum("nk,nkd->nd", weights[np.arange(len(x)), best], at[t.cells[first + best]])

    return of


def runge_kutta(of, x, steps):
    h = 1 / steps
    for _ in range(steps):
        k1 = of(x)
        k2 = of(x + h / 2 * k1)
        k3 = of(x + h / 2 * k2)
        k4 = of(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
