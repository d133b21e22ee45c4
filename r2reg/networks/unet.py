"""The U-Net that estimates the initial velocity."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from r2reg.config import NetworkConfig

Tensor = Any
SLOPE = 0.2  # LeakyReLU, published code
FLOW_SIGMA = 1e-5  # standard deviation of the flow layer's first weights: training starts near the identity


def _convolution(x: Tensor, filters: int, ndim: int, name: str, stride: int = 1) -> Tensor:
    layer = layers.Conv2D if ndim == 2 else layers.Conv3D
    x = layer(filters, 3, strides=stride, padding="same", kernel_initializer="he_normal", name=name)(x)
    return layers.LeakyReLU(negative_slope=SLOPE, name=f"{name}_act")(x)


def initial_velocity(images: Tensor, config: NetworkConfig) -> Tensor:
    """v0 in voxels from the concatenated pair.

    Args:
        images: (N, *S, 2), S divisible by 2^levels.
    Returns:
        (N, *S, d).
    Source: Joshi & Hong 2023, sec. 2.2, with the filters of the published code (nonProb: transposed convolutions
    going up, the output halved).
    """
    ndim, levels = config.ndim, len(config.encoder)
    up = layers.Conv2DTranspose if ndim == 2 else layers.Conv3DTranspose
    flow = layers.Conv2D if ndim == 2 else layers.Conv3D

    skips, x = [images], images
    for level, filters in enumerate(config.encoder, start=1):
        x = _convolution(x, filters, ndim, f"down{level}", stride=2)
        skips.append(x)
    x = _convolution(x, config.decoder[0], ndim, f"bottom{levels}")
    for level in range(levels - 1, -1, -1):
        x = up(config.up_filters, 3, strides=2, padding="same", name=f"up{level}")(x)
        x = layers.Concatenate(name=f"skip{level}")([x, skips[level]])
        if level > 0:
            x = _convolution(x, config.decoder[levels - level], ndim, f"conv{level}")
        if level == 1:
            x = _convolution(x, config.decoder[levels], ndim, "conv1b")
    if levels == 1:
        x = _convolution(x, config.decoder[1], ndim, "conv1b")
    for k, filters in enumerate(config.decoder[-2:]):
        x = _convolution(x, filters, ndim, f"conv0{'ab'[k]}")
    first = keras.initializers.RandomNormal(stddev=FLOW_SIGMA)
    x = flow(ndim, 3, padding="same", use_bias=False, kernel_initializer=first, name="flow")(x)
    return layers.Rescaling(0.5, name="half")(x)
