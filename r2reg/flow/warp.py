"""Sampling, warping and composing fields.

Arrays are (N, X, Y[, Z], C). Displacements and coordinates are in voxels, components in array-axis order. Beyond
the grid the edge value holds, so a velocity does not drop to zero at the border.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from r2reg.flow import backend

Tensor = Any


def identity_coordinates(shape: Sequence[int], dtype: str = "float32") -> Tensor:
    """(1, *shape, d): the index of every voxel."""
    axes = [ops.arange(n, dtype=dtype) for n in shape]
    return ops.stack(ops.meshgrid(*axes, indexing="ij"), axis=-1)[None]


def affine_coordinates(matrix: Any, shape: Sequence[int], dtype: str = "float32") -> Tensor:
    """(1, *shape, d): matrix (d+1, d+1) applied to the index of every voxel."""
    matrix = ops.convert_to_tensor(matrix, dtype=dtype)
    return ops.matmul(identity_coordinates(shape, dtype), ops.transpose(matrix[:-1, :-1])) + matrix[:-1, -1]


def sample(values: Tensor, coordinates: Tensor, interpolation: str = "linear") -> Tensor:
    """Values at given places.

    Args:
        values: (N, *S, C).
        coordinates: (N, *O, d), voxels of `values`' grid; N may be 1.
        interpolation: "linear" or "nearest".
    Returns:
        (N, *O, C), of the values' dtype.
    Raises:
        ValueError: another interpolation.
    """
    if interpolation == "nearest":
        return _nearest(values, coordinates)
    if interpolation != "linear":
        raise ValueError(f"interpolation must be linear or nearest. Received: interpolation={interpolation!r}")
    if coordinates.shape[0] == 1 and values.shape[0] != 1:
        coordinates = ops.broadcast_to(coordinates, (ops.shape(values)[0], *coordinates.shape[1:]))
    moved = backend.grid_sample(values, coordinates)
    return _linear_sampler(keras.backend.backend())(values, coordinates) if moved is None else moved


def warp(image: Tensor, displacement: Tensor, interpolation: str = "linear") -> Tensor:
    """moved(x) = image(x + u(x)).

    Args:
        image: (N, *S, C).
        displacement: (N, *S, d), voxels.
    Returns:
        (N, *S, C).
    """
    if interpolation == "linear" and keras.backend.backend() != "torch" and displacement.shape[0] == image.shape[0]:
        return _linear_warper(keras.backend.backend())(image, displacement)
    return sample(image, _places(displacement), interpolation)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The displacement of (id + outer) o (id + inner): u(x) = inner(x) + outer(x + inner(x)).

    Args:
        outer, inner: (N, *S, d), voxels.
    """
    return inner + warp(outer, inner)


