"""The flow of a continuous, piecewise affine velocity (CPAB; Freifeld et al. 2017, Detlefsen et al. 2018).

Within a cell a point's barycentric weights m obey dm/dt = K m with one matrix K, so they are m(t) = exp(tK) m(0), here
as a power series of few terms over pieces of time in which it converges at once. A point is followed from cell to cell:
to the end of its piece of time, or to the moment when a weight becomes 0 and it crosses a facet. The flow of -v is
the inverse.

The gradient is the adjoint's: d lambda/dt = -A^T lambda, followed back along the way with the points, so that no
state of the way is kept; what a vertex's velocity contributes is the integral of its weight times lambda.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow.tessellation import Tessellation

Tensor = Any
TERMS = 9  # of the power series, which is exact to 1 / 10! where |K| t <= 1
CHECKS = 4  # moments of a piece at which a point must be in its cell
HALVINGS = 6  # of the time in which it has left it
INSIDE = 1e-6  # a weight above minus this is inside: what slides along a facet stays where it is
MOST_PIECES = 400
NODES, NODE_WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(5)[0] + 1), 0.5 * np.polynomial.legendre.leggauss(5)[1])


def vertex_velocities(theta: Tensor, tessellation: Tessellation) -> Tensor:
    """(B, P) parameters -> (B, V, d), shares of the box per unit time.

    Raises:
        ConfigError: another number of parameters.
    """
    ndim, count = tessellation.ndim, tessellation.parameters
    if len(theta.shape) != 2 or theta.shape[1] != count:
        raise ConfigError(f"theta needs {count} numbers for this tessellation. Received: shape {tuple(theta.shape)}")
    rows = ops.reshape(theta, (-1, count // ndim, ndim))
    return ops.matmul(ops.convert_to_tensor(tessellation.basis, theta.dtype), rows)


def cpab(theta: Tensor, points: Tensor, tessellation: Tessellation) -> Tensor:
    """Where points are carried in unit time; differentiable in both.

    Args:
        theta: (B, P); -theta gives the inverse.
        points: (B, N, d), shares of the box. Outside of it they rest, with a free boundary they go on with the velocity
            of the ring around it.
    Returns:
        (B, N, d).
    Raises:
        ConfigError: another number of parameters.
    """
    return _flow(vertex_velocities(theta, tessellation), points, Tables(tessellation, points.dtype))


class Tables:
    """A tessellation's arrays as tensors."""

    def __init__(self, tessellation: Tessellation, dtype: str) -> None:
        t = tessellation
        self.tessellation, self.dtype = t, dtype
        self.ndim, self.count = t.ndim, len(t.cells)
        self.cells = t.cells
        self.places = ops.convert_to_tensor(t.corners[t.cells].reshape(self.count, -1), dtype)
        self.to_weights = ops.convert_to_tensor(t.to_weights.reshape(self.count, -1), dtype)
        self.neighbours = ops.convert_to_tensor(
            np.where(t.neighbours < 0, np.arange(self.count)[:, None], t.neighbours)
        )
        self.closed = ops.convert_to_tensor(np.where(t.neighbours < 0, 1e9, 0.0), dtype)

    def locate(self, points: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The cell (M,) of points (M, d), and their weights in it, a list of (M,)."""
        t = self.tessellation
        x = (points - ops.convert_to_tensor(t.low, self.dtype)) / ops.convert_to_tensor(t.size, self.dtype)
        last = np.array(t.boxes) - 1
        box = ops.clip(ops.floor(x), 0, ops.convert_to_tensor(last, self.dtype))
        first = sum(box[:, a] * float(np.prod(t.boxes[a + 1 :])) for a in range(self.ndim)) * t.per_box
        first = ops.cast(first, "int32")
        best, least = first, ops.full(ops.shape(first), -np.inf, self.dtype)
        for k in range(t.per_box):
            here = _smallest(self.weights(first + k, points))
            best, least = ops.where(here > least, first + k, best), ops.maximum(here, least)
        return best, self.weights(best, points)

    def weights(self, cell: Tensor, points: Tensor) -> list[Tensor]:
        """Barycentric weights of points (M, d) in given cells."""
        rows = ops.take(self.to_weights, cell, axis=0)
        n, x = self.ndim + 1, [points[:, a] for a in range(self.ndim)]
        return [sum(rows[:, j * n + a] * x[a] for a in range(self.ndim)) + rows[:, j * n + n - 1] for j in range(n)]

    def points(self, cell: Tensor, weights: list[Tensor]) -> Tensor:
        """(M, d) places of weights in cells."""
        rows = ops.take(self.places, cell, axis=0)
        n = self.ndim
        return ops.stack([sum(w * rows[:, k * n + a] for k, w in enumerate(weights)) for a in range(n)], axis=-1)

    def rates(self, velocities: Tensor) -> Tensor:
        """(B, V, d) -> (B C, (d + 1)^2): K of every cell of every item."""
        at = ops.take(velocities, self.cells.ravel(), axis=1)
        at = ops.reshape(at, (-1, self.count, self.ndim + 1, self.ndim))
        slopes = ops.reshape(self.to_weights, (self.count, self.ndim + 1, self.ndim + 1))[:, :, :-1]
        return ops.reshape(ops.einsum("cja,bcka->bcjk", slopes, at), (-1, (self.ndim + 1) ** 2))

    def gradients(self, velocities: Tensor) -> Tensor:
        """(B, V, d) -> (B C, d^2): A of every cell, A[i, j] the derivative of component i along axis j."""
        at = ops.take(velocities, self.cells.ravel(), axis=1)
        at = ops.reshape(at, (-1, self.count, self.ndim + 1, self.ndim))
        slopes = ops.reshape(self.to_weights, (self.count, self.ndim + 1, self.ndim + 1))[:, :, :-1]
        return ops.reshape(ops.einsum("cka,bcki->bcia", slopes, at), (-1, self.ndim**2))


def _smallest(values: list[Tensor]) -> Tensor:
    least = values[0]
    for value in values[1:]:
        least = ops.minimum(least, value)
    return least


def _series(rows: Tensor, start: list[Tensor]) -> list[list[Tensor]]:
    """Coefficients of exp(tK) m: rows (M, n^2) hold K."""
    n = len(start)
    found = [start]
    for k in range(1, TERMS + 1):
        last = found[-1]
        found.append([sum(rows[:, j * n + i] * last[i] for i in range(n)) / k for j in range(n)])
    return found


def _at(series: list[list[Tensor]], time: Tensor) -> list[Tensor]:
    total = series[-1]
    for terms in reversed(series[:-1]):
        total = [value * time + term for value, term in zip(total, terms, strict=True)]
    return total


def _piece(
    rates: Tensor, offset: Tensor, cell: Tensor, weights: list[Tensor], rest: Tensor, longest: Tensor, tables: Tables
) -> tuple[Tensor, Tensor, list[Tensor], list[list[Tensor]]]:
    """Follow each point to the end of its piece of time, or across one facet.

    Returns:
        time spent (M,), cell and weights after it, and the series of the way.
    """
    series = _series(ops.take(rates, offset + cell, axis=0), weights)
    closed = ops.take(tables.closed, cell, axis=0)

    def inside(at: list[Tensor]) -> Tensor:
        return _smallest([value + closed[:, k] for k, value in enumerate(at)]) >= -INSIDE

    cap = ops.minimum(rest, longest)
    low, high, left = ops.zeros_like(cap), cap, ops.zeros_like(cap) > 0
    for k in range(1, CHECKS + 1):
        moment = cap * (k / CHECKS)
        out = ops.logical_and(ops.logical_not(left), ops.logical_not(inside(_at(series, moment))))
        high = ops.where(out, moment, high)
        left = ops.logical_or(left, out)
        low = ops.where(left, low, moment)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        here = inside(_at(series, middle))
        low, high = ops.where(here, middle, low), ops.where(here, high, middle)
    before = _at(series, low)
    after = [value + closed[:, k] for k, value in enumerate(_at(series, high))]
    facet = ops.argmin(ops.stack(after, axis=-1), axis=-1)
    chosen = ops.cast(ops.one_hot(facet, len(weights), dtype=cap.dtype), cap.dtype)
    a = sum(chosen[:, k] * value for k, value in enumerate(before))
    b = sum(chosen[:, k] * value for k, value in enumerate(after))
    share = ops.clip(a / ops.maximum(a - b, 1e-12), 0, 1)
    time = ops.where(left, low + (high - low) * share, cap)
    end = _at(series, time)
    beyond = ops.take(tables.neighbours, cell, axis=0)
    beyond = sum(ops.cast(chosen[:, k], beyond.dtype) * beyond[:, k] for k in range(len(weights)))
    crossed = ops.where(left, ops.cast(beyond, cell.dtype), cell)
    there = tables.weights(crossed, tables.points(cell, end))
    return time, crossed, [ops.where(left, new, old) for new, old in zip(there, end, strict=True)], series


def _flow(velocities: Tensor, points: Tensor, tables: Tables) -> Tensor:
    @ops.custom_gradient
    def call(velocities: Tensor, points: Tensor) -> Any:
        end = _carried(velocities, points, tables)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            return _adjoint(velocities, end, args[0] if upstream is None else upstream, tables)

        return end, gradient

    return call(velocities, points)


def _begin(velocities: Tensor, points: Tensor, tables: Tables) -> tuple[Tensor, ...]:
    """What a loop over pieces needs: K, the items' offsets in it, the pieces' length, cells, weights, time left."""
    rates = tables.rates(velocities)
    flat = ops.reshape(points, (-1, tables.ndim))
    batch = points.shape[0]
    offset = ops.repeat(ops.arange(batch, dtype="int32") * tables.count, points.shape[1])
    norm = ops.max(ops.sum(ops.abs(ops.reshape(rates, (-1, tables.ndim + 1, tables.ndim + 1))), axis=-1))
    longest = 1 / ops.maximum(ops.ceil(norm), 1)
    cell, weights = tables.locate(flat)
    rest = ops.ones_like(weights[0])
    if tables.tessellation.boundary == "fixed":
        rest = ops.where(ops.all(ops.logical_and(flat >= 0, flat <= 1), axis=-1), rest, 0)
    return rates, offset, longest, cell, weights, rest


def _carried(velocities: Tensor, points: Tensor, tables: Tables) -> Tensor:
    rates, offset, longest, cell, weights, rest = _begin(velocities, points, tables)
    outside = rest <= 0

    def going(cell: Tensor, rest: Tensor, *_: Tensor) -> Tensor:
        return ops.any(rest > 0)

    def body(cell: Tensor, rest: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        time, cell, after, _ = _piece(rates, offset, cell, list(weights), rest, longest, tables)
        return cell, _less(rest, time), *after

    cell, rest, *weights = ops.while_loop(going, body, (cell, rest, *weights), maximum_iterations=MOST_PIECES)
    end = ops.reshape(tables.points(cell, list(weights)), points.shape)
    return ops.where(ops.reshape(outside, (*points.shape[:2], 1)), points, end)


def _less(rest: Tensor, time: Tensor) -> Tensor:
    """The time left; what rounding leaves is none."""
    rest = rest - time
    return ops.where(rest > 1e-6, rest, 0)


def _adjoint(velocities: Tensor, end: Tensor, upstream: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
    """Gradients in the vertices' velocities and in the points, from the points' ends back along their ways."""
    ndim = tables.ndim
    rates, offset, longest, cell, weights, rest = _begin(-velocities, end, tables)
    slopes = tables.gradients(velocities)
    transposed = [i * ndim + j for j in range(ndim) for i in range(ndim)]
    slopes = ops.take(slopes, transposed, axis=1)
    moved = ops.reshape(rest, (-1, 1)) > 0
    pull = ops.reshape(upstream, (-1, ndim))
    total = ops.zeros((velocities.shape[0] * tables.count, (ndim + 1) * ndim), end.dtype)

    def going(cell: Tensor, rest: Tensor, *_: Tensor) -> Tensor:
        return ops.any(rest > 0)

    def body(cell: Tensor, rest: Tensor, total: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        weights, pulls = list(state[: ndim + 1]), list(state[ndim + 1 :])
        time, after, moved_to, way = _piece(rates, offset, cell, weights, rest, longest, tables)
        pulled = _series(ops.take(slopes, offset + cell, axis=0), pulls)
        parts = [0.0] * ((ndim + 1) * ndim)
        for node, share in zip(NODES, NODE_WEIGHTS, strict=True):
            m, p = _at(way, time * float(node)), _at(pulled, time * float(node))
            for k in range(ndim + 1):
                weighted = float(share) * time * m[k]
                for a in range(ndim):
                    parts[k * ndim + a] = parts[k * ndim + a] + weighted * p[a]
        found = ops.segment_sum(ops.stack(parts, axis=-1), offset + cell, num_segments=total.shape[0])
        return after, _less(rest, time), total + found, *moved_to, *_at(pulled, time)

    state = (cell, rest, total, *weights, *[pull[:, a] for a in range(ndim)])
    _, _, total, *state = ops.while_loop(going, body, state, maximum_iterations=MOST_PIECES)
    by_cell = ops.reshape(total, (velocities.shape[0], tables.count * (ndim + 1), ndim))
    to_vertex = np.eye(velocities.shape[1])[tables.cells.ravel()].T
    in_velocities = ops.matmul(ops.convert_to_tensor(to_vertex, end.dtype), by_cell)
    in_points = ops.where(moved, ops.stack(state[ndim + 1 :], axis=-1), pull)
    return in_velocities, ops.reshape(in_points, end.shape)
