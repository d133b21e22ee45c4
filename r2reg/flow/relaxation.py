"""The velocity under which a map relaxes: what smooths a displacement, written as a step of the flow itself."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow import backend
from r2reg.flow.jacobian import determinant
from r2reg.flow.smooth import axis_neighbours

Tensor = Any

SMALLEST_DETERMINANT = 0.1  # lest a near-fold makes a leap
SMALLEST_STRETCH = 0.3  # a map that presses three voxels into one is pressed no further
FREE_STRETCH = 0.6  # from here on nothing hinders it
FREE_BEND = 0.4  # voxels, |laplacian u|; linear interpolation errs by a twelfth of it on average
LARGEST_HASTE = 4.0  # at this many times the speed a step of .04 is still a stable one of diffusion (1/6)
LARGEST_SPEED = 3.0  # voxels per unit time; faster places would shorten the step of all others


@backend.accelerate()
def relaxation(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """v = h J^-1 (laplacian u) with J = I + grad u and a haste h of 1 or more.

    phi o (id + t v) = id + u + t h laplacian(u) to first order in t: composing phi with id + t v diffuses its
    displacement, which lowers the integral of |grad u|^2, and yet is a step of the flow. Diffusion makes haste where
    phi compresses, by a factor s < 1, so that a map stops short of folding between the voxels that sample it; and
    where it bends, so that linear interpolation follows it and its inverse,

        h = min((1 + (|laplacian u| / FREE_BEND)^2) / s, LARGEST_HASTE).

    Args:
        displacement: (N, *S, d), voxels; beyond the border the edge value holds.
    Returns:
        (N, *S, d), voxels per unit time, LARGEST_SPEED at most; and (N, *S, 1), the room that is left to compress
        further: 1 down to s = FREE_STRETCH, falling to 0 at SMALLEST_STRETCH.
    """
    ndim = displacement.shape[-1]
    unit = ops.eye(ndim, dtype=displacement.dtype)
    spread: Tensor = 0.0
    columns = []
    for axis in range(ndim):
        before, after = axis_neighbours(displacement, axis)
        spread = spread + (before - 2 * displacement + after)
        columns.append((after - before) / 2 + unit[axis])
    det = determinant(ops.stack(columns, axis=-1))
    stretch = ops.clip(_least_stretch(det, sum(ops.sum(c * c, axis=-1) for c in columns), ndim), SMALLEST_STRETCH, 1.0)
    by_cramer = [
        determinant(ops.stack([spread if k == axis else columns[k] for k in range(ndim)], axis=-1))
        for axis in range(ndim)
    ]
    bend = ops.sum(spread * spread, axis=-1) / FREE_BEND**2
    haste = ops.minimum((1 + bend) / stretch, LARGEST_HASTE)
    speed = haste / ops.maximum(det, SMALLEST_DETERMINANT)
    velocity = ops.stack(by_cramer, axis=-1) * speed[..., None]
    length = ops.sqrt(ops.sum(velocity * velocity, axis=-1, keepdims=True))
    room = ops.minimum((stretch - SMALLEST_STRETCH) / (FREE_STRETCH - SMALLEST_STRETCH), 1.0)
    return velocity * ops.minimum(LARGEST_SPEED / ops.maximum(length, 1e-12), 1.0), room[..., None]


def _least_stretch(det: Tensor, squares: Tensor, ndim: int) -> Tensor:
    """A lower bound of J's smallest singular value, sharp where the others are alike.

    det is the product of the singular values and `squares`, the sum of J's squared entries, that of their squares: the
    largest two have a product of at most half the sum of their squares.
    """
    if ndim == 2:
        return det / ops.sqrt(squares)
    first = 2 * det / squares
    return 2 * det / (squares - first * first)
