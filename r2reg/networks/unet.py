"""The U-Net and its heads, which estimate the initial velocity."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from r2reg.config import NetworkConfig
from r2reg.flow import backend

Tensor = Any
SLOPE = 0.2  # LeakyReLU, published code
FLOW_SIGMA = 1e-5  # standard deviation of the flow layer's first weights: training starts near the identity
LOG_VARIANCE_SIGMA, FIRST_LOG_VARIANCE = 1e-10, -10.0  # of the variance's layer: weights and bias


def convolution(x: Tensor, filters: int, ndim: int, name: str, stride: int = 1, width: int = 3) -> Tensor:
    """A convolution and its LeakyReLU."""
    layer = layers.Conv2D if ndim == 2 else layers.Conv3D
    x = layer(filters, width, strides=stride, padding="same", kernel_initializer="he_normal", name=name)(x)
    return layers.LeakyReLU(negative_slope=SLOPE, name=f"{name}_act")(x)


def decoder_features(images: Tensor, config: NetworkConfig, mixed: bool = False) -> dict[int, Tensor]:
    """The U-Net up to its last activation at each size.

    Args:
        images: (N, *S, 2), S divisible by 2^levels.
        mixed: compute in half precision, with weights in single.
    Returns:
        factor -> (N, *S / factor, C), from 2^levels to 1, or to 2 where `velocity_size` is half.
    Source: Joshi & Hong 2023, sec. 2.2, with the filters of the published code. Going up by transposed convolutions
    (nonprob) or by nearest neighbours (the others).
    """
    with backend.dtype_policy("mixed_float16" if mixed else "float32"):
        return _features(images, config)


def _features(images: Tensor, config: NetworkConfig) -> dict[int, Tensor]:
    ndim, levels = config.ndim, len(config.encoder)
    transposed = layers.Conv2DTranspose if ndim == 2 else layers.Conv3DTranspose
    nearest = layers.UpSampling2D if ndim == 2 else layers.UpSampling3D
    learned = config.velocity.startswith("nonprob")
    least = 1 if config.velocity_size == "half" else 0

    skips, x = [images], images
    for level, filters in enumerate(config.encoder, start=1):
        x = convolution(x, filters, ndim, f"down{level}", stride=2)
        skips.append(x)
    x = convolution(x, config.decoder[0], ndim, f"bottom{levels}")
    features = {}
    for level in range(levels - 1, least - 1, -1):
        features[2 ** (level + 1)] = x
        name = f"up{level}"
        if learned:
            x = transposed(config.up_filters, 3, strides=2, padding="same", name=name)(x)
        else:
            x = nearest(2, name=name)(x)
        x = layers.Concatenate(name=f"skip{level}")([x, skips[level]])
        if level > 0:
            x = convolution(x, config.decoder[levels - level], ndim, f"conv{level}")
        if level == 1:
            x = convolution(x, config.decoder[levels], ndim, "conv1b")
    if levels == 1:
        x = convolution(x, config.decoder[1], ndim, "conv1b")
    if least == 0:
        for k, filters in enumerate(config.decoder[-2:]):
            x = convolution(x, filters, ndim, f"conv0{'ab'[k]}")
    return features | {2**least: x}


def velocity_head(features: Tensor, config: NetworkConfig, name: str = "flow") -> Tensor:
    """The flow convolution: (N, *S, C) -> (N, *S, d), near 0 before training."""
    convolution = layers.Conv2D if config.ndim == 2 else layers.Conv3D
    first = keras.initializers.RandomNormal(stddev=FLOW_SIGMA)
    return convolution(config.ndim, 3, padding="same", use_bias=False, kernel_initializer=first, name=name)(features)


def log_variance_head(features: Tensor, config: NetworkConfig, name: str = "log_variance") -> Tensor:
    """The logarithm of the velocity's variance, (N, *S, d), small before training.

    Source: Dalca et al. 2018; first values as in the published code.
    """
    convolution = layers.Conv2D if config.ndim == 2 else layers.Conv3D
    return convolution(
        config.ndim,
        3,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(stddev=LOG_VARIANCE_SIGMA),
        bias_initializer=keras.initializers.Constant(FIRST_LOG_VARIANCE),
        name=name,
    )(features)
