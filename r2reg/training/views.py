"""What a network sees of a pair on the training grid: all of it, one chunk, or a coarser image."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from r2reg.config import Branch, NetworkConfig
from r2reg.networks.tiles import cut, tile_shape

Tensor = Any
Batch = dict[str, np.ndarray]
IMAGES = ("moving", "fixed", "mask", "moving_labels", "fixed_labels")


class View(Protocol):
    """From a pair on the training grid to what is seen of it, of `shape`."""

    shape: tuple[int, ...]

    def __call__(self, pair: Batch, rng: np.random.Generator) -> Batch:
        """The pair's arrays (X, Y[, Z], C), cut or resampled alike."""


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
    """The pair on a grid that is coarser by a factor."""

    def __init__(self, shape: tuple[int, ...], factor: int) -> None:
        self.shape, self.factor = tuple(-(-n // factor) for n in shape), factor

    def __call__(self, pair: Batch, rng: np.random.Generator) -> Batch:
        from keras import ops

        tensors = {name: ops.convert_to_tensor(array[None]) for name, array in pair.items()}
        return {name: ops.convert_to_numpy(value)[0] for name, value in coarser(tensors, self.factor).items()}


def coarser(batch: dict[str, Tensor], factor: int) -> dict[str, Tensor]:
    """A batch on a coarser grid: means over blocks.

    Args:
        batch: as `batches.Batches` makes it; what is no image, mask or label map is left out.
    """
    from keras import ops

    from r2reg.flow.resize import shrink

    found = {}
    for name in IMAGES:
        if name not in batch:
            continue
        means = shrink(ops.cast(batch[name], "float32"), factor)
        found[name] = ops.cast(ops.round(means), "uint8") if name.endswith("labels") else means
    return found


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
