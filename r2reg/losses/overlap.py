"""Overlap of label maps as a loss."""

from __future__ import annotations

from typing import Any

from keras import ops

from r2reg.flow import backend

Tensor = Any


def soft_dice(fixed: Tensor, moved: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes that either image holds.

    Args:
        fixed, moved: (N, *S, K), one-hot or probabilities.
    """
    axes = tuple(range(1, len(fixed.shape) - 1))
    overlap = ops.sum(fixed * moved, axis=axes)
    total = ops.sum(fixed + moved, axis=axes)
    return _mean_unlikeness(_dice(overlap, total), total > 0)


def dice_slope(fixed: Tensor, moved: Tensor, weight: Tensor | None, weight_sum: Tensor) -> tuple[Tensor, Tensor]:
    """1 - mean soft Dice over fixed's classes within the weights, and its derivative in moved times their sum.

    With D = 2 sum(w f m) / T, T = sum(w (f + m)), a class's derivative is (w / T) (2 f - D).

    Args:
        fixed, moved: (1, *S, K). weight: (1, *S, 1) or None. weight_sum: scalar.
    """
    # Planes first: float32 loses ones in sums of millions.
    overlap, of_fixed, of_moved = (ops.sum(planes, axis=0) for planes in _plane_sums(fixed, moved, weight))
    total = of_fixed + of_moved
    dice, present = _dice(overlap, total), ops.cast(of_fixed > 0, total.dtype)
    scale = -weight_sum * present / (ops.maximum(ops.sum(present), 1) * ops.maximum(total, 1e-6))
    return _mean_unlikeness(dice, of_fixed > 0), _pull(fixed, weight, scale, dice)


@backend.accelerate()
def _plane_sums(fixed: Tensor, moved: Tensor, weight: Tensor | None) -> tuple[Tensor, ...]:
    """The sums of w f m, w f and w m over each plane, (X, K)."""
    weight = 1.0 if weight is None else weight
    axes = (0, *range(2, len(fixed.shape) - 1))
    return tuple(ops.sum(weight * values, axis=axes) for values in (fixed * moved, fixed, moved))


@backend.accelerate()
def _pull(fixed: Tensor, weight: Tensor | None, scale: Tensor, dice: Tensor) -> Tensor:
    pull = scale * (2 * fixed - dice)
    return pull if weight is None else weight * pull


def _dice(overlap: Tensor, total: Tensor) -> Tensor:
    return 2 * overlap / ops.maximum(total, 1e-6)


def _mean_unlikeness(dice: Tensor, present: Tensor) -> Tensor:
    present = ops.cast(present, dice.dtype)
    return 1 - ops.sum(dice * present) / ops.maximum(ops.sum(present), 1)
