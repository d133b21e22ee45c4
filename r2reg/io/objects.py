"""Images that a Python program holds already: nibabel's, SimpleITK's, ANTsPy's, or an array with its affine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import GeometryError, ImageError
from r2reg.geometry.grid import Grid
from r2reg.io import images, itk
from r2reg.io.images import Volume
from r2reg.io.placement import orthonormal

Image = Any  # a path, or one of the objects

INTERPOLATIONS = ("linear", "nearest", "label", "bspline")
READERS: dict[str, Callable[..., Volume]] = {
    "image": images.read_image,
    "labels": images.read_labels,
    "mask": images.read_mask,
    **{name: partial(images.read_for, name, volume=None, ndim=None) for name in INTERPOLATIONS},
}
CHECKS: dict[str, Callable[..., Volume]] = {
    **{kind: partial(images.checked, kind=kind) for kind in ("image", "labels", "mask")},
    **{name: partial(images.made_for, name) for name in INTERPOLATIONS},
}
KINDS = "a path, a nibabel, SimpleITK or ANTsPy image, or (array, affine)"


def as_volume(image: Image, kind: str = "image", name: str = "image") -> Volume:
    """A volume of what was given, checked as a file would be.

    Args:
        image: a path; a nibabel image; a SimpleITK image; an ANTsPy image; (array, affine) with (X, Y[, Z]) voxels and
            the (d+1, d+1) affine from voxel indices to RAS mm.
        kind: image, labels or mask; or an interpolation that it will be resampled by, which asks for less.
        name: how errors call it.
    Raises:
        ImageError: none of these, or voxels or a grid that cannot be used.
    """
    if isinstance(image, (str, Path)):
        return READERS[kind](path=image)
    where = Path(name)
    try:
        array, affine = _parts(image, name)
    except (TypeError, ValueError, AttributeError):
        raise ImageError(f"{name}: is {type(image).__name__}; give {KINDS}") from None
    if array.dtype.kind not in "biuf":
        raise ImageError(f"{name}: holds {array.dtype}; give one number per voxel")
    try:
        grid = orthonormal(where, Grid(array.shape, affine))
    except GeometryError as error:
        raise ImageError(f"{name}: {error}") from None
    return CHECKS[kind](loaded=Volume(array, grid, where))


def _parts(image: Image, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in array-axis order, and their affine in RAS mm."""
    if hasattr(image, "dataobj"):  # nibabel
        array = np.asanyarray(image.dataobj)
        return array.reshape(array.shape[:3]) if array.ndim == 4 and array.shape[3] == 1 else array, image.affine
    if hasattr(image, "GetPixelIDTypeAsString"):  # SimpleITK
        if image.GetDimension() > 3:
            raise ImageError(f"{name}: has {image.GetDimension()} dimensions; give a volume of it, image[:, :, :, 0]")
        grid = itk.grid_from_sitk(image)
        return itk.from_sitk_image(image), grid.affine
    if hasattr(image, "direction") and hasattr(image, "numpy"):  # ANTsPy
        array = image.numpy()
        signs = itk.lps_signs(array.ndim)
        affine = np.eye(array.ndim + 1)
        affine[:-1, :-1] = signs[:, None] * np.asarray(image.direction) * np.asarray(image.spacing)
        affine[:-1, -1] = signs * np.asarray(image.origin)
        return array, affine
    array, affine = image
    return np.asarray(array), np.asarray(affine, dtype=np.float64)
