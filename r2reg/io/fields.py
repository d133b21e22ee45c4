"""Displacement fields in NIfTI files, as ITK, AFNI and FSL keep them: told apart by shape and intent."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from r2reg.errors import OutputError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Displacement
from r2reg.io import fsl, itk, nifti
from r2reg.io.files import atomic_path, full_suffix
from r2reg.io.images import NIFTI_SUFFIXES
from r2reg.io.placement import affine_3d

log = logging.getLogger("r2reg.io")

Tool = Literal["itk", "fsl", "afni"]

# NIfTI "displacement vector" and "vector": ITK turns only the first to LPS. AFNI's say nothing, and are LPS.
INTENT_RAS, INTENT_LPS, INTENT_NONE = 1006, 1007, 0
INTENTS: dict[Tool, tuple[int, tuple[()], str]] = {
    "itk": (INTENT_LPS, (), "ITK displacement"),
    "fsl": (fsl.INTENT_FIELD, (), fsl.RELATIVE),
    "afni": (INTENT_NONE, (), ""),
}
FLATTEST = 1e-4  # largest cosine between a voxel axis and the world's that AFNI does not call oblique


def is_oblique(grid: Grid) -> bool:
    """Whether an axis lies between the world's."""
    return bool(np.sort(np.abs(grid.directions), axis=0)[:-1].max() > FLATTEST)


def read_displacement(path: Path, moving: Grid | None = None) -> Displacement:
    """A field of ITK, AFNI or FSL.

    Args:
        moving: the moving image's grid, which FSL's needs.
    Raises:
        ImageError: no NIfTI. TransformError: no displacement field, or FSL's without the moving image's grid.
    """
    image = nifti.load(path)
    shape, intent = image.shape, int(image.header["intent_code"])
    if intent in fsl.INTENT_COEFFICIENTS:
        raise TransformError(f"{path}: holds FNIRT's spline coefficients; write the field by fnirtfileutils --out")
    if intent == fsl.INTENT_FIELD and len(shape) == 4 and shape[-1] == 3:
        name = bytes(image.header["intent_name"].item()).rstrip(b"\0").decode("latin-1")
        return fsl.from_fsl(path, nifti.data(path, image), nifti.grid(path, image, 3), moving, name)
    ndim = shape[-1] if len(shape) == 5 and shape[3] == 1 else 0
    if intent not in (INTENT_RAS, INTENT_LPS, INTENT_NONE) or ndim not in (2, 3) or (ndim == 2 and shape[2] != 1):
        raise TransformError(
            f"{path}: is no displacement field: shape {shape}, intent {intent}; it needs (X, Y, Z, 1, 3) or "
            "(X, Y, 1, 1, 2) with intent 1007 (ITK, ANTs) or none (AFNI), or (X, Y, Z, 3) with intent 2006 (FSL)"
        )
    vectors = nifti.data(path, image).reshape(*shape[:ndim], ndim).astype(np.float32, copy=False)
    grid = nifti.grid(path, image, ndim, stored_ndim=ndim)
    if intent == INTENT_NONE and is_oblique(grid):
        log.warning("%s: taken for AFNI's, but on an oblique grid, whose turn AFNI leaves out of account", path)
    if intent != INTENT_RAS:
        vectors = vectors * itk.lps_signs(ndim).astype(np.float32)
    return Displacement(grid, vectors)


def write_displacement(path: Path | str, field: Displacement, tool: Tool = "itk", moving: Grid | None = None) -> None:
    """Write a displacement field.

    ITK: (X, Y, Z, 1, 3) or (X, Y, 1, 1, 2) float32, LPS mm, intent 1007. AFNI: the same without intent. FSL:
    (X, Y, Z, 3) in FSL's mm, intent 2006.

    Args:
        moving: the moving image's grid, which FSL needs.
    Raises:
        OutputError: another ending, or a file that cannot be written. TransformError: what a tool cannot hold.
    """
    import nibabel

    path = Path(path)
    if full_suffix(path) not in NIFTI_SUFFIXES:
        raise OutputError(f"{path}: a displacement field is written as .nii.gz or .nii; change the ending")
    d = field.ndim
    if tool == "afni" and d == 2:
        raise TransformError(f"{path}: AFNI's fields are 3-D; write .nii.gz for ITK")
    if tool == "afni" and is_oblique(field.grid):
        raise TransformError(
            f"{path}: AFNI leaves an oblique grid's turn out of account; write it on a --reference along the axes"
        )
    if tool == "fsl":
        vectors = np.asfortranarray(fsl.to_fsl(path, field, moving))
    else:
        signs = itk.lps_signs(d).astype(np.float32)
        vectors = np.multiply(field.vectors, signs, dtype=np.float32, casting="same_kind", order="F")
        vectors = vectors.reshape((*field.grid.shape, *(1,) * (4 - d), d), order="F")
    image = nibabel.Nifti1Image(vectors, affine_3d(field.grid))
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_intent(*INTENTS[tool], allow_unknown=True)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nifti.save(temporary, image)
