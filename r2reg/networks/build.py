"""From settings to a Keras model that maps a pair of images to a displacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from r2reg.config import NetworkConfig
from r2reg.errors import ModelError
from r2reg.flow import backend
from r2reg.networks.fields import EnlargeField, integrator
from r2reg.networks.pyramid import pyramid_flow
from r2reg.networks.r2net import velocities
from r2reg.networks.transformer import parametric_network
from r2reg.networks.velocity import initial_velocities

Tensor = Any
MEAN_VELOCITY = "mean_velocity"  # the layer of a pyramid that sees its velocities


class MeanOfFields(keras.initializers.Initializer):
    """First weights of the convolution that merges two velocities: their mean, voxel by voxel."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        *width, inputs, outputs = shape
        kernel = np.zeros(shape, np.float32)
        kernel[tuple(n // 2 for n in width)] = np.tile(np.eye(outputs), (inputs // outputs, 1)) * outputs / inputs
        return keras.ops.convert_to_tensor(kernel, dtype=dtype)


def build_network(
    config: NetworkConfig, shape: Sequence[int], *, inverse: bool = False, mixed: bool = False
) -> keras.Model:
    """The network for images of one shape; its weights fit every shape.

    Of a multi-scale network this is phase 2, whose inputs are velocities in place of images, see `branches`.

    Args:
        shape: (X, Y[, Z]); padded inside to a multiple of 2^levels and cropped again.
        inverse: also give "inverse", the displacement of the flow run backwards.
        mixed: the U-Net computes in half precision; velocities and their integration never do.
    Returns:
        A model from [moving, fixed], each (N, *shape, 1) in [0, 1], or from [fine_velocity (N, *shape, d),
        coarse_velocity (N, *ceil(shape / downsampling), d)], to {"velocity": v0, "displacement": u}, each
        (N, *shape, d) in voxels: moved(x) = moving(x + u(x)); a pyramid's velocity is the mean over
        time. Of a sampled velocity "mean" and "log_variance" as well. Velocities are on the padded grid of half size
        where `velocity_size` is half, in its voxels. With more than one scale, those of scale s > 1 as well, named
        "velocity_s" and so on, (N, *ceil(shape / s), d).
    Raises:
        ModelError: shape is not of the network's dimension; the inverse of a `residual` network.
    """
    backend.skip_graph_remapping()
    if inverse and config.integrator == "residual":
        raise ModelError("the integrator residual is no flow that can be run backwards; take flow or scaling_squaring")
    shape = tuple(int(n) for n in shape)
    if len(shape) != config.ndim:
        raise ModelError(f"the model is for {config.ndim}-D images. Received: shape={shape}")
    with backend.dtype_policy("float32"):
        if config.parametric:
            return parametric_network(config, shape, inverse)
        if config.pyramid:
            return _pyramid_network(config, shape, inverse, mixed)
        return _merging_network(config, shape, inverse) if config.two_phase else _network(config, shape, inverse, mixed)


def _network(config: NetworkConfig, shape: tuple[int, ...], inverse: bool, mixed: bool) -> keras.Model:
    """A network of images."""
    moving = keras.Input((*shape, 1), name="moving")
    fixed = keras.Input((*shape, 1), name="fixed")
    images = layers.Concatenate(name="pair")([moving, fixed])

    half = config.velocity_size == "half"
    extra = [-n % config.stride for n in shape]
    padded = any(extra)
    v0 = initial_velocities(_pad(extra, config.ndim)(images) if padded else images, config, mixed)

    outputs: dict[str, Tensor] = {}
    for scale, velocity in v0.items():
        crop = _crop([n // scale for n in extra], config.ndim)  # to a grid of ceil(shape / scale)
        if padded and not half:
            velocity = velocity.map(crop)

        def to_full_size(u: Tensor, crop: Any = crop) -> Tensor:
            u = EnlargeField()(u) if half else u
            return crop(u) if half and padded else u

        v0, suffix = velocity.value, "" if scale == 1 else f"_{scale}"
        steps = _velocities(v0, config)
        found = {"velocity": v0} | _integrated(steps, config, inverse and scale == 1, to_full_size, suffix)
        if velocity.mean is not None:
            found |= {"mean": velocity.mean, "log_variance": velocity.log_variance}
        outputs |= found if scale == 1 else {f"{name}_{scale}": value for name, value in found.items()}
    return keras.Model([moving, fixed], outputs, name=config.network.replace("-", "_"))


def _pyramid_network(config: NetworkConfig, shape: tuple[int, ...], inverse: bool, mixed: bool) -> keras.Model:
    """A pyramid; its "velocity" is the mean over time."""
    moving = keras.Input((*shape, 1), name="moving")
    fixed = keras.Input((*shape, 1), name="fixed")
    half = config.velocity_size == "half"
    extra = [-n % config.stride for n in shape]
    pad, crop = (make(extra, config.ndim) if any(extra) else lambda x: x for make in (_pad, _crop))
    found = pyramid_flow(pad(moving), pad(fixed), config, mixed)
    steps = found.velocities if half else [crop(v) for v in found.velocities]

    def finish(displacement: Tensor) -> Tensor:
        return crop(EnlargeField()(displacement) if half else displacement)

    outputs = {"velocity": layers.Average(name=MEAN_VELOCITY)(steps), "displacement": finish(found.displacement)}
    if inverse:
        back = integrator(config, "integrate_back")([layers.Rescaling(-1.0)(v) for v in reversed(steps)])
        outputs["inverse"] = crop(EnlargeField()(back)) if half else back
    return keras.Model([moving, fixed], outputs, name=config.network.replace("-", "_"))


def _merging_network(config: NetworkConfig, shape: tuple[int, ...], inverse: bool) -> keras.Model:
    """Phase 2: both branches' velocities -> a convolution -> residual blocks (Joshi & Hong 2023, Fig. 2)."""
    factor, ndim = config.downsampling, config.ndim
    small = [-(-n // factor) for n in shape]
    fine = keras.Input((*shape, ndim), name="fine_velocity")
    coarse = keras.Input((*small, ndim), name="coarse_velocity")
    extra = [factor * m - n for m, n in zip(small, shape, strict=True)]
    enlarged = EnlargeField(factor, name="enlarge")(coarse)
    if any(extra):
        enlarged = _crop(extra, ndim)(enlarged)
    convolution = layers.Conv2D if ndim == 2 else layers.Conv3D
    merge = convolution(ndim, 3, padding="same", use_bias=False, kernel_initializer=MeanOfFields(), name="merge")
    v0 = merge(layers.Concatenate(name="velocities")([fine, enlarged]))
    outputs = {"velocity": v0} | _integrated(_velocities(v0, config), config, inverse, lambda u: u)
    return keras.Model([fine, coarse], outputs, name=config.network.replace("-", "_"))


def _pad(extra: Sequence[int], ndim: int) -> keras.Layer:
    """Zeros behind the last voxels."""
    layer = layers.ZeroPadding2D if ndim == 2 else layers.ZeroPadding3D
    return layer([(0, n) for n in extra])


def _crop(extra: Sequence[int], ndim: int) -> keras.Layer:
    """Without the last voxels."""
    layer = layers.Cropping2D if ndim == 2 else layers.Cropping3D
    return layer([(0, n) for n in extra])


def _integrated(
    steps: list[Tensor], config: NetworkConfig, inverse: bool, finish: Callable[[Tensor], Tensor], suffix: str = ""
) -> dict[str, Tensor]:
    """The outputs that follow from the velocities."""

    def displacement(fields: list[Tensor], name: str) -> Tensor:
        return finish(integrator(config, name)(fields))

    outputs = {"displacement": displacement(steps, f"integrate{suffix}")}
    if inverse:
        outputs["inverse"] = displacement([layers.Rescaling(-1.0)(v) for v in reversed(steps)], "integrate_back")
    return outputs


def _velocities(v0: Tensor, config: NetworkConfig) -> list[Tensor]:
    """What is integrated: v0 itself for VoxelMorph (`flow` in as many steps as blocks), else what blocks make of it."""
    if not config.residual:
        return [v0] * (config.blocks if config.integrator == "flow" else 1)
    return velocities(v0, config)


def velocity_model(model: keras.Model) -> keras.Model:
    """The same network up to the integrator: from [moving, fixed] to the list of velocities."""
    pyramid = any(layer.name == MEAN_VELOCITY for layer in model.layers)
    return keras.Model(model.inputs, model.get_layer(MEAN_VELOCITY if pyramid else "integrate").input)


def block_model(model: keras.Model, config: NetworkConfig) -> keras.Model:
    """The same network up to its last residual block: from its inputs to [v0, the velocity after each block]."""
    states = [model.output["velocity"]]
    for k in range(config.blocks):
        block = model.get_layer("block" if config.stationary else f"block{k + 1}")
        states.append(block(states[-1]))
    return keras.Model(model.inputs, states)
