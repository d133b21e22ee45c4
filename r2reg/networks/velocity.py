"""The ways in which a network estimates the initial velocity: sampled, smoothed, or as the U-Net gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from r2reg.config import SMOOTHED, NetworkConfig
from r2reg.flow.smooth import gaussian
from r2reg.networks.unet import decoder_features, log_variance_head, velocity_head

Tensor = Any


class Sample(layers.Layer):
    """mean + exp(log_variance / 2) noise while training, the mean otherwise.

    Source: the reparameterisation of Dalca et al. 2018.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.noise = keras.random.SeedGenerator()  # from the seed of `start_backend`

    def call(self, inputs: list[Tensor], training: bool | None = None) -> Tensor:
        mean, log_variance = inputs
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.noise)
        return mean + ops.exp(log_variance / 2) * noise

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]


class GaussianSmoothing(layers.Layer):
    """Gaussian smoothing, sigma in voxels, the edge value held beyond the border."""

    def __init__(self, sigma: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sigma = sigma

    def call(self, field: Tensor) -> Tensor:
        return gaussian(field, sigma=self.sigma)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sigma": self.sigma}


@dataclass(frozen=True)
class InitialVelocity:
    """v0 (N, *S, d) in voxels per unit time; of a sampled one its mean and the logarithm of its variance as well."""

    value: Tensor
    mean: Tensor | None = None
    log_variance: Tensor | None = None

    def map(self, function: Any) -> InitialVelocity:
        """The same with a function applied to each part, such as a crop."""
        return InitialVelocity(*(None if part is None else function(part) for part in vars(self).values()))


def initial_velocities(images: Tensor, config: NetworkConfig, mixed: bool = False) -> dict[int, InitialVelocity]:
    """v0 from the concatenated pair, by the estimator that `config.velocity` names.

    Args:
        images: (N, *S, 2), S divisible by 2^levels.
        mixed: the U-Net computes in half precision.
    Returns:
        One for each of `config.scales`, in voxels of its own grid.
    Source: Joshi & Hong 2023, Table 1; the R2Nets halve the U-Net's output, as the published code does.
    """
    features = decoder_features(images, config, mixed)
    finest = min(features)
    return {scale: _initial_velocity(features[finest * scale], config, scale) for scale in config.scales}


def _initial_velocity(features: Tensor, config: NetworkConfig, scale: int) -> InitialVelocity:
    name = "" if scale == 1 else f"_{scale}"
    mean = velocity_head(features, config, f"flow{name}")
    if config.residual:
        mean = layers.Rescaling(0.5, name=f"half{name}")(mean)
    if config.velocity == "prob":
        log_variance = log_variance_head(features, config, f"log_variance{name}")
        return InitialVelocity(Sample(name=f"sample{name}")([mean, log_variance]), mean, log_variance)
    if config.velocity in SMOOTHED:
        return InitialVelocity(GaussianSmoothing(config.velocity_sigma, name=f"smooth{name}")(mean))
    return InitialVelocity(mean)
