"""SVF- and NSVF-R2Net: an initial velocity, carried on by Lipschitz-continuous residual blocks."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from r2reg.config import NetworkConfig
from r2reg.networks.spectral import SpectralConvolution
from r2reg.networks.unet import SLOPE

Tensor = Any


class ResidualBlock(layers.Layer):
    """v -> v + s tanh(C2(LeakyReLU(C1(v)))), C1 3^d and C2 1^d, both spectrally normalised.

    With operator norms <= 1 the branch's Lipschitz constant is at most s, so for s < 1 the block is invertible.

    Source: Joshi & Hong 2023, sec. 2.1, eq. 6; kernel sizes and s = 1/2 from the published code.
    """

    def __init__(self, ndim: int, scale: float, norm: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ndim, self.scale, self.norm = ndim, scale, norm
        self.first = SpectralConvolution(ndim, 3, ndim, norm, name="c1")
        self.second = SpectralConvolution(ndim, 1, ndim, norm, name="c2")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, velocity: Tensor) -> Tensor:
        branch = self.second(ops.leaky_relu(self.first(velocity), SLOPE))
        return velocity + self.scale * ops.tanh(branch)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ndim": self.ndim, "scale": self.scale, "norm": self.norm}


def velocities(v0: Tensor, config: NetworkConfig, suffix: str = "") -> list[Tensor]:
    """The velocities that the integrator takes, from v0.

    NSVF: the state after each block, a field that varies with time. SVF: one block, whose weights all steps share;
    `residual` applies it N times to the state, the others integrate its output on v0 as a stationary field: `flow`
    in as many steps as there are blocks.

    Args:
        suffix: of the blocks' names.
    """
    make = lambda name: ResidualBlock(config.ndim, config.residual_scale, config.spectral_norm, name=name + suffix)  # noqa: E731
    if not config.stationary:
        states = [v0]
        for k in range(config.blocks):
            states.append(make(f"block{k + 1}")(states[-1]))
        return states[1:]
    block = make("block")
    if config.integrator != "residual":
        return [block(v0)] * (config.blocks if config.integrator == "flow" else 1)
    state = v0
    for _ in range(config.blocks):
        state = block(state)
    return [state]


def copy_blocks(source: keras.Model, target: keras.Model) -> None:
    """Give a network the residual blocks' weights of another of the same settings."""
    for layer in source.layers:
        if isinstance(layer, ResidualBlock):
            target.get_layer(layer.name).set_weights(layer.get_weights())
