"""SVF- and NSVF-R2Net: a U-Net's velocity, carried on by Lipschitz-continuous residual blocks, integrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from r2reg.config import NetworkConfig
from r2reg.errors import ModelError
from r2reg.flow.integrate import flow, scaling_squaring
from r2reg.flow.warp import compose
from r2reg.networks.spectral import SpectralConvolution
from r2reg.networks.unet import SLOPE, initial_velocity

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


class Integrate(layers.Layer):
    """From the velocities to the displacement u = phi - id, by one of the integrators."""

    def __init__(self, integrator: str, scheme: str, substeps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.integrator, self.scheme, self.substeps = integrator, scheme, substeps

    def call(self, velocities: list[Tensor]) -> Tensor:
        if self.integrator == "residual":
            return velocities[-1]
        if self.integrator == "flow":
            return flow(velocities, self.scheme, self.substeps)
        displacement = ops.zeros_like(velocities[0])
        for velocity in velocities:
            displacement = compose(scaling_squaring(velocity / len(velocities)), displacement)
        return displacement

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        own = {"integrator": self.integrator, "scheme": self.scheme, "substeps": self.substeps}
        return {**super().get_config(), **own}


def velocities(v0: Tensor, config: NetworkConfig) -> list[Tensor]:
    """The velocities that the integrator takes, from v0.

    NSVF: the state after each block, a field that varies with time. SVF: one block, whose weights all steps share;
    `residual` applies it N times to the state, `flow` integrates its output on v0 as a stationary field.
    """
    make = lambda name: ResidualBlock(config.ndim, config.residual_scale, config.spectral_norm, name=name)  # noqa: E731
    if config.network == "nsvf-r2net":
        states = [v0]
        for k in range(config.blocks):
            states.append(make(f"block{k + 1}")(states[-1]))
        return states[1:]
    block = make("block")
    if config.integrator != "residual":
        return [block(v0)] * config.blocks
    state = v0
    for _ in range(config.blocks):
        state = block(state)
    return [state]


def build_network(config: NetworkConfig, shape: Sequence[int]) -> keras.Model:
    """The network for images of one shape; its weights fit every shape.

    Args:
        shape: (X, Y[, Z]); padded inside to a multiple of 2^levels and cropped again.
    Returns:
        A model from [moving, fixed], each (N, *shape, 1) in [0, 1], to {"velocity": v0, "displacement": u}, each
        (N, *shape, d) in voxels: moved(x) = moving(x + u(x)).
    Raises:
        ModelError: shape is not of the network's dimension.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) != config.ndim:
        raise ModelError(f"the model is for {config.ndim}-D images. Received: shape={shape}")
    moving = keras.Input((*shape, 1), name="moving")
    fixed = keras.Input((*shape, 1), name="fixed")
    images = layers.Concatenate(name="pair")([moving, fixed])

    stride = 2 ** len(config.encoder)
    extra = [(0, -n % stride) for n in shape]
    padded = any(after for _, after in extra)
    pad = layers.ZeroPadding2D if config.ndim == 2 else layers.ZeroPadding3D
    crop = layers.Cropping2D if config.ndim == 2 else layers.Cropping3D
    v0 = initial_velocity(pad(extra, name="pad")(images) if padded else images, config)
    v0 = crop(extra, name="crop")(v0) if padded else v0

    steps = velocities(v0, config)
    integrate = Integrate(config.integrator, config.scheme, config.substeps, name="integrate")
    outputs = {"velocity": v0, "displacement": integrate(steps)}
    return keras.Model([moving, fixed], outputs, name=config.network.replace("-", "_"))


def velocity_model(model: keras.Model) -> keras.Model:
    """The same network up to the integrator: from [moving, fixed] to the list of velocities."""
    return keras.Model(model.inputs, model.get_layer("integrate").input)
