"""Label maps of random smooth shapes, of no anatomy: what a network for any image can be trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from r2reg.config import TrainConfig
from r2reg.errors import ConfigError
from r2reg.training.grids import MOST_PARTS
from r2reg.training.motion import GRID_MM, resized
from r2reg.training.prepare import Cache, Item, Source

MAPS, HELD_OUT = 64, 8  # trained on, and validated on
CLASSES = 16
WAVES_MM = (16.0, 80.0)  # between two control points of a class's field, log-uniform within
BODY = (0.7, 1.8)  # radius of what is not background, half views, uniform within; sqrt(3) reaches the corners
ROUGH = 0.15  # standard deviation of the body's radius over its surface
VERSION = 1  # part of the cache's key: raise it when the shapes change


def shape_items(config: TrainConfig, cache: Cache) -> list[Item]:
    """Maps of random shapes on the label grid of the training grid, in the cache; each made of the seed and its number.

    Raises:
        ConfigError: no shape was given.
    """
    if config.shape is None:
        raise ConfigError("random shapes need the size of the training grid: --shape, such as --shape 64x64x64")
    shape = tuple(n * MOST_PARTS for n in config.shape)
    spacing = tuple(s / MOST_PARTS for s in config.model.spacing)
    items = []
    for number in range(MAPS + HELD_OUT):
        named = json.dumps([VERSION, config.seed, number, shape, spacing])
        key = "shapes" + hashlib.sha256(named.encode()).hexdigest()[:26]
        source = Source(f"shapes {number}")
        found = cache.find(source, key)
        if found is None:
            labels = draw_shapes(np.random.default_rng([config.seed, number]), shape, spacing)
            found = cache.store(source, key, {"image": None, "labels": labels, "mask": None})
        items.append(found)
    return items


def draw_shapes(rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """A label map: in each voxel the class whose smooth random field is largest; 0 outside a round body.

    Args:
        spacing: mm.
    Returns:
        (*shape) uint8, 0 to CLASSES.
    """
    extent = np.array(shape) * spacing
    best = np.full(shape, -np.inf, np.float32)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, CLASSES + 1):
        field = _smooth_field(rng, np.exp(rng.uniform(*np.log(WAVES_MM))), extent, shape)
        higher = field > best
        best[higher], labels[higher] = field[higher], label
    along = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    radius = np.sqrt(np.asarray(sum(a**2 for a in along)))
    limit = rng.uniform(*BODY) + ROUGH * _smooth_field(rng, WAVES_MM[1], extent, shape)
    labels[radius > limit] = 0
    return labels


def _smooth_field(rng: np.random.Generator, wave: float, extent: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(*shape) float32, of standard deviation near 1 at its control points, which lie `wave` mm apart."""
    knots = np.maximum(np.ceil(extent / wave), 2).astype(int)
    coarse = np.maximum(np.ceil(extent / GRID_MM), 4).astype(int)
    field = resized(rng.standard_normal((*knots, 1), np.float32), coarse, order=3)
    return resized(field, shape, order=1)[..., 0]
