"""The flow of a piecewise affine velocity by Runge-Kutta in float64 numpy."""

import numpy as np


def velocity(tessellation, theta):
    """(B, P) -> a function of places (B, N, d)."""
    t = tessellation
    at = np.einsum("vk,bkd->bvd", t.basis, theta.reshape(len(theta), -1, t.ndim))
    affine = np.einsum("bckd,ckj->bcdj", at[:, t.cells], t.to_weights)  # (x, 1) -> v in each cell
    most, simplices = np.array(t.boxes) - 1, np.arange(t.per_box)

    def of(x):
        item = np.repeat(np.arange(len(x)), x.shape[1])
        one = np.ones((item.size, t.ndim + 1))
        one[:, :-1] = x.reshape(-1, t.ndim)
        box = np.minimum(np.maximum(((one[:, :-1] - t.low) / t.size).astype(int), 0), most)
        cells = np.ravel_multi_index(tuple(box.T), t.boxes)[:, None] * t.per_box + simplices
        best = np.einsum("nkij,nj->nki", t.to_weights[cells], one).min(2).argmax(1)
        return np.einsum("ndj,nj->nd", affine[item, cells[np.arange(item.size), best]], one).reshape(x.shape)

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
