"""NIfTI files through nibabel: whole reads, the header's geometry as a grid, and headers kept on writing."""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from r2reg.errors import ImageError
from r2reg.geometry.grid import Array, Grid
from r2reg.io.placement import affine_3d, checked_grid, orthonormal, slice_grid

log = logging.getLogger("r2reg.io")

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LEVEL = 1  # nibabel's own; noise in float32 voxels does not pack better at any
MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}  # any other unit, `unknown` included, counts as mm, as in ITK
VOXEL_TOLERANCE = 1e-3  # voxels by which two readings of one header may differ without a word


def load(path: Path) -> Any:
    """The nibabel image of a .nii or .nii.gz file, all bytes read and checked (gzip's checksum included).

    Raises:
        ImageError: unreadable, truncated, corrupt, not NIfTI, or a single part of an .hdr/.img pair.
    """
    import nibabel
    from nibabel import imageglobals

    try:
        raw = path.read_bytes()
        if raw[:2] == GZIP_MAGIC:
            raw = gzip.decompress(raw)
        kind = nibabel.Nifti2Image if nibabel.Nifti2Header.may_contain_header(raw) else nibabel.Nifti1Image
        with silent(imageglobals.logger):  # what nibabel repairs is checked here, or an error of one line
            image = kind.from_bytes(raw)
            check_pixdim(raw, image.header)
            return image
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    # nibabel, gzip, zlib and numpy each raise their own kinds for a bad file; every one means the same here.
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: cannot be read ({why}); the file is truncated or not NIfTI, fetch it again"
        ) from error


@contextmanager
def silent(logger: logging.Logger) -> Iterator[None]:
    """Drop a logger's records; without handlers of its own they would reach those of the command line."""
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def check_pixdim(raw: bytes, header: Any) -> None:
    """nibabel turns a voxel size of 0 into 1 silently; an affine made from it would be invented."""
    stored = type(header).from_fileobj(io.BytesIO(raw), check=False)
    spatial = stored["pixdim"][1 : 1 + min(int(stored["dim"][0]), 3)]
    if stored["sform_code"] <= 0 and not (np.isfinite(spatial).all() and (spatial != 0).all()):
        raise ImageError(f"voxel size {spatial.tolist()} holds zero or NaN; repair the image's header")


def data(path: Path, image: Any) -> np.ndarray:
    """Voxels of a loaded image, scaled by scl_slope and scl_inter; integers stay so without scaling.

    Raises:
        ImageError: colours, complex numbers, or fewer voxels than the header says.
    """
    dtype = image.header.get_data_dtype()
    if dtype.fields is not None or dtype.kind == "V":
        raise ImageError(f"{path}: holds RGB colours; convert it to one grey value per voxel")
    if dtype.kind == "c":
        raise ImageError(f"{path}: holds complex numbers; save their magnitude")
    try:
        return np.asarray(image.dataobj)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: cannot be read ({why}); the file is truncated, fetch it again") from error


def grid(path: Path, image: Any, ndim: int, stored_ndim: int | None = None) -> Grid:
    """Grid of the first `ndim` axes: nibabel's affine in mm, with directions that ITK can hold.

    A 2-D file gets the in-plane block of its affine; a single slice of a 3-D header gets axes along L and P.
    Both are as ITK reads them.

    Args:
        stored_ndim: 2 or 3, for files whose shape does not tell it (vector fields); default: from the shape.

    Raises:
        ImageError: a singular or NaN affine, shear, or a 2-D image that does not lie in the R-A plane.
    """
    header = image.header
    scale = MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    affine = np.diag([scale, scale, scale, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    shape = image.shape[:ndim]
    full = checked_grid(path, (*shape, 1)[:3], affine)
    _warn_if_itk_differs(path, header, full, scale)
    if ndim == 3:
        two_forms = header["qform_code"] > 0 and header["sform_code"] > 0
        return orthonormal(path, full, "set its sform_code to 0 to use the qform" if two_forms else None)
    return slice_grid(path, full, stored_ndim or len(image.shape))


def _itk_affine(header: Any, scale: float) -> Array:
    """The affine ITK reads: sform before qform only if it is `scanner` or alone; spacing always pixdim's."""
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    if sform > 0 and (qform <= 0 or sform == 1):
        affine = np.array(header.get_sform(), dtype=np.float64)
    elif qform > 0:
        affine = np.array(header.get_qform(), dtype=np.float64)
    length = np.linalg.norm(affine[:3, :3], axis=0)
    affine[:3, :3] *= np.abs(header["pixdim"][1:4].astype(np.float64)) / np.where(length, length, 1)
    affine[:3] *= scale
    return affine


def _warn_if_itk_differs(path: Path, header: Any, full: Grid, scale: float) -> None:
    corners = full.corners()
    itk = corners @ (affine := _itk_affine(header, scale))[:3, :3].T + affine[:3, 3]
    axes = 3 if full.shape[2] > 1 else 2  # a 2-D file's third voxel size often is 0 and means nothing
    gap = np.abs(full.ras_to_index(itk) - corners)[:, :axes].max()
    if not gap <= VOXEL_TOLERANCE:
        log.warning(
            "%s: sform (code %d), qform (code %d) and voxel size say different things; r2reg goes by "
            "nibabel's rule, ITK and ANTs place it %.3g voxels away",
            path, header["sform_code"], header["qform_code"], gap,
        )  # fmt: skip


def save(path: Path, image: Any) -> None:
    """Write a nibabel image, packed where the name ends in .gz: by ISA-L, in a tenth of zlib's time and as small.

    The file's content follows from the image alone: it holds no time and no name.
    """
    if not path.name.lower().endswith(".gz"):
        image.to_filename(path)
        return
    with packing(path) as packed:
        image.to_stream(packed)


@contextmanager
def packing(path: Path) -> Iterator[Any]:
    """A stream into a new file, packed where its name ends in .gz."""
    from isal import igzip

    with path.open("wb") as stream:
        if not path.name.lower().endswith(".gz"):
            yield stream
            return
        with igzip.IGzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=stream, mtime=0) as packed:
            yield packed


def new_image(array: np.ndarray, grid: Grid, header: Any = None) -> Any:
    """A nibabel image of (X, Y[, Z]) voxels: placed as `header` where given, else sform and qform of grid."""
    import nibabel

    array = np.asfortranarray(array)  # the file's order; nibabel would reorder voxel by voxel
    if header is not None:
        return _with_header(array, header)
    image = nibabel.Nifti1Image(array, affine_3d(grid), dtype=array.dtype)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return image


def _with_header(array: np.ndarray, header: Any) -> Any:
    import nibabel

    header = header.copy()
    stored = header.get_data_shape()
    # One slice of a 3-D header stays one, so that the result is read as its model is.
    shape = (*array.shape, 1) if array.ndim == 2 and len(stored) > 2 else array.shape
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # a display window of other intensities
    header.set_intent("none")
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    return kind(array.reshape(shape, order="F"), None, header, dtype=array.dtype)
