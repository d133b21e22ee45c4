"""What a network sees of a pair on the training grid: all of it, one chunk, or a coarser image."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from r2reg.config import Branch, NetworkConfig
from r2reg.networks.tiles import cut, tile_shape

Batch = dict[str, np.ndarray]


class View(Protocol):
    """From a pair on the training grid to what is seen of it, of `shape`."""

    shape: tuple[int, ...]

    def __call__(self, pair: Batch, rng: np.random.Generator) -> Batch:
        """The pair's arrays (X, Y[, Z]) or (X, Y[, Z], 1), cut or resampled alike."""


class Whole:
    """All of it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __call__(self, pair: Batch, rng: np.random.Generator) -> Batch:
        return pair


class OneChunk:
    """One of the chunks that a multi-scale network will cut at inference, at random."""

    def __init__(self, shape: tuple[int, ...], config: NetworkConfig) -> None:
        cutting = (shape, config.chunks, config.overlap, config.stride)
        self.shape, self.tiles = tile_shape(*cutting), cut(*cutting)

    def __call__(self, pair: Batch, rng: np.random.Generator) -> Batch:
        tile = self.tiles[rng.integers(len(self.tiles))]
        return {name: array[tile] for name, array in pair.items()}


class Coarse:
    """Images by means over blocks, labels by the voxel in the middle, masks by majority."""

    def __init__(self, shape: tuple[int, ...], factor: int) -> None:
        self.shape, self.factor = tuple(-(-n // factor) for n in shape), factor

    def __call__(self, pair: Batch, rng: np.random.Generator) -> Batch:
        return {name: self._coarse(name, array) for name, array in pair.items()}

    def _coarse(self, name: str, array: np.ndarray) -> np.ndarray:
        from keras import ops

        from r2reg.flow.resize import shrink

        if name.endswith("labels"):
            return array[np.ix_(*[middles(n, self.factor) for n in array.shape])]
        means: np.ndarray = ops.convert_to_numpy(shrink(ops.convert_to_tensor(array[None]), self.factor))[0]
        return (means >= 0.5).astype(np.float32) if name == "mask" else means


def middles(n: int, factor: int) -> np.ndarray:
    """The indices of the voxels in the middle of blocks of `factor` along an axis of n."""
    return np.minimum(np.arange(0, n, factor) + factor // 2, n - 1)


def view_of(branch: Branch | None, shape: tuple[int, ...], config: NetworkConfig) -> View:
    """The view of a multi-scale network's branch; of any other network, everything.

    Args:
        shape: of the training grid. config: of the whole network.
    Raises:
        ModelError: chunks that are too small.
    """
    if branch == "chunk":
        return OneChunk(shape, config)
    return Coarse(shape, config.downsampling) if branch == "coarse" else Whole(shape)
