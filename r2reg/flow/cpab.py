"""The flow of a continuous, piecewise affine velocity (CPAB; Freifeld et al. 2017, Detlefsen et al. 2018).

Within a cell a point's barycentric weights m obey dm/dt = K m with one matrix K, so they are m(t) = exp(tK) m(0), here
as a power series over pieces of time in which few terms are exact. A point is followed from cell to cell: to the end of
its piece of time, or to the moment when a weight becomes 0 and it crosses a facet. The velocity is continuous there, so
a crossing noticed late by s costs an error of the order of s^2. The flow of -v is the inverse.

The gradient is the adjoint's: d lambda/dt = -A^T lambda, followed back along the way with the points, so that no
state of the way is kept; what a vertex's velocity contributes is the integral of its weight times lambda.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow import backend
from r2reg.flow.tessellation import Tessellation

Tensor = Any
PIECE = 0.5  # the most |K| t of a piece
TERMS = 7  # of the power series: exact to PIECE^8 / 8!, 1e-7
NODES, SHARES = (0.5 * (np.polynomial.legendre.leggauss(3)[0] + 1), 0.5 * np.polynomial.legendre.leggauss(3)[1])
INSIDE = 3e-6  # a weight above minus this is inside: what slides along a facet stays where it is
LEAST = 5e-4  # time spent in a cell: what turns about a corner comes on
MOST_PIECES = 4000
CHUNK = 1024  # points followed together: they stay in the processor's cache, and wait for each other only
BLOCK = 8 * CHUNK  # points of a call: what is compiled for one image serves for those of other sizes


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
        points: (B, N, d), shares of the box. One outside goes along with the nearest point of the lattice: it rests,
            where the boundary is fixed. One that leaves the lattice keeps its last velocity.
    Returns:
        (B, N, d).
    Raises:
        ConfigError: another number of parameters.
    """
    velocities = vertex_velocities(theta, tessellation)

    @ops.custom_gradient
    def call(velocities: Tensor, points: Tensor) -> Any:
        # Without stop_gradient TensorFlow would keep every step of the way for a gradient of its own.
        velocities, points = ops.stop_gradient(velocities), ops.stop_gradient(points)
        count = points.shape[1]
        ends = [_carried(velocities, block, tessellation=tessellation) for block in _blocks(points)]
        end = _joined(ends, count)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            pull = args[0] if upstream is None else upstream
            # What fills the last block up pulls at nothing.
            pairs = zip(ends, _blocks(pull, filled=False), strict=True)
            found = [_adjoint(velocities, *pair, tessellation=tessellation) for pair in pairs]
            return sum(in_velocities for in_velocities, _ in found), _joined([pulled for _, pulled in found], count)

        return end, gradient

    return call(velocities, points)


