"""One contrast for every image: a U-Net before a registration network, which shows it tissues in greys of its own.

Source: that a network can learn it from images painted of label maps, Iglesias et al. 2021 (SynthSR).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers

from r2reg.config import NetworkConfig
from r2reg.flow import backend
from r2reg.networks.unet import decoder_features

Tensor = Any
NAME = "harmoniser"
OUTPUTS = {role: f"harmonised_{role}" for role in ("moving", "fixed")}


def harmoniser(shape: tuple[int, ...], config: NetworkConfig, mixed: bool = False) -> keras.Model:
    """(N, *S, 1) -> (N, *S, 1): the U-Net of the network's settings, in full size, and a last convolution.

    Args:
        shape: (*S, 1), S divisible by 2^levels.
        mixed: the U-Net computes in half precision.
    """
    last = layers.Conv2D if config.ndim == 2 else layers.Conv3D
    image = keras.Input(shape)
    features = decoder_features(image, dataclasses.replace(config, velocity_size="full"), mixed)[1]
    with backend.dtype_policy("float32"):
        return keras.Model(image, last(1, 3, padding="same", name="grey")(features), name=NAME)
