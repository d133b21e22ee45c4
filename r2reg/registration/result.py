"""The result of a registration: built once, only read afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from r2reg.geometry.transforms import Affine, Displacement, Transform
from r2reg.registration.pair import Pair


@dataclass(frozen=True, kw_only=True)
class RegistrationResult:
    """What was found for a pair.

    Attributes:
        pair: what was given.
        affine: fixed -> moving points; acts after the warp.
        warp: on fixed's grid; moved(x) = moving(affine(warp(x))).
        inverse_warp: on fixed's grid; undoes the warp, to be applied after the inverse affine.
        moved: (X, Y[, Z]) float32 on fixed's grid, moving's own intensities.
        moved_labels: on fixed's grid, of the labels' dtype, or None.
        moved_points: fixed's points in moving space, (n, d) RAS mm, or None.
        jacobian: (X, Y[, Z]) float32, determinant of affine and warp.
        metrics: the content of metrics.json but for what the command adds.
    """

    pair: Pair
    affine: Affine
    warp: Displacement
    inverse_warp: Displacement
    moved: np.ndarray
    moved_labels: np.ndarray | None
    moved_points: np.ndarray | None
    jacobian: np.ndarray
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def transforms(self) -> list[Transform]:
        """[warp, affine]: fixed points to moving points, the warp first."""
        return [self.warp, self.affine]
