"""Cutting a grid into overlapping sub-volumes, and joining what a network says of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from r2reg.config import NetworkConfig
from r2reg.errors import ModelError

Tile = tuple[slice, ...]
SHORTEST = 8  # voxels of a tile along an axis; less is all border to a U-Net


def cut(shape: Sequence[int], chunks: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Tiles of one size that cover a grid, neighbours sharing at least `overlap` voxels along each axis.

    They are k along each axis, and fewer where fewer cover it.

    Args:
        shape: (X, Y[, Z]). chunks: k, along each axis. overlap: voxels. multiple: see `tile_shape`.
    Raises:
        ModelError: an axis cut into tiles shorter than SHORTEST.
    Source: Joshi & Hong 2023, sec. 2.4 and Fig. 3 (k = 2, 2 voxels).
    """
    size = tile_shape(shape, chunks, overlap, multiple)
    if any(own < min(n, SHORTEST) for n, own in zip(shape, size, strict=True)):
        raise ModelError(
            f"{chunks} chunks along each axis of {tuple(shape)} voxels are {size}; they need {SHORTEST} each: "
            "train with fewer chunks or a finer spacing"
        )
    starts = []
    for n, own in zip(shape, size, strict=True):
        count = min(chunks, -(-(n - overlap) // (own - overlap))) if own < n else 1
        starts.append([round(i * (n - own) / (count - 1)) if count > 1 else 0 for i in range(count)])
    return [
        tuple(slice(start, start + own) for start, own in zip(corner, size, strict=True))
        for corner in itertools.product(*starts)
    ]


def tile_shape(shape: Sequence[int], chunks: int, overlap: int, multiple: int = 1) -> tuple[int, ...]:
    """The tiles' own shape: a k-th of the grid and the overlap, no larger than the grid.

    Rounded up to what the network pads to: instead of zeros it then sees more of the image, at no cost.
    """
    return tuple(min(n, -(-(n + (chunks - 1) * overlap) // (chunks * multiple)) * multiple) for n in shape)


def largest_view(shape: Sequence[int], config: NetworkConfig) -> int:
    """Voxels of the largest grid that a U-Net sees of an image: all, a chunk's or the coarse image's.

    Raises:
        ModelError: chunks that are too small.
    """
    if not config.two_phase:
        return math.prod(shape)
    tiles = cut(shape, config.chunks, config.overlap, config.stride)
    chunk = math.prod(part.stop - part.start for part in tiles[0])
    return max(chunk, math.prod(-(-n // config.downsampling) for n in shape))


def join(parts: Iterable[np.ndarray], tiles: Sequence[Tile], shape: Sequence[int]) -> np.ndarray:
    """One field from those of the tiles: their mean where they overlap, weighted towards each tile's middle.

    A tile's weight rises linearly from its inner faces, so the field has no jump there; where two voxels overlap it
    is close to the paper's plain mean.

    Args:
        parts: (*tile, C) each, in the tiles' order; taken one by one.
    Returns:
        (*shape, C) float32.
    """
    total: np.ndarray | None = None
    weights = np.zeros(tuple(shape), np.float32)
    for part, tile in zip(parts, tiles, strict=True):
        if total is None:
            total = np.zeros((*shape, part.shape[-1]), np.float32)
        weight = _weight(tile, tiles, shape)
        total[tile] += weight[..., None] * part
        weights[tile] += weight
    if total is None:
        raise ModelError("there is no part to join")
    return total / weights[..., None]


def _weight(tile: Tile, tiles: Sequence[Tile], shape: Sequence[int]) -> np.ndarray:
    weight = np.ones((), np.float32)
    for axis, (part, n) in enumerate(zip(tile, shape, strict=True)):
        place = np.arange(part.stop - part.start, dtype=np.float32) + 0.5
        ramp = np.ones(len(place), np.float32)
        before = [other[axis].stop - part.start for other in tiles if other[axis].start < part.start]
        after = [part.stop - other[axis].start for other in tiles if other[axis].start > part.start]
        if part.start > 0:
            ramp = np.minimum(ramp, place / max(*before, 1))
        if part.stop < n:
            ramp = np.minimum(ramp, place[::-1] / max(*after, 1))
        weight = weight[..., None] * ramp
    return weight
