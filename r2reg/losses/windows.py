"""Sums over each voxel's window, and their transpose: sums over the windows that hold a voxel.

Each axis is compiled by itself: inside one XLA function the sums along three axes become one of (2 radius + 1)^3
terms, slow to compile from radius 2 and slow to run from radius 3. One axis is bound by memory, whatever its radius.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow import backend

Tensor = Any


def hold_edges(field: Tensor, radius: int) -> Tensor:
    """(N, *S, C) -> (N, *(S + 2 radius), C), the edge value held beyond the border."""
    for axis in _spatial(field):
        n = field.shape[axis]
        first, last = _part(field, axis, 0, 1), _part(field, axis, n - 1, n)
        field = ops.concatenate([first] * radius + [field] + [last] * radius, axis=axis)
    return field


def window_sums(padded: Tensor, radius: int) -> Tensor:
    """Sum over every window of 2 radius + 1 voxels along each axis that lies inside: (N, *(S - 2 radius), C)."""
    for axis in _spatial(padded):
        padded = _slide(padded, axis=axis, radius=radius)
    return padded


def fold_edges(padded: Tensor, radius: int) -> Tensor:
    """The transpose of hold_edges: what stands beyond the border is added to the edge, (N, *(S - 2 radius), C)."""
    for axis in _spatial(padded):
        padded = _fold(padded, axis=axis, radius=radius)
    return padded


def window_count(field: Tensor, radius: int) -> float:
    """Voxels of a window."""
    return float((2 * radius + 1) ** (len(field.shape) - 2))


def zero_margin(field: Tensor, margin: int) -> Tensor:
    """(N, *S, C) -> (N, *(S + 2 margin), C), zeros around."""
    return ops.pad(field, [(0, 0), *[(margin, margin) for _ in _spatial(field)], (0, 0)])


def shifted(padded: Tensor, axis: int, step: int) -> Tensor:
    """A field with a margin of one voxel, `step` (-1, 0, 1) voxels further along an axis: (N, *(S - 2), C)."""
    return padded[
        (slice(None), *[slice(1 + step, n - 1 + step) if a == axis else slice(1, n - 1) for a, n in _extents(padded)])
    ]


@backend.accelerate("axis", "radius")
def _slide(field: Tensor, *, axis: int, radius: int) -> Tensor:
    n = field.shape[axis] - 2 * radius
    total = _part(field, axis, 0, n)
    for shift in range(1, 2 * radius + 1):
        total = total + _part(field, axis, shift, shift + n)
    return total


@backend.accelerate("axis", "radius")
def _fold(field: Tensor, *, axis: int, radius: int) -> Tensor:
    n = field.shape[axis] - 2 * radius
    first = ops.sum(_part(field, axis, 0, radius + 1), axis=axis, keepdims=True)
    last = ops.sum(_part(field, axis, n + radius - 1, n + 2 * radius), axis=axis, keepdims=True)
    if n == 1:
        return first + last - _part(field, axis, radius, radius + 1)
    return ops.concatenate([first, _part(field, axis, radius + 1, n + radius - 1), last], axis=axis)


def _spatial(field: Tensor) -> range:
    return range(1, len(field.shape) - 1)


def _extents(field: Tensor) -> list[tuple[int, int]]:
    return [(axis, field.shape[axis]) for axis in _spatial(field)]


def _part(field: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return field[tuple([slice(None)] * axis + [slice(start, stop)])]
