"""Distance between the surfaces of labels, in mm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from r2reg.metrics.overlap import check_same_shape
from r2reg.threads import in_threads

Box = tuple[slice, ...]


def hd95_mm(
    fixed_labels: np.ndarray,
    moved_labels: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    labels: Iterable[int] | None = None,
) -> dict[str, Any]:
    """95th percentile Hausdorff distance per label.

    The surface of a label is its voxels with a face on another label or on the border of the image. The
    distance is the larger of the two directed 95th percentiles of the distances from one surface to the
    nearest voxel of the other.

    Args:
        fixed_labels, moved_labels: (X, Y[, Z]) integers on one grid; 0 is background.
        spacing: (d,) mm along each array axis.
        labels: those to score; default: all but 0.
    Returns:
        {"mean": mm, "per_label": {str(label): mm}}. A label that only one image holds has no distance: its
            value is None (null in JSON) and the mean leaves it out; one that neither holds is absent. The
            mean is None where no label has a distance.
    Raises:
        ImageError: different shapes.
    """
    check_same_shape(fixed_labels, moved_labels)
    fixed, moved = _boxes(fixed_labels), _boxes(moved_labels)
    wanted = fixed.keys() | moved.keys()
    if labels is not None:
        wanted &= set(labels)
    ids = sorted(wanted)

    def score(label: int) -> float | None:
        if label not in fixed or label not in moved:
            return None
        box = _union(fixed[label], moved[label])
        return hausdorff(fixed_labels[box] == label, moved_labels[box] == label, spacing)

    scores = {str(label): found for label, found in zip(ids, in_threads(score, ids), strict=True)}
    known = [score for score in scores.values() if score is not None]
    return {"mean": float(np.mean(known)) if known else None, "per_label": scores}


def hausdorff(a: np.ndarray, b: np.ndarray, spacing: Sequence[float] | np.ndarray, percentile: float = 95) -> float:
    """Larger of the two directed percentiles of the surface distances of two non-empty masks, mm.

    Args:
        a, b: (X, Y[, Z]) bool, one grid.
        spacing: (d,) mm along each array axis.
        percentile: 100 gives the Hausdorff distance.
    """
    from scipy.spatial import KDTree

    surfaces = _surface(a), _surface(b)

    def directed(asking: np.ndarray, others: np.ndarray) -> float:
        # Most of two surfaces that fit is common to both, at distance 0.
        found = np.zeros(np.count_nonzero(asking))
        alone, points = (np.argwhere(mask) * np.asarray(spacing) for mask in (asking & ~others, others))
        found[: len(alone)] = KDTree(points, balanced_tree=False).query(alone)[0]
        return float(np.percentile(found, percentile))

    return max(directed(*surfaces), directed(*surfaces[::-1]))


def _surface(mask: np.ndarray) -> np.ndarray:
    """A mask's voxels that have a face on the background; outside of the array is background."""
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(mask.ndim):
        # The roll wraps around only at the border, which is empty.
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return (padded & ~inner)[(slice(1, -1),) * mask.ndim]


def _boxes(labels: np.ndarray) -> dict[int, Box]:
    """Label -> bounding box, without the background."""
    from scipy.ndimage import find_objects

    values = np.unique(labels)
    # Labels may be large or negative; `find_objects` wants 1..n.
    ranks = np.searchsorted(values, labels).astype(np.int32) + 1
    boxes = find_objects(ranks, max_label=len(values))
    return {int(v): box for v, box in zip(values, boxes, strict=True) if v != 0 and box is not None}


def _union(a: Box, b: Box) -> Box:
    return tuple(slice(min(i.start, j.start), max(i.stop, j.stop)) for i, j in zip(a, b, strict=True))
