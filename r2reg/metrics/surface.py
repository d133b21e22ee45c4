"""Distance between the surfaces of labels, in mm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from r2reg.metrics.overlap import check_same_shape

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
    scores: dict[str, float | None] = {}
    for label in sorted(wanted):
        scores[str(label)] = None
        if label in fixed and label in moved:
            box = _union(fixed[label], moved[label])
            scores[str(label)] = hausdorff(fixed_labels[box] == label, moved_labels[box] == label, spacing)
    known = [score for score in scores.values() if score is not None]
    return {"mean": float(np.mean(known)) if known else None, "per_label": scores}


def hausdorff(a: np.ndarray, b: np.ndarray, spacing: Sequence[float] | np.ndarray, percentile: float = 95) -> float:
    """Larger of the two directed percentiles of the surface distances of two non-empty masks, mm.

    Args:
        a, b: (X, Y[, Z]) bool, one grid.
        spacing: (d,) mm along each array axis.
        percentile: 100 gives the Hausdorff distance.
    """
    # One voxel of background around: a label at the image's border has its surface there.
    surfaces = [_surface(np.pad(mask, 1)) for mask in (a, b)]
    maps = [_distance(surface, spacing) for surface in surfaces]
    directed = (maps[1][surfaces[0]], maps[0][surfaces[1]])
    return float(max(np.percentile(distances, percentile) for distances in directed))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask, empty at the array's border, that have a face on the background."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        # The roll wraps around only at the border, which is empty.
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return mask & ~inner


def _distance(surface: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distance in mm of each voxel's centre from the nearest surface voxel's centre."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(surface.astype(np.uint8))
    image.SetSpacing([float(s) for s in reversed(tuple(spacing))])
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    # A surface voxel between others of the surface alone would count as inside: its distance is 0, too.
    return np.maximum(sitk.GetArrayFromImage(distance), 0)


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
