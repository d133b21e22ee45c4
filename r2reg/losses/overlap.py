"""Overlap of label maps as a loss."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def soft_dice(fixed: Tensor, moved: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes that either image holds.

    Args:
        fixed, moved: (N, *S, K), one-hot or probabilities.
    """
    axes = tuple(range(1, len(fixed.shape) - 1))
    overlap = ops.sum(fixed * moved, axis=axes)
    total = ops.sum(fixed + moved, axis=axes)
    present = ops.cast(total > 0, total.dtype)
    dice = 2 * overlap / ops.maximum(total, 1e-6)
    return 1 - ops.sum(dice * present) / ops.maximum(ops.sum(present), 1)
