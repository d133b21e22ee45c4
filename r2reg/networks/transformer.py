"""Maps of few parameters in networks: the spatial transformer, and the network that predicts a pair's theta.

Source: Detlefsen et al. 2018.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from r2reg.config import NetworkConfig
from r2reg.flow.families import AffineCpab, Family, FamilyName, family_field, make_family
from r2reg.flow.tessellation import Boundary
from r2reg.flow.warp import warp
from r2reg.networks.unet import convolution

Tensor = Any
POOLED = 4  # parts along each axis of what the localisation sees of its last features
HIDDEN = 64


class SpatialTransformer(layers.Layer):
    """theta (B, P) and image (B, *S, C) -> displacement (B, *S, d), voxels, and the moved image.

    The localisation that yields theta should end in a layer of zero weights: theta = 0 is the identity.
    """

    def __init__(
        self,
        family: FamilyName,
        ndim: int,
        boxes: int | tuple[int, ...] = 3,
        boundary: Boundary = "fixed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {"family": family, "ndim": ndim, "boxes": boxes, "boundary": boundary}
        self.family = make_family(family, ndim, boxes, boundary)

    def build(self, input_shape: Any) -> None:
        self.family.check_shape(input_shape[0])

    def call(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        theta, image = inputs
        displacement = family_field(self.family, theta, tuple(image.shape[1:-1]))
        return displacement, warp(image, displacement)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, Any]:
        image = tuple(input_shape[1])
        return (*image[:-1], len(image) - 2), image

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


class FamilyField(layers.Layer):
    """theta (B, P) -> the displacement of a grid's voxels (B, *shape, d), by the family's map or its inverse."""

    def __init__(self, family: Family, shape: tuple[int, ...], inverse: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.family, self.grid, self.inverse = family, shape, inverse

    def call(self, theta: Tensor) -> Tensor:
        return family_field(self.family, theta, self.grid, self.inverse)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *self.grid, len(self.grid))


class PoolTo(layers.Layer):
    """Means over `parts` equal shares of each axis, whatever the size: (B, *S, C) -> (B, *parts, C)."""

    def __init__(self, parts: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, x: Tensor) -> Tensor:
        for axis, size in enumerate(x.shape[1:-1], start=1):
            shares = ops.convert_to_tensor(axis_shares(size, self.parts), x.dtype)
            x = ops.moveaxis(ops.tensordot(x, shares, axes=[[axis], [1]]), -1, axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *[self.parts] * (len(input_shape) - 2), input_shape[-1])


def axis_shares(size: int, parts: int) -> np.ndarray:
    """(parts, size): how much of each voxel belongs to each part of an axis, rows of sum 1."""
    ends = np.linspace(0, size, parts + 1)
    low, high = np.arange(size), np.arange(1, size + 1)
    shared = np.minimum(ends[1:, None], high) - np.maximum(ends[:-1, None], low)
    found: np.ndarray = np.maximum(shared, 0) * parts / size
    return found


def pair_family(config: NetworkConfig) -> AffineCpab:
    """What affine-cpab predicts the theta of."""
    return AffineCpab((config.boxes,) * config.ndim)


def parametric_network(config: NetworkConfig, shape: tuple[int, ...], inverse: bool) -> keras.Model:
    """[moving, fixed] -> {"theta", "displacement", "velocity"} of one map of AffineCpab.

    The localisation is the U-Net's way down, the means of its features over POOLED^d parts of the image, and two dense
    layers, the last of zeros: it begins at the identity. "velocity", which penalties look at, is the displacement.
    """
    moving = keras.Input((*shape, 1), name="moving")
    fixed = keras.Input((*shape, 1), name="fixed")
    x = layers.Concatenate(name="pair")([moving, fixed])
    for level, filters in enumerate(config.encoder, start=1):
        x = convolution(x, filters, config.ndim, f"down{level}", stride=2)
    x = layers.Flatten(name="features")(PoolTo(POOLED, name="pool")(x))
    x = layers.Dense(HIDDEN, activation="relu", name="hidden")(x)
    family = pair_family(config)
    theta = layers.Dense(family.parameters, kernel_initializer="zeros", name="theta")(x)
    displacement = FamilyField(family, shape, name="map")(theta)
    outputs = {"theta": theta, "displacement": displacement, "velocity": displacement}
    if inverse:
        outputs["inverse"] = FamilyField(family, shape, True, name="map_back")(theta)
    return keras.Model([moving, fixed], outputs, name="affine_cpab")
