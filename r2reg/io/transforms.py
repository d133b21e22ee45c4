"""Transform files: ITK's affines, displacement fields and composites here, other tools' in modules of their own.

| ending | holds |
| --- | --- |
| .mat, .tfm, .txt | ITK affine; .mat of text: FLIRT's matrix |
| .nii.gz, .nii | displacement field of ITK, AFNI or FSL, told apart by shape and intent |
| .h5, .hdf5 | ITK composite |
| .x5 | X5 |
| .lta | FreeSurfer's linear transform |
| .npz | displacement in voxels, Learn2Reg's layout |
| .mha, .nrrd, ... | ITK displacement field (read only) |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import GeometryError, GridsNeededError, ImageError, OutputError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, Transform, as_displacement
from r2reg.io import fsl, itk
from r2reg.io.composite import COMPOSITE_SUFFIXES, write_composite
from r2reg.io.fields import Tool, read_displacement, write_displacement
from r2reg.io.files import atomic_path, full_suffix
from r2reg.io.images import NIFTI_SUFFIXES
from r2reg.io.stderr import native_stderr_muted

AFFINE_SUFFIXES = (".mat", ".tfm", ".txt")
PARAMETER_SUFFIXES = (*AFFINE_SUFFIXES, *COMPOSITE_SUFFIXES, ".xfm")
WRITTEN_SUFFIXES = (*AFFINE_SUFFIXES, *NIFTI_SUFFIXES, *COMPOSITE_SUFFIXES, ".x5", ".lta", ".npz")
INVERTED = re.compile(r"\[\s*(?P<path>.+?)\s*,\s*(?P<flag>[01])\s*\]")


def read_transforms(path: Path | str, *, fixed: Grid | None = None, moving: Grid | None = None) -> list[Transform]:
    """The affines and displacement fields of one file, the first applied first.

    Args:
        fixed, moving: the images' grids, which FSL's files and .npz need.
    Raises:
        TransformError: a file that is missing, truncated or no transform; NaN or singular parameters; a
            member that is neither linear nor a displacement field (it is named).
    """
    path = Path(path)
    if not path.exists():
        raise TransformError(f"{path}: no such file; check the path")
    try:
        suffix = full_suffix(path)
        if suffix in NIFTI_SUFFIXES:
            return [read_displacement(path, moving)]
        if suffix == ".lta":
            from r2reg.io.freesurfer import read_lta

            return [read_lta(path)]
        if suffix == ".x5":
            from r2reg.io.x5 import read_x5

            return read_x5(path)
        if suffix == ".npz":
            from r2reg.io.learn2reg import read_npz

            return [read_npz(path, fixed, moving)]
        if suffix == ".mat" and fsl.is_flirt(path):
            return [fsl.read_flirt(path, fixed, moving)]
        if suffix in PARAMETER_SUFFIXES:
            _check_hdf5(path, suffix)
            parts = itk.from_sitk_transform(_read_itk(path, itk.simpleitk().ReadTransform))
            if not parts:
                raise TransformError("holds no transform; write it again")
            return parts
        return [_read_itk_field(path)]
    except ImageError as error:
        raise TransformError(str(error)) from error
    except GridsNeededError:
        raise
    except (GeometryError, TransformError) as error:
        message = str(error)
        raise TransformError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def read_affine(path: Path | str, *, fixed: Grid | None = None, moving: Grid | None = None) -> Affine:
    """The one affine of a file; a composite of affines becomes their product.

    Raises:
        TransformError: as `read_transforms`; a displacement field.
    """
    product: Affine | None = None
    for part in read_transforms(path, fixed=fixed, moving=moving):
        if not isinstance(part, Affine):
            raise TransformError(f"{path}: holds a displacement field; give an affine (.mat, .tfm, .txt)")
        product = part if product is None else Affine(part.matrix @ product.matrix)
    if product is None:
        raise TransformError(f"{path}: holds no transform; write it again")
    return product


def read_transform_list(
    specs: Sequence[str], *, fixed: Grid | None = None, moving: Grid | None = None
) -> list[Transform]:
    """The transforms of several files in order, each a path or `[affine.mat,1]` for an affine's inverse.

    Args:
        fixed, moving: see `read_transforms`.
    Raises:
        TransformError: as `read_transforms`; transforms of different dimensions.
    """
    grids = {"fixed": fixed, "moving": moving} if len(specs) == 1 else {}  # of a list's members nobody knows them
    parts: list[Transform] = []
    for spec in specs:
        match = INVERTED.fullmatch(spec.strip())
        path, inverted = (spec, False) if match is None else (match["path"], match["flag"] == "1")
        try:
            parts += [read_affine(path, **grids).inverse()] if inverted else read_transforms(path, **grids)
        except GridsNeededError as error:
            if len(specs) == 1:
                raise
            raise TransformError(
                f"{path}: depends on the grids of its own two images, which a list does not tell; "
                "write it as .h5 by r2reg convert first"
            ) from error
    if len({part.ndim for part in parts}) > 1:
        raise TransformError(f"{', '.join(specs)}: 2-D and 3-D transforms cannot be chained; give one kind")
    return parts


def _check_hdf5(path: Path, suffix: str) -> None:
    if suffix in (".h5", ".hdf5", ".hdf"):
        with path.open("rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                raise TransformError("is no HDF5 file, whatever its ending; write it again")


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


def write_transforms(
    path: Path | str,
    transforms: Sequence[Transform],
    *,
    tool: Tool = "itk",
    fixed: Grid | None = None,
    moving: Grid | None = None,
) -> None:
    """Write a list of transforms, the first acts first, in the format of the file's ending.

    What holds one affine gets the product of all; what holds one field gets all of them sampled on a grid.

    Args:
        tool: whose .mat or .nii.gz.
        fixed: the fixed image's grid, on which a field is sampled. Default: that of the field that acts first.
        moving: the moving image's grid, which FSL's files and .npz need.
    Raises:
        OutputError: an unknown ending, or a file that cannot be written.
        TransformError: what the format cannot hold.
    """
    path, suffix = Path(path), full_suffix(Path(path))
    if suffix not in WRITTEN_SUFFIXES:
        raise OutputError(
            f"{path}: no transform is written as {suffix or 'that'}; end in {', '.join(WRITTEN_SUFFIXES)}"
        )
    if tool != "itk" and suffix not in (".mat", *NIFTI_SUFFIXES):
        raise OutputError(f"{path}: --format {tool} is for .mat and .nii.gz; change the ending")
    if suffix in COMPOSITE_SUFFIXES:
        write_composite(path, transforms)
    elif suffix == ".x5":
        from r2reg.io.x5 import write_x5

        write_x5(path, transforms, fixed)
    elif suffix in (".lta", *AFFINE_SUFFIXES):
        _write_linear(path, _product(path, transforms), tool, fixed, moving)
    else:
        field = sampled(path, transforms, fixed)
        if suffix == ".npz":
            from r2reg.io.learn2reg import write_npz

            write_npz(path, field, moving)
        else:
            write_displacement(path, field, tool, moving)


def _write_linear(path: Path, affine: Affine, tool: Tool, fixed: Grid | None, moving: Grid | None) -> None:
    if full_suffix(path) == ".lta":
        from r2reg.io.freesurfer import write_lta

        write_lta(path, affine, fixed, moving)
    elif tool == "fsl":
        fsl.write_flirt(path, affine, fixed, moving)
    elif tool == "afni":
        raise OutputError(f"{path}: AFNI's matrices are not written; write a field for it, or .mat for ITK")
    else:
        write_affine(path, affine)


def _product(path: Path, transforms: Sequence[Transform]) -> Affine:
    matrix = np.eye(transforms[0].ndim + 1)
    for transform in transforms:
        if not isinstance(transform, Affine):
            raise TransformError(
                f"{path}: {full_suffix(path)} holds an affine alone, and there is a displacement field; "
                "write .h5, .x5, .nii.gz or .npz"
            )
        matrix = transform.matrix @ matrix
    return Affine(matrix)


def sampled(path: Path | str, transforms: Sequence[Transform], fixed: Grid | None) -> Displacement:
    """A list of transforms as one field on fixed's grid, or on that of the field that acts first.

    Raises:
        TransformError: there is no grid; `path` is what cannot be made.
    """
    first = transforms[0]
    if fixed is None and isinstance(first, Displacement):
        fixed = first.grid
    if fixed is None:
        raise TransformError(f"{path}: is sampled on a grid; give --reference FIXED")
    if any(transform.ndim != fixed.ndim for transform in transforms):
        kinds = f"{first.ndim}-D transforms and a {fixed.ndim}-D reference"
        raise TransformError(f"{path}: cannot be made of {kinds}; give all in one dimension")
    if len(transforms) == 1 and isinstance(first, Displacement) and fixed == first.grid:
        return first
    return as_displacement(transforms, fixed)


def composed(path: Path | str, transforms: Sequence[Transform], fixed: Grid | None) -> Transform:
    """A list of transforms as one: affines as their product, else a field on fixed's or the first field's grid.

    Raises:
        TransformError: `path` cannot be made from them without fixed.
    """
    if all(isinstance(transform, Affine) for transform in transforms):
        return _product(Path(path), transforms)
    return sampled(path, transforms, fixed)
