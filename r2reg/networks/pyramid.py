"""A pyramid of R2Nets: velocities estimated coarse to fine, from the pair as the flow found so far aligns it.

The features of both images come from one encoder. On each level moving's are carried along by the flow of the coarser
levels, compared with fixed's at each voxel and its neighbours, and a small network estimates what is left as the
initial velocity of residual blocks. The whole map is one flow of a time-varying velocity, the finest level's first: phi
of the coarser levels acts after it.

On level k a voxel stands for a block of 2^k voxels of the image along each axis and lies in its middle: for features,
which convolutions of even width halve and double, as for displacements.

Source: residual blocks and flow of Joshi & Hong 2023; pyramid, warped features and correlation as in optical flow
(Sun et al. 2018, PWC-Net).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from r2reg.config import NetworkConfig
from r2reg.flow import backend
from r2reg.losses.windows import hold_edges
from r2reg.networks.fields import Compose, EnlargeField, Warp, integrator
from r2reg.networks.r2net import velocities
from r2reg.networks.unet import convolution, velocity_head

Tensor = Any
LEAST_WEIGHT = 1e-6  # of a voxel in `Standardise`, so that a black image has statistics


class Standardise(layers.Layer):
    """[x (N, *S, C), weights (N, *S, 1) >= 0] -> x of weighted mean 0 and mean square 1, per channel and image.

    With the image as weights neither the contrast's strength nor the black around the anatomy scales x.

    Args:
        centre: whether the mean is taken away first.
    """

    def __init__(self, centre: bool = True, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.centre = centre

    def call(self, inputs: list[Tensor]) -> Tensor:
        x, weights = inputs[0], ops.relu(inputs[1]) + LEAST_WEIGHT
        axes = tuple(range(1, len(x.shape) - 1))
        weights = weights / ops.sum(weights, axis=axes, keepdims=True)
        if self.centre:
            x = x - ops.sum(weights * x, axis=axes, keepdims=True)
        return x * ops.rsqrt(ops.sum(weights * x * x, axis=axes, keepdims=True) + 1e-5)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "centre": self.centre}


class Correlation(layers.Layer):
    """[fixed, moving] features (N, *S, C) -> (N, *S, 1 + 2 d): how alike fixed's voxels and moving's are.

    A channel is the mean over C of the products with moving's features: in place, then one voxel down and one up along
    each axis; beyond the border the edge holds.
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        return _products(inputs[0], hold_edges(inputs[1], 1))

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return (*input_shape[0][:-1], 2 * len(input_shape[0]) - 3)


class BothWays(layers.Layer):
    """[fixed, carried] features (N, *S, C) -> the same, and with changed roles: two of (2 N, *S, C)."""

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        return [ops.concatenate(pair, axis=0) for pair in (inputs, inputs[::-1])]

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> list[tuple[int | None, ...]]:
        return [(None, *shape[1:]) for shape in input_shape]


class HalfDifference(layers.Layer):
    """Velocities (2 N, *S, d) of `BothWays` in the order of time -> (N, *S, d) each, (v_MF(t) - v_FM(1 - t)) / 2.

    The flow from moving to fixed is the one from fixed to moving run backwards: both answers speak of one map.
    """

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        halves = [ops.split(v, 2, axis=0) for v in inputs]
        return [0.5 * (there[0] - back[1]) for there, back in zip(halves, halves[::-1], strict=True)]

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> list[tuple[int | None, ...]]:
        return [(None, *shape[1:]) for shape in input_shape]


@backend.accelerate()
def _products(fixed: Tensor, near: Tensor) -> Tensor:
    shape = fixed.shape[1:-1]
    here = [1] * len(shape)
    found = []
    for starts in [here, *([*here[:axis], k, *here[axis + 1 :]] for axis in range(len(shape)) for k in (0, 2))]:
        part = near[(slice(None), *(slice(start, start + n) for start, n in zip(starts, shape, strict=True)))]
        found.append(ops.mean(fixed * part, axis=-1))
    return ops.stack(found, axis=-1)


@dataclass(frozen=True)
class PyramidFlow:
    """What the levels come to, on the finest level's grid and in its voxels.

    Attributes:
        velocities: (N, *S, d) each, of the whole flow in the order of time.
        displacement: (N, *S, d) of the levels' flows, composed; the flow itself but for interpolation.
    """

    velocities: list[Tensor]
    displacement: Tensor


