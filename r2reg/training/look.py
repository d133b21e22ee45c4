"""Random looks of an image, as scanners differ: resolution, bias field, gamma, noise, field of view."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from r2reg.config import Augment
from r2reg.preprocessing.resolution import BLUR_PER_FACTOR
from r2reg.training.motion import resized

GAMMA = 0.3  # log of the exponent, uniform within
NOISE = 0.03  # standard deviation of the largest noise, intensities in [0, 1]
VOXEL_MM, SLICE_MM = 4.0, 8.0  # largest voxel, and largest distance of slices along one axis
BIAS, BIAS_KNOTS = 0.4, 4  # largest |log| of the bias field; its control points along an axis
CROP = 0.15  # largest share of the view that is cut off at one end of an axis


@dataclass(frozen=True)
class Look:
    """What is done to one image, in this order; the defaults do nothing.

    Attributes:
        voxel: (d,) mm, of the scan that is imitated; finer than the grid's: no change.
        bias: largest |log| of the smooth factor.
        gamma: exponent of the intensities.
        noise: standard deviation, inside the foreground.
        crop: (d, 2) shares of the view that are black at the lower and at the upper end of each axis.
        seed: of bias field and noise.
    """

    voxel: tuple[float, ...] = ()
    bias: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    crop: tuple[tuple[float, float], ...] = ()
    seed: int = 0


def draw_look(rng: np.random.Generator, kinds: Collection[Augment], ndim: int) -> Look:
    """A look of the given kinds; the numbers drawn do not depend on the kinds."""
    gamma, noise = float(np.exp(rng.uniform(-GAMMA, GAMMA))), float(rng.uniform(0, NOISE))
    seed = int(rng.integers(2**31))
    voxel = np.full(ndim, rng.uniform(0, VOXEL_MM))
    if rng.random() < 0.5:  # thick slices
        axis, distance = rng.integers(ndim), rng.uniform(0, SLICE_MM)
        voxel[axis] = max(voxel[axis], distance)
    bias = float(rng.uniform(0, BIAS))
    crop = rng.uniform(0, CROP, (ndim, 2)) * (rng.random((ndim, 2)) < 0.25)
    return Look(
        voxel=tuple(voxel.tolist()) if "resolution" in kinds else (),
        bias=bias if "bias" in kinds else 0.0,
        gamma=gamma if "intensity" in kinds else 1.0,
        noise=noise if "intensity" in kinds else 0.0,
        crop=tuple((float(low), float(high)) for low, high in crop) if "crop" in kinds else (),
        seed=seed,
    )


def looked(image: np.ndarray, look: Look, spacing: np.ndarray) -> np.ndarray:
    """An image with a look.

    Args:
        image: (*S) float32 in [0, 1], 0 in the background.
        spacing: (d,) mm.
    Returns:
        (*S) float32 in [0, 1].
    """
    if look.voxel:
        image = coarsened(image, np.array(look.voxel) / spacing)
    inside = image > 0
    rng = np.random.default_rng(look.seed)
    noise_rng, bias_rng = rng.spawn(2)
    if look.bias > 0:
        knots = bias_rng.normal(size=(*[BIAS_KNOTS] * image.ndim, 1))
        field = resized(knots, image.shape, order=3)[..., 0]
        image = image * np.exp(look.bias * field / np.abs(field).max()).astype(np.float32)
        image = image / max(float(image.max()), 1e-6)
    if look.gamma != 1:
        image = np.clip(image, 0, 1) ** np.float32(look.gamma)
    if look.noise > 0:
        image = image + np.float32(look.noise) * noise_rng.standard_normal(image.shape, np.float32) * inside
    image = np.clip(image, 0, 1)
    for axis, (low, high) in enumerate(look.crop):
        seen = np.arange(image.shape[axis]) / image.shape[axis]
        keep = (seen >= low) & (seen < 1 - high)
        image = image * keep.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return image.astype(np.float32)


def coarsened(image: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """What is left of an image of voxels larger by a factor along each axis; factors below 1 change nothing."""
    from scipy.ndimage import gaussian_filter

    sigma = BLUR_PER_FACTOR * np.sqrt(np.maximum(factor**2 - 1, 0))
    return gaussian_filter(image, sigma, truncate=3) if sigma.any() else image