@dataclass(frozen=True)
class Cell:
    """What is known of the cells in which M points are: arrays with the points along the last axis.

    Attributes:
        rates: (d + 1, d + 1, M), K. to_weights: (d + 1, d + 1, M), from (x, 1) to m. corners: (d + 1, d, M).
        neighbours: (d + 1, M), numbers of cells, -1 where the lattice ends. longest: (M,), a piece's time.
        slopes: (d, d, M), A of the velocity whose flow is followed.
    """

    rates: Tensor
    to_weights: Tensor
    corners: Tensor
    neighbours: Tensor
    longest: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, table: Tensor, cell: Tensor, ndim: int) -> Cell:
        """Look the rows (C, columns) of `_table` up."""
        rows = ops.transpose(ops.take(table, cell, axis=0))
        n = ndim + 1
        found, begin = [], 0
        for shape in ((n, n), (n, n), (n, ndim), (n,), (), (ndim, ndim)):
            end = begin + math.prod(shape)
            found.append(ops.reshape(rows[begin:end], (*shape, -1)))
            begin = end
        return cls(*found)

    def weights(self, x: Tensor) -> Tensor:
        """(d, M) places -> (d + 1, M)."""
        return _times(self.to_weights[:, :-1], x) + self.to_weights[:, -1]

    def places(self, m: Tensor) -> Tensor:
        """(d + 1, M) weights -> (d, M)."""
        return ops.sum(self.corners * m[:, None], axis=0)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(i, j, M) times (j, M) -> (i, M)."""
    return ops.sum(matrix * vector[None], axis=1)


def _table(velocities: Tensor, t: Tessellation) -> Tensor:
    """(B, V, d) -> (B, C, columns), what `Cell` holds of every cell."""
    dtype, count, n = velocities.dtype, len(t.cells), t.ndim + 1
    at = ops.reshape(ops.take(velocities, t.cells.ravel(), axis=1), (-1, count, n, t.ndim))
    slopes = ops.convert_to_tensor(t.to_weights[:, :, :-1], dtype)
    rates = ops.einsum("cja,bcka->bcjk", slopes, at)
    norm = ops.max(ops.sum(ops.abs(rates), axis=-1), axis=-1)
    fixed = [t.to_weights.reshape(count, -1), t.corners[t.cells].reshape(count, -1), t.neighbours]
    constant = ops.convert_to_tensor(np.concatenate(fixed, axis=1), dtype)
    longest = (PIECE / ops.maximum(norm, PIECE))[..., None]
    parts = [
        ops.reshape(rates, (-1, count, n * n)),
        constant[None] + ops.zeros_like(longest),
        longest,
        ops.reshape(ops.einsum("cka,bcki->bcia", slopes, at), (-1, count, t.ndim * t.ndim)),
    ]
    return ops.concatenate(parts, axis=-1)


def _locate(x: Tensor, t: Tessellation) -> Tensor:
    """The cell (M,) of places (d, M): the box, and in it the simplex whose smallest weight is largest."""
    dtype = x.dtype
    scaled = (x - ops.convert_to_tensor(t.low[:, None], dtype)) / ops.convert_to_tensor(t.size[:, None], dtype)
    box = ops.clip(ops.floor(scaled), 0, ops.convert_to_tensor(np.array(t.boxes)[:, None] - 1, dtype))
    strides = [float(np.prod(t.boxes[a + 1 :])) for a in range(t.ndim)]
    number = ops.cast(sum(box[a] * strides[a] for a in range(t.ndim)), "int32")
    within = scaled - box
    # The boxes are alike: the weights of the first one's simplices hold for all.
    own = ops.convert_to_tensor(t.unit_weights, dtype)
    least = [ops.min(ops.matmul(own[k, :, :-1], within) + own[k, :, -1:], axis=0) for k in range(t.per_box)]
    return number * t.per_box + ops.cast(ops.argmax(ops.stack(least), axis=0), "int32")


def _series(matrix: Tensor, start: Tensor) -> list[Tensor]:
    """Coefficients of exp(tK) start."""
    found = [start]
    for k in range(1, TERMS + 1):
        found.append(_times(matrix, found[-1]) / k)
    return found


def _at(series: list[Tensor], time: Tensor) -> Tensor:
    total = series[-1]
    for terms in reversed(series[:-1]):
        total = total * time + terms
    return total


def _crossing(way: list[Tensor], cap: Tensor) -> tuple[Tensor, Tensor]:
    """When points first leave their cell, (M,), more than `cap` if they do not, and through the facet opposite to which
    vertex."""
    speeds = [k * terms for k, terms in enumerate(way)][1:]
    begin, end = speeds[0], _at(speeds, cap)
    dips = ops.logical_and(begin < 0, end > 0)
    turn = ops.where(dips, cap * begin / ops.where(dips, begin - end, -1), cap)  # where a weight is least
    out = ops.minimum(_at(way, turn), _at(way, cap)) < -INSIDE
    # The first root of the series' first three terms, and one step of Newton's.
    start, bend = ops.maximum(way[0], 0), way[2]
    root = ops.sqrt(ops.maximum(begin * begin - 4 * bend * start, 0)) - begin
    time = ops.clip(2 * start / ops.maximum(root, 1e-12), 0, turn)
    slope = _at(speeds, time)
    time = ops.where(slope < 0, ops.clip(time - _at(way, time) / ops.minimum(slope, -1e-12), 0, turn), time)
    time = ops.where(out, time, 2)
    return ops.min(time, axis=0), ops.argmin(time, axis=0)


def _piece(table: Tensor, number: Tensor, x: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
    """Follow places x (d, M) to the end of their piece of time, or across one facet.

    Returns:
        time spent in the cell; time spent beyond the lattice after it, with the velocity at its end; time left; the
        next cell's number; the place; the cell, the weights' series on the way through it, and the weights at its end.
    """
    ndim = x.shape[0]
    cell = Cell.of(table, number, ndim)
    way = _series(cell.rates, cell.weights(x))
    cap = ops.minimum(rest, cell.longest)
    first, facet = _crossing(way, cap)
    crosses = first <= cap
    time = ops.where(crosses, ops.minimum(ops.maximum(first, LEAST), cap), cap)
    m = _at(way, time)
    there = x + cell.places(m - way[0])
    chosen = ops.cast(ops.arange(ndim + 1)[:, None] == ops.cast(facet, "int32")[None], x.dtype)
    beyond = ops.sum(chosen * cell.neighbours, axis=0)
    ends = ops.logical_and(crosses, beyond < 0)
    coasts = ops.where(ends, rest - time, 0)
    there = there + coasts * cell.places(_times(cell.rates, m))
    left = rest - time
    left = ops.where(ops.logical_or(ends, left < 1e-6), 0, left)
    after = ops.where(ops.logical_and(crosses, beyond >= 0), ops.cast(beyond, number.dtype), number)
    return time, coasts, left, after, there, cell, way, m


def _blocks(points: Tensor, filled: bool = True) -> list[Tensor]:
    """(B, N, d) in parts of BLOCK points; the last one is filled up with the first point, or else with zeros."""
    items, count, _ = points.shape
    if not backend.compiles() or count <= (CHUNK if items == 1 else BLOCK):
        return [points]
    short = -count % BLOCK
    rest = ops.broadcast_to(points[:, :1], (*ops.shape(points)[:1], short, points.shape[2]))
    points = ops.concatenate([points, rest if filled else ops.zeros_like(rest)], axis=1)
    return [points[:, begin : begin + BLOCK] for begin in range(0, count, BLOCK)]


def _joined(blocks: list[Tensor], count: int) -> Tensor:
    """Undo `_blocks`."""
    return ops.concatenate(blocks, axis=1)[:, :count]


def _chunks(points: Tensor) -> tuple[Tensor, int]:
    """(B, N, d) -> (B n, d, M) and n; the last chunk is filled up with first points."""
    _, count, ndim = points.shape
    size = min(CHUNK, count) if backend.compiles() else count
    parts = -(-count // size)
    filled = ops.concatenate([points, points[:, : parts * size - count]], axis=1) if parts * size > count else points
    return ops.transpose(ops.reshape(filled, (-1, size, ndim)), (0, 2, 1)), parts


def _items(points: Tensor, parts: int) -> Tensor:
    """(B n,): which item of the batch each chunk is of."""
    return ops.repeat(ops.arange(ops.shape(points)[0], dtype="int32"), parts)


def _unchunked(chunks: Tensor, parts: int, count: int) -> Tensor:
    """Undo `_chunks`."""
    _, ndim, size = chunks.shape
    return ops.reshape(ops.transpose(chunks, (0, 2, 1)), (-1, parts * size, ndim))[:, :count]


def _clipped(x: Tensor, t: Tessellation) -> Tensor:
    """Places (d, M), those outside of the lattice on its surface."""
    bounds = (t.low, t.low + t.size * np.array(t.boxes))
    return ops.clip(x, *(ops.convert_to_tensor(bound[:, None], x.dtype) for bound in bounds))


@backend.accelerate("tessellation")
def _carried(velocities: Tensor, points: Tensor, *, tessellation: Tessellation) -> Tensor:
    t = tessellation
    table = _table(velocities, t)
    chunks, parts = _chunks(points)

    def follow(item: Tensor, begin: Tensor) -> Tensor:
        own = table[item]
        x = _clipped(begin, t)

        def going(number: Tensor, x: Tensor, rest: Tensor) -> Tensor:
            return ops.any(rest > 0)

        def body(number: Tensor, x: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
            _, _, rest, number, x, *_ = _piece(own, number, x, rest)
            return number, x, rest

        state = (_locate(x, t), x, ops.ones_like(x[0]))
        _, end, _ = ops.while_loop(going, body, state, maximum_iterations=MOST_PIECES)
        return end + (begin - x)

    items = _items(points, parts)
    ends = ops.map(lambda pair: follow(*pair), (items, chunks))
    return _unchunked(ends, parts, points.shape[1])


@backend.accelerate("tessellation")
def _adjoint(velocities: Tensor, end: Tensor, pull: Tensor, *, tessellation: Tessellation) -> tuple[Tensor, Tensor]:
    """Gradients in the vertices' velocities and in the points, from the points' ends back along their ways."""
    t, ndim = tessellation, tessellation.ndim
    table = _table(-velocities, t)
    chunks, parts = _chunks(end)
    pulls, _ = _chunks(pull)
    # What fills the last chunk up pulls at nothing.
    size = chunks.shape[-1]
    real = ops.cast(ops.arange(parts * size) < end.shape[1], end.dtype)
    pulls = ops.reshape(pulls, (-1, parts, ndim, size)) * ops.reshape(real, (parts, 1, size))
    pulls = ops.reshape(pulls, (-1, ndim, size))

    def follow(item: Tensor, begin: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        own = table[item]
        x = _clipped(begin, t)

        def going(number: Tensor, x: Tensor, rest: Tensor, pull: Tensor, total: Tensor) -> Tensor:
            return ops.any(rest > 0)

        def body(number: Tensor, x: Tensor, rest: Tensor, pull: Tensor, total: Tensor) -> tuple[Tensor, ...]:
            time, coasts, rest, after, x, cell, way, m = _piece(own, number, x, rest)
            pulled = _series(-ops.transpose(cell.slopes, (1, 0, 2)), pull)
            there = _at(pulled, time)
            found = coasts * m[:, None] * there[None]
            for node, share in zip(NODES, SHARES, strict=True):
                moment = time * float(node)
                found = found + float(share) * time * _at(way, moment)[:, None] * _at(pulled, moment)[None]
            found = ops.transpose(ops.reshape(found, ((ndim + 1) * ndim, -1)))
            return after, x, rest, there, total + ops.segment_sum(found, number, num_segments=len(t.cells))

        total = ops.zeros((len(t.cells), (ndim + 1) * ndim), end.dtype)
        state = (_locate(x, t), x, ops.ones_like(x[0]), pull, total)
        *_, pull, total = ops.while_loop(going, body, state, maximum_iterations=MOST_PIECES)
        return pull, total

    items = _items(end, parts)
    pulled, totals = ops.map(lambda three: follow(*three), (items, chunks, pulls))
    by_cell = ops.reshape(totals, (-1, parts, len(t.cells) * (ndim + 1), ndim))
    to_vertex = np.eye(velocities.shape[1])[t.cells.ravel()].T
    in_velocities = ops.matmul(ops.convert_to_tensor(to_vertex, end.dtype), ops.sum(by_cell, axis=1))
    return in_velocities, _unchunked(pulled, parts, end.shape[1])