def pyramid_flow(moving: Tensor, fixed: Tensor, config: NetworkConfig, mixed: bool = False) -> PyramidFlow:
    """The flow of a pair.

    Args:
        moving, fixed: (N, *S, 1), S divisible by 2^levels.
        mixed: convolutions compute in half precision.
    """
    levels = len(config.encoder)
    finest = 1 if config.velocity_size == "half" else 0
    used = range(levels, finest - 1, -1)
    encoder = _encoder(tuple(moving.shape[1:]), config, mixed)
    of_moving, of_fixed = encoder(moving), encoder(fixed)
    displacement = context = None
    # Each step has its share of unit time, in which its velocity goes as far as it would alone in all of it.
    speed = layers.Rescaling(float(len(used) * config.rounds), name="share")
    found: list[Tensor] = []
    for level in used:
        still, there = of_fixed[level - finest], of_moving[level - finest]
        above: list[Tensor] = [] if context is None else [_up(context, config, mixed, f"up{level}")]
        if displacement is not None:
            displacement = EnlargeField()(displacement)
        estimator = None
        enlarged = EnlargeField(2 ** (level - finest), name=f"enlarge{level}")
        for k in range(config.rounds):
            name = f"{level}" if k == 0 else f"{level}_{k + 1}"
            # The encoder learns from fixed's features, which are its own as well: the gradient of a warp in what it
            # carries is a scatter, a quarter of a step's time on a CPU.
            pair = [
                still,
                there
                if displacement is None
                else Warp(name=f"carried{name}")([ops.stop_gradient(there), displacement]),
            ]
            if config.symmetric:
                pair = BothWays(name=f"both{name}")(pair)
            if estimator is None:
                estimator = _estimator([*pair, *above], config, level, finest, mixed)
            context, *own = estimator([*pair, *above])
            if config.symmetric:
                own = HalfDifference(name=f"half{name}")(own)
            step = integrator(config, f"integrate{name}")(own)
            displacement = step if displacement is None else Compose(name=f"compose{name}")([displacement, step])
            found = [enlarged(speed(v)) for v in own] + found
    return PyramidFlow(found, displacement)


def _estimator(like: list[Tensor], config: NetworkConfig, level: int, finest: int, mixed: bool) -> keras.Model:
    """[fixed's features, the carried ones, what the coarser level knows] -> [what this one does, velocities]."""
    levels, ndim = len(config.encoder), config.ndim
    inputs = [keras.Input(x.shape[1:], dtype=x.dtype) for x in like]
    seen = [*inputs[:2], Correlation(name=f"correlation{level}")(inputs[:2]), *inputs[2:]]
    with backend.dtype_policy(_policy(mixed)):
        context = layers.Concatenate(name=f"seen{level}")(seen)
        filters = config.decoder[levels - level] if level else config.decoder[-2]
        for part in "ab":
            context = convolution(context, filters, ndim, f"estimate{level}{part}")
    # Halved as in the R2Nets; and at first all levels learn to move by millimetres at one pace.
    first = layers.Rescaling(0.5 ** (level - finest + 1), name=f"pace{level}")
    own = velocities(first(velocity_head(context, config, f"flow{level}")), config, f"_{level}")
    return keras.Model(inputs, [context, *own], name=f"level{level}")


def _policy(mixed: bool) -> str:
    return "mixed_float16" if mixed else "float32"


def _encoder(shape: tuple[int, ...], config: NetworkConfig, mixed: bool) -> keras.Model:
    """One image -> its features on each level from the finest on, standardised over the image's bright parts."""
    halve = (layers.AveragePooling2D if config.ndim == 2 else layers.AveragePooling3D)(2)
    with backend.dtype_policy(_policy(mixed)):
        image = weights = keras.Input(shape)
        x, features = Standardise(centre=False, name="image_norm")([image, image]), []
        if config.velocity_size == "full":
            x = convolution(x, config.encoder[0], config.ndim, "full")
            x = Standardise(name="full_norm")([x, weights])
            features.append(x)
        for level, filters in enumerate(config.encoder, start=1):
            weights = halve(weights)
            x = convolution(x, filters, config.ndim, f"down{level}", stride=2, width=4)
            x = Standardise(name=f"down{level}_norm")([x, weights])
            features.append(x)
    return keras.Model(image, features, name="encoder")


def _up(context: Tensor, config: NetworkConfig, mixed: bool, name: str) -> Tensor:
    """What the coarser level came to know, on this one's grid."""
    layer = layers.Conv2DTranspose if config.ndim == 2 else layers.Conv3DTranspose
    with backend.dtype_policy(_policy(mixed)):
        return layer(config.up_filters, 4, strides=2, padding="same", name=name)(context)
