"""Carry a volume through transforms onto a reference grid, as antsApplyTransforms does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from r2reg.errors import ImageError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Transform, inverse_displacement
from r2reg.io import itk
from r2reg.io.images import Volume
from r2reg.settings import check_choice

SITK_NAMES = {
    "linear": "sitkLinear",
    "nearest": "sitkNearestNeighbor",
    "label": "sitkLabelLinear",  # each label's indicator linearly, the largest wins; ANTs' GenericLabel
    "bspline": "sitkBSpline",
}
KEEP_DTYPE = ("nearest", "label")


def resample(
    volume: Volume,
    reference: Grid,
    transforms: Sequence[Transform],
    interpolation: str = "linear",
    fill: float | None = None,
) -> np.ndarray:
    """out(x) = volume(t_n(...t_1(x))) for x on the reference grid.

    Args:
        volume: the moving image or label map.
        reference: where to sample; d as the volume's.
        transforms: in the order of ANTs' lists, the first acts on the point first; empty: identity.
        interpolation: linear and bspline give float32; nearest and label keep the dtype.
        fill: value outside the volume's view; default 0 for integers and masks, the minimum for floats.
    Returns:
        (X, Y[, Z]) of the reference.
    Raises:
        TransformError: transforms, volume and reference of different dimensions.
        ImageError: label interpolation of an image that is not integer, or a fill that its type cannot hold.
    """
    return Resampler(reference, transforms)(volume, interpolation, fill)


class Resampler:
    """`resample` for several volumes: ITK's copy of the transforms (of a field, twice its size) is made once.

    Args:
        reference, transforms: as of `resample`.
    """

    def __init__(self, reference: Grid, transforms: Sequence[Transform]) -> None:
        self.reference = reference
        self.transforms = transforms

    def __call__(self, volume: Volume, interpolation: str = "linear", fill: float | None = None) -> np.ndarray:
        """As `resample`."""
        check_choice("interpolation", interpolation, SITK_NAMES)
        ndim = _common_dimension(volume, self.reference, self.transforms)
        _check_values(volume, interpolation, fill)
        array = volume.array
        if fill is None:
            fill = float(array.min()) if array.dtype.kind == "f" else 0.0
        if interpolation not in KEEP_DTYPE:
            array = array.astype(np.float32, copy=False)
        sitk = itk.simpleitk()
        moved = sitk.Resample(
            itk.to_sitk_image(array, volume.grid),
            self.reference.shape,
            self._transform,
            getattr(sitk, SITK_NAMES[interpolation]),
            (itk.lps_signs(ndim) * self.reference.affine[:-1, -1]).tolist(),
            self.reference.spacing.tolist(),
            (itk.lps_signs(ndim)[:, None] * self.reference.directions).ravel().tolist(),
            fill,
        )
        return itk.from_sitk_image(moved).astype(array.dtype, copy=False)

    @cached_property
    def _transform(self) -> Any:
        return itk.to_sitk_transform(self.transforms, self.reference.ndim)


def invert_onto(transforms: Sequence[Transform], grid: Grid) -> tuple[list[Transform], np.ndarray]:
    """The inverse of a list, to resample on `grid`: exact for affines, else sampled at its voxels.

    Returns:
        the inverse as a list, and its residual in mm at each voxel, (X, Y[, Z]).
    """
    if all(isinstance(t, Affine) for t in transforms):
        return [t.inverse() for t in reversed(transforms) if isinstance(t, Affine)], np.zeros(grid.shape)
    if any(transform.ndim != grid.ndim for transform in transforms):
        raise TransformError(
            f"{transforms[0].ndim}-D transforms have no inverse on a {grid.ndim}-D grid; give one kind"
        )
    inverse, residual = inverse_displacement(transforms, grid)
    return [inverse], residual


def _common_dimension(volume: Volume, reference: Grid, transforms: Sequence[Transform]) -> int:
    found = {"image": volume.grid.ndim, "reference": reference.ndim}
    found |= {f"transform {n + 1}": t.ndim for n, t in enumerate(transforms)}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {ndim}-D" for name, ndim in found.items())
        raise TransformError(f"image, reference and transforms differ in dimension ({listed}); give all in one")
    return reference.ndim


def _check_values(volume: Volume, interpolation: str, fill: float | None) -> None:
    where = volume.path or "image"
    integer = volume.array.dtype.kind in "iu"
    if interpolation == "label" and not integer:
        raise ImageError(f"{where}: label interpolation needs integers, not {volume.array.dtype}; use nearest")
    if fill is not None and integer and interpolation in KEEP_DTYPE:
        limits = np.iinfo(volume.array.dtype)
        if fill != round(fill) or not limits.min <= fill <= limits.max:
            raise ImageError(f"{where}: {volume.array.dtype} cannot hold the fill value {fill:g}; choose another")
