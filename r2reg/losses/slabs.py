"""A similarity's derivative, slab by slab along the first axis: the memory of a slab instead of that of the volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras import ops

Tensor = Any

SLAB_VOXELS = (
    7 << 20
)  # a brain at 1 mm (160 x 192 x 224) is one slab; larger blocks are mapped anew by malloc each time


def in_slabs(
    function: Callable[..., tuple[Tensor, Tensor]],
    arrays: Sequence[Tensor | None],
    reach: int,
) -> tuple[Tensor, Tensor]:
    """Apply a function to slabs of some arrays and put its results together.

    Args:
        function: arrays of equal shape -> (sums over each plane, derivative).
        arrays: (1, X, ...) or None, the same X and S.
        reach: how many planes away a value still changes a voxel's unlikeness. A slab needs twice as many planes
            beyond its ends, for the windows that hold its own voxels to be those of the whole volume.
    Returns:
        Sum over all planes, and the derivative (1, X, ...).
    """
    shape = next(a for a in arrays if a is not None).shape[1:-1]
    total: Tensor = 0.0
    parts = []
    for low, high, first, last in _slabs(shape[0], math.prod(shape), 2 * reach):
        whole = high - low == shape[0]
        planes, part = function(*(a if a is None or whole else a[:, low:high] for a in arrays))
        total = total + ops.sum(planes[first - low : last - low])
        parts.append(part if whole else part[:, first - low : last - low])
    return total, parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


def _slabs(planes: int, voxels: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Planes to compute on [low, high) and to keep [first, last); all slabs are equally thick, so one compiles."""
    slabs = math.ceil(voxels / SLAB_VOXELS)
    own = math.ceil(planes / slabs)
    thickness = min(planes, own if slabs == 1 else own + 2 * margin)
    for first in range(0, planes, own):
        low = min(max(first - margin, 0), planes - thickness)
        yield low, low + thickness, first, min(first + own, planes)
