"""Transform files in ITK's formats: affines (.mat, .tfm, .txt), displacement fields, composites (.h5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import GeometryError, ImageError, OutputError, TransformError
from r2reg.geometry.transforms import Affine, Displacement, Transform
from r2reg.io import itk, nifti
from r2reg.io.files import atomic_path, full_suffix
from r2reg.io.images import NIFTI_SUFFIXES
from r2reg.io.placement import affine_3d
from r2reg.io.stderr import native_stderr_muted

AFFINE_SUFFIXES = (".mat", ".tfm", ".txt")
PARAMETER_SUFFIXES = (*AFFINE_SUFFIXES, ".h5", ".hdf5", ".xfm")
INTENT_RAS, INTENT_LPS = (
    1006,
    1007,
)  # NIfTI "displacement vector" and "vector": ITK turns only the first to LPS
INVERTED = re.compile(r"\[\s*(?P<path>.+?)\s*,\s*(?P<flag>[01])\s*\]")


def read_transforms(path: Path | str) -> list[Transform]:
    """The affines and displacement fields of one file, the first applied first.

    Raises:
        TransformError: a file that is missing, truncated or no transform; NaN or singular parameters; a
            member that is neither linear nor a displacement field (it is named).
    """
    path = Path(path)
    if not path.exists():
        raise TransformError(f"{path}: no such file; check the path")
    try:
        if full_suffix(path) in NIFTI_SUFFIXES:
            return [_read_nifti_field(path)]
        if full_suffix(path) in PARAMETER_SUFFIXES:
            return itk.from_sitk_transform(_read_itk(path, itk.simpleitk().ReadTransform))
        return [_read_itk_field(path)]
    except ImageError as error:
        raise TransformError(str(error)) from error
    except (GeometryError, TransformError) as error:
        message = str(error)
        raise TransformError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def read_affine(path: Path | str) -> Affine:
    """The one affine of a file; a composite of affines becomes their product.

    Raises:
        TransformError: as `read_transforms`; a displacement field.
    """
    product: Affine | None = None
    for part in read_transforms(path):
        if not isinstance(part, Affine):
            raise TransformError(f"{path}: holds a displacement field; give an affine (.mat, .tfm, .txt)")
        product = part if product is None else Affine(part.matrix @ product.matrix)
    if product is None:
        raise TransformError(f"{path}: holds no transform; write it again")
    return product


def read_transform_list(specs: Sequence[str]) -> list[Transform]:
    """The transforms of several files in order, each a path or `[affine.mat,1]` for an affine's inverse.

    Raises:
        TransformError: as `read_transforms`; transforms of different dimensions.
    """
    parts: list[Transform] = []
    for spec in specs:
        match = INVERTED.fullmatch(spec.strip())
        if match is None:
            parts += read_transforms(spec)
        elif match["flag"] == "1":
            parts.append(read_affine(match["path"]).inverse())
        else:
            parts += read_transforms(match["path"])
    if len({part.ndim for part in parts}) > 1:
        raise TransformError(f"{', '.join(specs)}: 2-D and 3-D transforms cannot be chained; give one kind")
    return parts


def _read_itk(path: Path, read: Any) -> Any:
    try:
        with native_stderr_muted:
            return read(str(path))
    except RuntimeError as error:
        raise TransformError(
            f"{path}: is not a transform that ITK reads, or is truncated ({itk.reason(error)}); write it again"
        ) from error


def _read_itk_field(path: Path) -> Displacement:
    image = _read_itk(path, itk.simpleitk().ReadImage)
    if image.GetNumberOfComponentsPerPixel() != image.GetDimension():
        what = f"{image.GetDimension()}-D image of {image.GetNumberOfComponentsPerPixel()} values per voxel"
        raise TransformError(f"{path}: is a {what}; a displacement field has one per axis")
    return itk.displacement_from_sitk(image)


def _read_nifti_field(path: Path) -> Displacement:
    image = nifti.load(path)
    shape, intent = image.shape, int(image.header["intent_code"])
    ndim = shape[-1] if len(shape) == 5 and shape[3] == 1 else 0
    if intent not in (INTENT_RAS, INTENT_LPS) or ndim not in (2, 3) or (ndim == 2 and shape[2] != 1):
        raise TransformError(
            f"{path}: is not an ITK displacement field: shape {shape}, intent {intent}; "
            "it needs (X, Y, Z, 1, 3) or (X, Y, 1, 1, 2) and intent 1007"
        )
    vectors = nifti.data(path, image).reshape(*shape[:ndim], ndim).astype(np.float32, copy=False)
    if intent == INTENT_LPS:
        vectors = vectors * itk.lps_signs(ndim).astype(np.float32)
    return Displacement(nifti.grid(path, image, ndim, stored_ndim=ndim), vectors)


def write_affine(path: Path | str, affine: Affine) -> None:
    """Write an ITK affine (LPS mm), MATLAB 4 format for .mat, text for .tfm and .txt.

    Raises:
        OutputError: another ending, or a file that cannot be written.
    """
    path = Path(path)
    if full_suffix(path) not in AFFINE_SUFFIXES:
        raise OutputError(f"{path}: an affine is written as {', '.join(AFFINE_SUFFIXES)}; change the ending")
    sitk = itk.simpleitk()
    with atomic_path(path) as temporary:
        try:
            with native_stderr_muted:
                sitk.WriteTransform(itk.to_sitk_transform([affine], affine.ndim), str(temporary))
                sitk.ReadTransform(str(temporary))  # ITK's writers do not notice a full disk
        except RuntimeError as error:
            raise OutputError(
                f"{path}: cannot be written ({itk.reason(error)}); free space or choose another folder"
            ) from error


def write_displacement(path: Path | str, field: Displacement) -> None:
    """Write an ITK displacement field: (X, Y, Z, 1, 3) or (X, Y, 1, 1, 2) float32, LPS mm, intent 1007.

    Raises:
        OutputError: another ending, or a file that cannot be written.
    """
    import nibabel

    path = Path(path)
    if full_suffix(path) not in NIFTI_SUFFIXES:
        raise OutputError(f"{path}: a displacement field is written as .nii.gz or .nii; change the ending")
    d = field.ndim
    shape = (*field.grid.shape, *(1,) * (4 - d), d)
    signs = itk.lps_signs(d).astype(np.float32)
    vectors = np.multiply(field.vectors, signs, dtype=np.float32, casting="same_kind", order="F")
    image = nibabel.Nifti1Image(vectors.reshape(shape, order="F"), affine_3d(field.grid))
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_intent(INTENT_LPS, name="ITK displacement")
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nifti.save(temporary, image)
