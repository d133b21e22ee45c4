"""The scores of a pair before registration, after the affine and after all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from r2reg.geometry.transforms import map_points
from r2reg.io.images import Volume
from r2reg.metrics.overlap import dice
from r2reg.metrics.points import tre_mm
from r2reg.metrics.similarity import image_similarities
from r2reg.metrics.surface import hd95_mm
from r2reg.registration.pair import Pair
from r2reg.resampling import Resampler
from r2reg.threads import in_threads


@dataclass(frozen=True)
class Carried:
    """What a stage's transforms make of a pair.

    Attributes:
        image: (X, Y[, Z]), moving's intensities in [0, 1] on fixed's grid, 0 outside moving's view.
        labels: moving's on fixed's grid, of their dtype, or None.
        points: fixed's in moving space, (n, d) RAS mm, or None.
    """

    image: np.ndarray
    labels: np.ndarray | None
    points: np.ndarray | None


def carry(pair: Pair, moving: np.ndarray, onto_fixed: Resampler) -> Carried:
    """Carry what a pair holds through a stage's transforms, which lead from fixed to moving points.

    Args:
        moving: in [0, 1], on its own grid.
    """
    image = onto_fixed(Volume(moving, pair.moving.grid), "linear", 0.0)
    labels = onto_fixed(pair.moving_labels, "nearest", 0) if pair.moving_labels else None
    points = map_points(onto_fixed.transforms, pair.fixed_points.ras) if pair.fixed_points else None
    return Carried(image, labels, points)


def score_stages(pair: Pair, fixed: np.ndarray, stages: dict[str, Carried]) -> dict[str, Any]:
    """{"similarity": {stage: {...}}, "dice": ..., "hd95_mm": ..., "tre_mm": ...}; keys without input are absent.

    Args:
        fixed: in [0, 1], on its own grid.
        stages: name -> what moving has become.
    """
    mask = pair.fixed_mask.array if pair.fixed_mask else None
    similar = image_similarities(fixed, [carried.image for carried in stages.values()], mask)
    others = in_threads(lambda carried: _label_and_point_scores(pair, carried), stages.values())
    by_stage = [{"similarity": image} | other for image, other in zip(similar, others, strict=True)]
    return {kind: {stage: by_stage[n][kind] for n, stage in enumerate(stages)} for kind in by_stage[0]}


def _label_and_point_scores(pair: Pair, carried: Carried) -> dict[str, dict[str, Any]]:
    scores: dict[str, dict[str, Any]] = {}
    if pair.fixed_labels and carried.labels is not None:
        fixed = pair.fixed_labels.array
        scores["dice"] = dice(fixed, carried.labels)
        scores["hd95_mm"] = hd95_mm(fixed, carried.labels, pair.fixed.grid.spacing)
    if pair.moving_points and carried.points is not None:
        scores["tre_mm"] = tre_mm(carried.points, pair.moving_points.ras)
    return scores
