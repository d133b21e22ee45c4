"""From a file's header to a grid that ITK can hold too: right angles, and how slices become 2-D."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from r2reg.errors import GeometryError, ImageError
from r2reg.geometry.grid import Array, Grid

log = logging.getLogger("r2reg.io")

EXACT_COSINE = 1e-5  # below this, ITK itself takes the directions for orthonormal
MAX_COSINE = 1e-3  # of the angle between two axes; beyond this it is shear, not rounding


def checked_grid(path: Path, shape: tuple[int, ...], affine: Array) -> Grid:
    """Grid(shape, affine) whose error names the file.

    Raises:
        ImageError: an affine that is singular or not finite, or an empty axis.
    """
    try:
        return Grid(shape, affine)
    except GeometryError as error:
        raise ImageError(f"{path}: {error}") from error


def orthonormal(path: Path, grid: Grid, way_out: str | None = None) -> Grid:
    """The grid, its directions moved to the nearest orthonormal ones where they differ by rounding.

    Raises:
        ImageError: shear; ITK's images and fields cannot hold it.
    """
    cosine = np.abs(grid.directions.T @ grid.directions - np.eye(grid.ndim)).max()
    if cosine <= EXACT_COSINE:
        return grid
    if cosine > MAX_COSINE:
        hint = way_out or "resample it to a grid with right angles"
        raise ImageError(
            f"{path}: the affine has shear (cosine {cosine:.3g} between axes), which ITK cannot hold; {hint}"
        )
    left, _, right = np.linalg.svd(grid.directions)  # the polar factor, which is also what nibabel writes as qform
    affine = grid.affine.copy()
    affine[:-1, :-1] = (left @ right) * grid.spacing
    return Grid(grid.shape, affine)


def slice_grid(path: Path, full: Grid, stored_ndim: int) -> Grid:
    """2-D grid of a 3-D grid with one slice, as ITK reads it in 2-D.

    Args:
        stored_ndim: 2 where the file says it is 2-D: ITK keeps the in-plane block of its directions. 3 for a
            slice of a 3-D header (X, Y, 1): ITK in 2-D drops the directions and keeps origin and spacing.
    Raises:
        ImageError: a 2-D file whose plane is not that of R and A.
    """
    affine = np.eye(3)
    affine[:2, 2] = full.affine[:2, 3]
    if stored_ndim > 2:
        affine[:2, :2] = np.diag(-full.spacing[:2])
        if np.abs(full.directions - np.diag([-1, -1, full.directions[2, 2]])).max() > MAX_COSINE:
            log.warning(
                "%s: a single slice of a 3-D header is read as ITK and ANTs do in 2-D: its axes count as L "
                "and P and the header's directions are dropped; save it as a 2-D image to keep them",
                path,
            )
        return checked_grid(path, full.shape[:2], affine)
    block = full.directions[:2, :2]
    length = np.linalg.norm(block, axis=0)
    if length.min() < MAX_COSINE or abs(block[:, 0] @ block[:, 1]) > MAX_COSINE * length.prod():
        raise ImageError(
            f"{path}: the 2-D image does not lie in the R-A plane of its header, which ITK cannot hold; "
            "give it an axial header or save it as a 3-D image with one slice"
        )
    affine[:2, :2] = block / length * full.spacing[:2]
    return orthonormal(path, checked_grid(path, full.shape[:2], affine))


def affine_3d(grid: Grid) -> Array:
    """(4, 4) affine of a grid, RAS mm; a 2-D one lies at z = 0 with slices 1 mm thick."""
    affine = np.eye(4)
    d = grid.ndim
    affine[:d, :d] = grid.affine[:-1, :-1]
    affine[:d, 3] = grid.affine[:-1, -1]
    return affine
