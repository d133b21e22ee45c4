"""The scores of a pair before registration, after the affine and after all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r2reg.geometry.transforms import Transform, map_points
from r2reg.io.images import Volume
from r2reg.metrics.overlap import dice
from r2reg.metrics.points import tre_mm
from r2reg.metrics.similarity import image_similarity
from r2reg.metrics.surface import hd95_mm
from r2reg.registration.pair import Pair
from r2reg.resampling import resample


def score_stages(
    pair: Pair, normalised: tuple[np.ndarray, np.ndarray], stages: dict[str, Sequence[Transform]]
) -> dict[str, Any]:
    """{"similarity": {stage: {...}}, "dice": ..., "hd95_mm": ..., "tre_mm": ...}; keys without input are absent.

    Args:
        normalised: moving and fixed in [0, 1], each on its own grid.
        stages: name -> transforms from fixed to moving points.
    """
    by_stage = {name: _score(pair, normalised, transforms) for name, transforms in stages.items()}
    kinds = next(iter(by_stage.values())).keys()
    return {kind: {stage: scores[kind] for stage, scores in by_stage.items()} for kind in kinds}


def _score(
    pair: Pair, normalised: tuple[np.ndarray, np.ndarray], transforms: Sequence[Transform]
) -> dict[str, dict[str, Any]]:
    moving, fixed = normalised
    grid = pair.fixed.grid
    moved = resample(Volume(moving, pair.moving.grid), grid, transforms, "linear", 0.0)
    mask = pair.fixed_mask.array if pair.fixed_mask else None
    scores: dict[str, dict[str, Any]] = {"similarity": dict(image_similarity(fixed, moved, mask))}
    if pair.moving_labels and pair.fixed_labels:
        labels = resample(pair.moving_labels, grid, transforms, "nearest", 0)
        scores["dice"] = dice(pair.fixed_labels.array, labels)
        scores["hd95_mm"] = hd95_mm(pair.fixed_labels.array, labels, grid.spacing)
    if pair.moving_points and pair.fixed_points:
        scores["tre_mm"] = tre_mm(map_points(transforms, pair.fixed_points.ras), pair.moving_points.ras)
    return scores
