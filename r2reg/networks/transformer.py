"""A layer that moves an image by a map of few parameters: a spatial transformer (Detlefsen et al. 2018)."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

from r2reg.errors import ConfigError
from r2reg.flow.families import FamilyName, make_family, voxel_shares
from r2reg.flow.tessellation import Boundary
from r2reg.flow.warp import warp

Tensor = Any


class SpatialTransformer(layers.Layer):
    """theta (B, P) and image (B, *S, C) -> displacement (B, *S, d), voxels, and the moved image.

    The localisation that yields theta should end in a layer of zero weights: theta = 0 is the identity.
    """

    def __init__(
        self, family: FamilyName, ndim: int, boxes: int = 3, boundary: Boundary = "fixed", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {"family": family, "ndim": ndim, "boxes": boxes, "boundary": boundary}
        self.family = make_family(family, ndim, boxes, boundary)

    def build(self, input_shape: Any) -> None:
        theta = input_shape[0]
        if theta[-1] != self.family.parameters:
            raise ConfigError(f"theta needs {self.family.parameters} numbers. Received: {theta[-1]}")

    def call(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        theta, image = inputs
        shape = tuple(image.shape[1:-1])
        shares = ops.convert_to_tensor(voxel_shares(shape), theta.dtype)
        points = ops.broadcast_to(shares[None], (ops.shape(theta)[0], *shares.shape))
        extent = ops.convert_to_tensor(shape, theta.dtype)
        moved = (self.family.map(theta, points) - points) * extent
        displacement = ops.reshape(moved, (-1, *shape, len(shape)))
        return displacement, warp(image, displacement)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, Any]:
        image = tuple(input_shape[1])
        return (*image[:-1], len(image) - 2), image

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}
