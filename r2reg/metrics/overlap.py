"""Dice overlap of label maps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from r2reg.errors import ImageError

LARGEST_TALLIED = 1 << 16  # labels up to here are counted without sorting the image, in a fifth of the time


def label_counts(labels: np.ndarray) -> dict[int, int]:
    """Label -> number of voxels, background (0) left out, labels ascending."""
    if labels.size and labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() <= LARGEST_TALLIED:
        tally = np.bincount(labels.ravel(order="K"))
        values = np.flatnonzero(tally)
        counts = tally[values]
    else:
        values, counts = np.unique(labels, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != 0}


def check_same_shape(fixed: np.ndarray, moved: np.ndarray) -> None:
    """Raise ImageError unless both arrays have one shape."""
    if fixed.shape != moved.shape:
        raise ImageError(
            f"fixed and moved have shapes {fixed.shape} and {moved.shape}; resample one to the other's grid"
        )


def dice(fixed_labels: np.ndarray, moved_labels: np.ndarray, labels: Iterable[int] | None = None) -> dict[str, Any]:
    """Dice coefficient 2 |A and B| / (|A| + |B|) per label.

    Args:
        fixed_labels, moved_labels: (X, Y[, Z]) integers on one grid; 0 is background.
        labels: those to score; default: all but 0. A label that neither image holds is left out; one that
            only one image holds scores 0.
    Returns:
        {"mean": float or None where there is no label at all, "per_label": {str(label): float}}.
    Raises:
        ImageError: different shapes.
    """
    check_same_shape(fixed_labels, moved_labels)
    fixed, moved = label_counts(fixed_labels), label_counts(moved_labels)
    both = label_counts(fixed_labels[fixed_labels == moved_labels])
    wanted = fixed.keys() | moved.keys()
    if labels is not None:
        wanted &= set(labels)
    scores = {
        str(label): 2 * both.get(label, 0) / (fixed.get(label, 0) + moved.get(label, 0)) for label in sorted(wanted)
    }
    return {"mean": float(np.mean(list(scores.values()))) if scores else None, "per_label": scores}
