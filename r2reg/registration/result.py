"""The result of a registration: built once, only read afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.config import Format, RegisterConfig
from r2reg.geometry.transforms import Affine, Displacement, Transform
from r2reg.io.nifti import new_image
from r2reg.io.objects import Image, as_volume
from r2reg.registration.pair import Pair
from r2reg.resampling import resample


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
        config: how it was found.
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
    config: RegisterConfig
    metrics: dict[str, Any] = field(default_factory=dict)

    def save(
        self,
        folder: Path | str,
        *,
        overwrite: bool = False,
        formats: Sequence[Format] | None = None,
        report: bool = True,
    ) -> None:
        """Write it into a folder as `r2reg register` does; metrics.json without times, versions and the command.

        Args:
            formats: of the transforms, see `RegisterConfig`; default: its own.
            report: write report.html as well.

        Raises:
            OutputError: a result is there already, or the folder cannot be written.
        """
        from r2reg.registration.writing import check_folder, output_staging, write_metrics, write_result

        check_folder(Path(folder), overwrite)
        with output_staging(Path(folder)) as staging:
            pictures = write_result(self, staging, formats, report)
            write_metrics({**self.metrics, "config": self.config.to_dict()}, staging, pictures)

    def apply(
        self, image: Image, interpolation: str = "linear", *, invert: bool = False, fill: float | None = None
    ) -> Any:
        """Another image of moving's space on fixed's grid; with `invert` one of fixed's space on moving's.

        Args:
            image: see `io.objects.as_volume`. interpolation, fill: see `resampling.resample`.
        Returns:
            A nibabel image.
        Raises:
            ImageError: an image that cannot be used.
        """
        volume = as_volume(image, interpolation)
        inverse: list[Transform] = [self.affine.inverse(), self.inverse_warp]
        grid, transforms = (self.pair.moving.grid, inverse) if invert else (self.pair.fixed.grid, self.transforms)
        return new_image(resample(volume, grid, transforms, interpolation, fill), grid)

    @property
    def moved_image(self) -> Any:
        """`moved` as a nibabel image."""
        return new_image(self.moved, self.pair.fixed.grid)

    @property
    def transforms(self) -> list[Transform]:
        """[warp, affine]: fixed points to moving points, the warp first."""
        return [self.warp, self.affine]
