"""Grids, images and transforms to and from SimpleITK objects: LPS millimetres, reversed array axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from r2reg.errors import TransformError
from r2reg.geometry.grid import Array, Grid
from r2reg.geometry.transforms import Affine, Displacement, Transform
from r2reg.threads import wanted_threads

OBJECT_NAME = re.compile(r"^(ITK ERROR: |sitk::ERROR: )?(\w+\(0x[0-9a-f]+\): )?")


def simpleitk() -> ModuleType:
    """SimpleITK, imported on first use, on as many threads as are wanted, without C++ warnings past the log."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(wanted_threads())
    return sitk


def lps_signs(ndim: int) -> Array:
    """(d,) factors between RAS and LPS; they are their own inverse."""
    return np.array([-1.0, -1.0, 1.0])[:ndim]


def reason(error: Exception) -> str:
    """The line of a SimpleITK exception that says what happened: the last, errno's guess left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Reason:")]
    return OBJECT_NAME.sub("", told[-1]) if told else type(error).__name__


def grid_from_sitk(image: Any) -> Grid:
    """Grid of a SimpleITK image: shape in nibabel's axis order, affine in RAS mm.

    Raises:
        GeometryError: directions or spacing that are not finite and invertible.
    """
    ndim = image.GetDimension()
    signs = lps_signs(ndim)
    affine = np.eye(ndim + 1)
    directions = np.array(image.GetDirection()).reshape(ndim, ndim)
    affine[:-1, :-1] = signs[:, None] * directions * np.array(image.GetSpacing())
    affine[:-1, -1] = signs * np.array(image.GetOrigin())
    return Grid(image.GetSize(), affine)


def _place(image: Any, grid: Grid) -> Any:
    signs = lps_signs(grid.ndim)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin((signs * grid.affine[:-1, -1]).tolist())
    image.SetDirection((signs[:, None] * grid.directions).ravel().tolist())
    return image


def to_sitk_image(array: np.ndarray, grid: Grid) -> Any:
    """SimpleITK image of a (X, Y[, Z]) array; bool becomes uint8, float16 becomes float32."""
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    # Reordered here: SimpleITK would do it voxel by voxel.
    return _place(simpleitk().GetImageFromArray(np.ascontiguousarray(array.T)), grid)


def from_sitk_image(image: Any) -> np.ndarray:
    """(X, Y[, Z]) array of a scalar SimpleITK image, its own memory."""
    return np.ascontiguousarray(simpleitk().GetArrayViewFromImage(image).T)


def to_sitk_transform(transforms: Sequence[Transform], ndim: int) -> Any:
    """One SimpleITK transform (LPS) that maps as the list does, first entry first; empty: identity."""
    sitk = simpleitk()
    parts = [_to_sitk_affine(t) if isinstance(t, Affine) else _to_sitk_field(t) for t in transforms]
    if len(parts) == 1:
        return parts[0]
    composite = sitk.CompositeTransform(ndim)
    for part in reversed(parts):  # ITK applies the last one added first
        composite.AddTransform(part)
    return composite


def _to_sitk_affine(affine: Affine) -> Any:
    signs = lps_signs(affine.ndim)
    transform = simpleitk().AffineTransform(affine.ndim)
    transform.SetMatrix((signs[:, None] * affine.matrix[:-1, :-1] * signs).ravel().tolist())
    transform.SetTranslation((signs * affine.matrix[:-1, -1]).tolist())
    return transform


def _to_sitk_field(field: Displacement) -> Any:
    sitk = simpleitk()
    axes = tuple(reversed(range(field.ndim)))
    # float64 is the only kind SimpleITK takes, 165 MB at 160x192x224: filled in place, once.
    vectors = np.empty((*reversed(field.grid.shape), field.ndim))
    for component, sign in enumerate(lps_signs(field.ndim)):
        np.multiply(field.vectors[..., component].transpose(axes), sign, out=vectors[..., component])
    image = _place(sitk.GetImageFromArray(vectors, isVector=True), field.grid)
    del vectors
    return sitk.DisplacementFieldTransform(image)  # takes the image's memory over


def displacement_from_sitk(image: Any) -> Displacement:
    """Displacement from a vector image of LPS millimetres; float32 vectors in RAS mm.

    Raises:
        GeometryError: NaN or infinite vectors, or a grid that cannot be used.
    """
    ndim = image.GetDimension()
    view = simpleitk().GetArrayViewFromImage(image)
    vectors = np.empty((*image.GetSize(), ndim), dtype=np.float32)
    axes = tuple(reversed(range(ndim)))
    for component, sign in enumerate(lps_signs(ndim)):
        np.multiply(view[..., component].transpose(axes), sign, out=vectors[..., component], casting="same_kind")
    return Displacement(grid_from_sitk(image), vectors)


def from_sitk_transform(transform: Any) -> list[Transform]:
    """The list of affines and displacements, the first applied first, that a SimpleITK transform stands for.

    Raises:
        TransformError: a member that is neither linear nor a displacement field (it is named).
        GeometryError: singular or NaN parameters.
    """
    sitk = simpleitk()
    kind = transform.GetName()
    if kind == "CompositeTransform":
        composite = sitk.CompositeTransform(transform)
        members = [composite.GetNthTransform(n) for n in range(composite.GetNumberOfTransforms())]
        if [member.GetName() for member in members] == [kind] and transform.IsLinear():
            # SimpleITK's way to hold a type it has no class for, such as c3d's MatrixOffsetTransformBase: the only
            # member is the composite itself, without end.
            return [_affine_of_linear(transform)]
        return [part for member in reversed(members) for part in from_sitk_transform(member)]
    if kind == "DisplacementFieldTransform":
        return [displacement_from_sitk(sitk.DisplacementFieldTransform(transform).GetDisplacementField())]
    if not transform.IsLinear():
        raise TransformError(f"holds a {kind}; only affines and displacement fields can be applied")
    return [_affine_of_linear(transform)]


def _affine_of_linear(transform: Any) -> Affine:
    """Matrix of any linear transform (Euler, versor, scale, ...), read off from where it maps points."""
    ndim = transform.GetDimension()
    signs = lps_signs(ndim)
    zero = np.array(transform.TransformPoint([0.0] * ndim))
    # Differences over 1 m: rounding of the offset does not reach the matrix.
    reach = 1000.0
    columns = [(np.array(transform.TransformPoint(axis.tolist())) - zero) / reach for axis in np.eye(ndim) * reach]
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = signs[:, None] * np.stack(columns, axis=1) * signs
    matrix[:-1, -1] = signs * zero
    return Affine(matrix)