def _flat_index(corner: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    flat = corner[0]
    for axis, index in enumerate(corner[1:], start=1):
        flat = flat * shape[axis] + index
    return flat


def _batch_offset(values: Tensor, flat: Tensor) -> Tensor:
    """Adds to each item's voxel numbers the place where its voxels begin in the flattened batch."""
    voxels = functools.reduce(lambda a, b: a * b, values.shape[1:-1])
    starts = ops.arange(ops.shape(values)[0], dtype="int32") * voxels
    return flat + ops.reshape(starts, (-1,) + (1,) * (len(flat.shape) - 1))


def _gather(values: Tensor, flat: Tensor) -> Tensor:
    rows = ops.reshape(values, (-1, values.shape[-1]))
    return ops.take(rows, _batch_offset(values, flat), axis=0)


def _nearest(values: Tensor, coordinates: Tensor) -> Tensor:
    shape = values.shape[1:-1]
    # floor(x + 1/2), as ITK rounds; round-half-even would alternate at voxel faces.
    index = [ops.cast(ops.clip(ops.floor(coordinates[..., a] + 0.5), 0, n - 1), "int32") for a, n in enumerate(shape)]
    return _gather(values, _flat_index(index, shape))


def _cell(coordinates: Tensor, shape: Sequence[int]) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Per axis: lower and upper neighbour, the fraction between them, and 1 where the place is inside."""
    lower, upper, fraction, inside = [], [], [], []
    for axis, n in enumerate(shape):
        x = coordinates[..., axis]
        clipped = ops.clip(x, 0, n - 1)
        low = ops.clip(ops.floor(clipped), 0, max(n - 2, 0))
        lower.append(ops.cast(low, "int32"))
        upper.append(ops.minimum(lower[-1] + 1, n - 1))
        fraction.append(clipped - low)
        inside.append(ops.cast(x == clipped, x.dtype))
    return lower, upper, fraction, inside


def _linear(values: Tensor, coordinates: Tensor) -> Tensor:
    shape = values.shape[1:-1]
    lower, upper, fraction, _ = _cell(coordinates, shape)
    total = 0.0
    for ends in itertools.product((0, 1), repeat=len(shape)):
        corner = [upper[a] if e else lower[a] for a, e in enumerate(ends)]
        weight = functools.reduce(
            lambda a, b: a * b, [fraction[a] if e else 1 - fraction[a] for a, e in enumerate(ends)]
        )
        total = total + ops.cast(weight, values.dtype)[..., None] * _gather(values, _flat_index(corner, shape))
    return total


def _gradient_in_values(values: Tensor, coordinates: Tensor, upstream: Tensor) -> Tensor:
    """The scatter: every sample's upstream, spread over its cell's corners."""
    shape = values.shape[1:-1]
    lower, upper, fraction, _ = _cell(coordinates, shape)
    rows = functools.reduce(lambda a, b: a * b, shape) * ops.shape(values)[0]
    total = 0.0
    for ends in itertools.product((0, 1), repeat=len(shape)):
        corner = [upper[a] if e else lower[a] for a, e in enumerate(ends)]
        weight = functools.reduce(
            lambda a, b: a * b, [fraction[a] if e else 1 - fraction[a] for a, e in enumerate(ends)]
        )
        flat = ops.reshape(_batch_offset(values, _flat_index(corner, shape)), (-1,))
        spread = ops.reshape(ops.cast(weight, upstream.dtype)[..., None] * upstream, (-1, values.shape[-1]))
        total = total + ops.segment_sum(spread, flat, num_segments=rows)
    return ops.reshape(total, ops.shape(values))


def _gradient_in_coordinates(values: Tensor, coordinates: Tensor, upstream: Tensor) -> Tensor:
    """The derivative of linear interpolation: a difference along one axis, linear in the others."""
    shape = values.shape[1:-1]
    lower, upper, fraction, inside = _cell(coordinates, shape)
    parts: list[Tensor] = [0.0] * len(shape)
    for ends in itertools.product((0, 1), repeat=len(shape)):
        corner = [upper[a] if e else lower[a] for a, e in enumerate(ends)]
        projected = ops.sum(upstream * _gather(values, _flat_index(corner, shape)), axis=-1)
        for axis, end in enumerate(ends):
            others = [fraction[a] if e else 1 - fraction[a] for a, e in enumerate(ends) if a != axis]
            weight = functools.reduce(lambda a, b: a * b, others, projected)
            parts[axis] = parts[axis] + (weight if end else -weight)
    return ops.stack([p * i for p, i in zip(parts, inside, strict=True)], axis=-1)


def sample_with_slopes(values: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Linear samples and the derivative of the interpolant there: (N, *O, C) and (N, *O, C, d).

    The derivative is that of the cell the place lies in, and 0 along axes on which the place is beyond the border.
    """
    shape = values.shape[1:-1]
    lower, upper, fraction, inside = _cell(coordinates, shape)
    total: Tensor = 0.0
    slopes: list[Tensor] = [0.0] * len(shape)
    for ends in itertools.product((0, 1), repeat=len(shape)):
        corner = _gather(values, _flat_index([upper[a] if e else lower[a] for a, e in enumerate(ends)], shape))
        shares = [fraction[a] if e else 1 - fraction[a] for a, e in enumerate(ends)]
        total = total + functools.reduce(lambda a, b: a * b, shares)[..., None] * corner
        for axis, end in enumerate(ends):
            others = [share for a, share in enumerate(shares) if a != axis]
            part = functools.reduce(lambda a, b: a * b, others)[..., None] * corner
            slopes[axis] = slopes[axis] + (part if end else -part)
    return total, ops.stack([s * i[..., None] for s, i in zip(slopes, inside, strict=True)], axis=-1)


def _places(displacement: Tensor) -> Tensor:
    """x + u(x) in voxels. Each axis by itself: XLA would fold a grid of all indices into a constant, for minutes."""
    ndim = displacement.shape[-1]
    parts = []
    for axis, n in enumerate(displacement.shape[1:-1]):
        index = ops.reshape(ops.arange(n, dtype=displacement.dtype), [1, *(n if a == axis else 1 for a in range(ndim))])
        parts.append(displacement[..., axis] + index)
    return ops.stack(parts, axis=-1)


@functools.cache
def _linear_warper(_backend: str) -> Any:
    forward = backend.accelerate()(lambda image, displacement: _linear(image, _places(displacement)))
    return backend.custom_gradient(
        forward,
        [
            lambda image, displacement, upstream: _gradient_in_values(image, _places(displacement), upstream),
            backend.accelerate()(
                lambda image, displacement, upstream: _gradient_in_coordinates(image, _places(displacement), upstream)
            ),
        ],
    )


@functools.cache
def _linear_sampler(_backend: str) -> Any:
    forward = backend.accelerate()(_linear)
    return backend.custom_gradient(
        forward,
        [_gradient_in_values, backend.accelerate()(_gradient_in_coordinates)],
    )
