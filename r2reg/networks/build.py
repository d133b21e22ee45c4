"""From settings to a Keras model that maps a pair of images to a displacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from r2reg.config import NetworkConfig
from r2reg.errors import ModelError
from r2reg.flow import backend
from r2reg.flow.integrate import integrate
from r2reg.flow.resize import double
from r2reg.networks.r2net import velocities
from r2reg.networks.velocity import initial_velocity

Tensor = Any


class Integrate(layers.Layer):
    """From the velocities to the displacement u = phi - id, by one of the integrators."""

    def __init__(self, integrator: str, scheme: str, substeps: int, squarings: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings: dict[str, Any] = {
            "integrator": integrator,
            "scheme": scheme,
            "substeps": substeps,
            "squarings": squarings,
        }

    def call(self, velocities: list[Tensor]) -> Tensor:
        return integrate(velocities, **self.settings)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


class DoubleField(layers.Layer):
    """A displacement on the grid of twice the size, in that grid's voxels."""

    def call(self, displacement: Tensor) -> Tensor:
        return 2 * double(displacement)


def build_network(config: NetworkConfig, shape: Sequence[int], *, inverse: bool = False) -> keras.Model:
    """The network for images of one shape; its weights fit every shape.

    Args:
        shape: (X, Y[, Z]); padded inside to a multiple of 2^levels and cropped again.
        inverse: also give "inverse", the displacement of the flow run backwards.
    Returns:
        A model from [moving, fixed], each (N, *shape, 1) in [0, 1], to {"velocity": v0, "displacement": u}, each
        (N, *shape, d) in voxels: moved(x) = moving(x + u(x)). Of a sampled velocity "mean" and "log_variance" as
        well. Velocities are on the padded grid of half size where `velocity_size` is half, in its voxels.
    Raises:
        ModelError: shape is not of the network's dimension.
    """
    backend.skip_graph_remapping()
    shape = tuple(int(n) for n in shape)
    if len(shape) != config.ndim:
        raise ModelError(f"the model is for {config.ndim}-D images. Received: shape={shape}")
    moving = keras.Input((*shape, 1), name="moving")
    fixed = keras.Input((*shape, 1), name="fixed")
    images = layers.Concatenate(name="pair")([moving, fixed])

    half = config.velocity_size == "half"
    stride = 2 ** len(config.encoder)
    extra = [(0, -n % stride) for n in shape]
    padded = any(after for _, after in extra)
    pad = layers.ZeroPadding2D if config.ndim == 2 else layers.ZeroPadding3D
    crop = layers.Cropping2D if config.ndim == 2 else layers.Cropping3D
    v0 = initial_velocity(pad(extra, name="pad")(images) if padded else images, config)
    if padded and not half:
        v0 = v0.map(crop(extra, name="crop"))

    steps = _velocities(v0.value, config)

    def displacement(fields: list[Tensor], name: str) -> Tensor:
        u = Integrate(config.integrator, config.scheme, config.substeps, config.squarings, name=name)(fields)
        if half:
            u = DoubleField()(u)
        return crop(extra)(u) if half and padded else u

    outputs = {"velocity": v0.value, "displacement": displacement(steps, "integrate")}
    if inverse:
        outputs["inverse"] = displacement([layers.Rescaling(-1.0)(v) for v in reversed(steps)], "integrate_back")
    if v0.mean is not None:
        outputs |= {"mean": v0.mean, "log_variance": v0.log_variance}
    return keras.Model([moving, fixed], outputs, name=config.network.replace("-", "_"))


def _velocities(v0: Tensor, config: NetworkConfig) -> list[Tensor]:
    """What is integrated: v0 itself for VM-Diff (`flow` in as many steps as blocks), else what residual blocks make."""
    if config.network == "vm-diff":
        return [v0] * (config.blocks if config.integrator == "flow" else 1)
    return velocities(v0, config)


def velocity_model(model: keras.Model) -> keras.Model:
    """The same network up to the integrator: from [moving, fixed] to the list of velocities."""
    return keras.Model(model.inputs, model.get_layer("integrate").input)
