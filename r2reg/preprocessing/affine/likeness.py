"""How much one image tells of the other under many affines at once: what starts are ranked by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r2reg.geometry.grid import Array
from r2reg.preprocessing.affine.pyramid import Level, Working

SAMPLES = 2_000
MOST_BINS, FEWEST_BINS = 16, 4  # of grey values
SAMPLES_PER_CELL = 8  # of the joint histogram, at least; with fewer chance passes for information
AT_ONCE = 64  # affines; their samples and histograms stay in the processor's cache
CONTENT = 0.05  # of the intensity range, above which a voxel is no background
CONTENT_MARGIN = 0.1  # of the content's extent, left around it: its outline is half of what is known


def likeness(level: Level, matrices: Sequence[Array]) -> Array:
    """What fixed and moving tell of each other under each affine, with moving's nearest voxels.

    The mutual information of what lies in both views and masks, times the share of fixed's samples that do, times
    the root of the affine's volume change. So a cut view is no lie about what lies beyond it, as filling it with 0
    would be, and neither sliding the images apart until a sliver overlaps nor shrinking fixed into what is left of
    moving pays: the volume compared is the geometric mean of what it is in fixed and in moving.

    Args:
        level: the pair.
        matrices: (d+1, d+1) each, RAS mm, fixed -> moving points.
    Returns:
        (len(matrices),) nats per sample of fixed; 0 without overlap.
    """
    flat = content(level.fixed)
    # A stride would alias with the rows; a fixed seed repeats.
    if flat.size > SAMPLES:
        flat = np.sort(np.random.default_rng(0).choice(flat, SAMPLES, replace=False))
    bins = int(np.clip(np.sqrt(flat.size / SAMPLES_PER_CELL), FEWEST_BINS, MOST_BINS))
    index = np.stack(np.unravel_index(flat, level.fixed.array.shape)).astype(np.float32)  # (d, n)
    rows = _binned(level.fixed.array.ravel()[flat], bins) * (bins + 1)
    outside = _outside_as_a_bin(level.moving, bins)
    to_index = np.linalg.inv(level.moving.grid.affine)
    values = np.zeros(len(matrices))
    for start in range(0, len(matrices), AT_ONCE):
        block = np.stack(matrices[start : start + AT_ONCE])
        maps = (to_index @ block @ level.fixed.grid.affine).astype(np.float32)
        cells = rows + _nearest(outside, maps[:, :-1, :-1] @ index + maps[:, :-1, -1:])
        cells += np.arange(len(block))[:, None] * bins * (bins + 1)
        joint = np.bincount(cells.ravel(), minlength=len(block) * bins * (bins + 1))
        volumes = np.abs(np.linalg.det(block[:, :-1, :-1]))
        values[start : start + AT_ONCE] = np.sqrt(volumes) * _shared(joint.reshape(-1, bins, bins + 1)[..., :-1])
    return values / flat.size


def _outside_as_a_bin(moving: Working, bins: int) -> np.ndarray:
    """(X+2, Y+2[, Z+2]) bins of moving; `bins` around the view and outside the mask."""
    binned = _binned(moving.array, bins)
    return np.pad(binned if moving.mask is None else np.where(moving.mask, binned, bins), 1, constant_values=bins)


def _nearest(volume: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(m, n) values at (m, d, n) indices of what the volume was before one voxel was put around it."""
    found = np.zeros((len(index), index.shape[-1]), dtype=np.intp)
    for axis, length in enumerate(volume.shape):
        found = found * length + np.clip(index[:, axis] + 1.5, 0, length - 1).astype(np.intp)
    return np.take(volume, found)


def _shared(joint: np.ndarray) -> Array:
    """(m,) mutual information in nats times the number of samples, of (m, a, b) counts."""
    counts = joint.astype(np.float64)
    totals = [counts, counts.sum(axis=1), counts.sum(axis=2), counts.sum(axis=(1, 2))]
    both, first, second, all_ = ((c * np.log(np.maximum(c, 1))).reshape(len(joint), -1).sum(axis=1) for c in totals)
    return both + all_ - first - second


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((values * bins).astype(np.intp), bins - 1)


def content(image: Working) -> np.ndarray:
    """Flat indices of the mask, or of a box around what is no background: far from it nothing is to be learnt."""
    if image.mask is not None:
        return np.flatnonzero(image.mask)
    bright = image.array > CONTENT
    box = np.zeros(image.array.shape, dtype=bool)
    ends = []
    for axis, length in enumerate(image.array.shape):
        found = np.flatnonzero(bright.any(axis=tuple(k for k in range(bright.ndim) if k != axis)))
        first, last = (int(found[0]), int(found[-1])) if found.size else (0, length - 1)
        margin = int(np.ceil(CONTENT_MARGIN * (last - first)))
        ends.append(slice(max(first - margin, 0), last + margin + 1))
    box[tuple(ends)] = True
    return np.flatnonzero(box)
