"""The branches of a multi-scale network: the velocities that phase 2 merges, chunk by chunk and from halved images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from r2reg.config import Branch, NetworkConfig
from r2reg.flow import backend
from r2reg.flow.resize import shrink
from r2reg.networks.build import build_network
from r2reg.networks.saving import SavedModel
from r2reg.networks.tiles import cut, join, tile_shape

NETWORK_INPUTS = ("fine_velocity", "coarse_velocity")  # of phase 2


class Branches:
    """Both trained branches for pairs of one shape.

    One forward pass sees a chunk, so that its memory is that of a chunk, besides the velocities themselves. Threads
    take turns.

    Source: Joshi & Hong 2023, sec. 2.4.
    """

    def __init__(self, model: SavedModel, shape: tuple[int, ...]) -> None:
        self._set_up(model.network, shape, lambda name, part: model.branches[name].build(part))

    @classmethod
    def untrained(cls, config: NetworkConfig, shape: tuple[int, ...]) -> Branches:
        """Branches of first weights, which cost what trained ones do."""
        branches = cls.__new__(cls)
        branches._set_up(config, shape, lambda name, part: build_network(config.branch(name), part))
        return branches

    def _set_up(
        self,
        config: NetworkConfig,
        shape: tuple[int, ...],
        build: Callable[[Branch, tuple[int, ...]], keras.Model],
    ) -> None:
        cutting = (shape, config.chunks, config.overlap, config.stride)
        self.shape, self.factor, self.tiles = shape, config.downsampling, cut(*cutting)
        small = tuple(-(-n // self.factor) for n in shape)
        self.chunk = _velocity_alone(build("chunk", tile_shape(*cutting)))
        self.coarse = _velocity_alone(build("coarse", small))
        self.turn = threading.Lock()

    def __call__(self, moving: np.ndarray, fixed: np.ndarray) -> dict[str, np.ndarray]:
        """The initial velocities of a batch of pairs.

        Args:
            moving, fixed: (N, *shape, 1) in [0, 1].
        Returns:
            fine_velocity (N, *shape, d), voxels; coarse_velocity (N, *ceil(shape / factor), d), voxels of its grid.
        """
        with self.turn:
            pairs = list(zip(moving, fixed, strict=True))
            fine = [join(self._of_chunks(*pair), self.tiles, self.shape) for pair in pairs]
            coarse = [self._of_coarse(*pair) for pair in pairs]
        return dict(zip(NETWORK_INPUTS, (np.stack(fine), np.stack(coarse)), strict=True))

    def _of_chunks(self, *pair: np.ndarray) -> Iterator[np.ndarray]:
        for tile in self.tiles:
            yield _run(self.chunk, [image[tile] for image in pair])

    def _of_coarse(self, *pair: np.ndarray) -> np.ndarray:
        coarse = shrink(ops.convert_to_tensor(np.stack(pair)), self.factor)
        return _run(self.coarse, list(ops.convert_to_numpy(coarse)))


def network_inputs(model: SavedModel, moving: np.ndarray, fixed: np.ndarray) -> list[np.ndarray]:
    """What a saved network takes for a pair (N, *S, 1): the pair, or its branches' velocities."""
    if not model.network.two_phase:
        return [moving, fixed]
    return list(Branches(model, moving.shape[1:-1])(moving, fixed).values())


def _velocity_alone(network: keras.Model) -> keras.Model:
    velocity = keras.Model(network.inputs, network.output["velocity"])
    velocity.compile(jit_compile=backend.jit_compile())
    return velocity


def _run(network: keras.Model, pair: list[np.ndarray]) -> np.ndarray:
    return np.asarray(network.predict_on_batch([image[None] for image in pair]))[0]
