"""Displacements in the layout of the Learn2Reg challenge: .npz of voxels, components first."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from r2reg.errors import GridsNeededError, TransformError
from r2reg.geometry.grid import Grid, identity_points
from r2reg.geometry.transforms import Displacement
from r2reg.io.files import atomic_path


def read_npz(path: Path, fixed: Grid | None, moving: Grid | None) -> Displacement:
    """(d, X, Y[, Z]): what is added to a voxel's index in the fixed image to get the moving image's.

    Args:
        fixed, moving: the images' grids; of the challenge's they are the same.
    Raises:
        GridsNeededError: a grid is not known. TransformError: another shape, or not such a file.
    """
    fixed, moving = _known(path, fixed, moving)
    try:
        with np.load(path, allow_pickle=False) as file:
            voxels = np.asarray(file[file.files[0]], dtype=np.float64)
    except (OSError, EOFError, ValueError, IndexError, TypeError, zipfile.BadZipFile):
        raise TransformError(f"{path}: is not an .npz of one array of numbers; write it again") from None
    if voxels.shape != (fixed.ndim, *fixed.shape):
        raise TransformError(f"{path}: has shape {voxels.shape}, the reference asks for {(fixed.ndim, *fixed.shape)}")
    index = identity_points(fixed.shape)
    there = moving.index_to_ras(index + np.moveaxis(voxels, 0, -1))
    return Displacement(fixed, (there - fixed.index_to_ras(index)).astype(np.float32))


def _known(path: Path, fixed: Grid | None, moving: Grid | None) -> tuple[Grid, Grid]:
    if fixed is None or moving is None:
        raise GridsNeededError(f"{path}: an .npz counts in voxels of both images and tells no grid; name both")
    return fixed, moving


def write_npz(path: Path, field: Displacement, moving: Grid | None) -> None:
    """Write float32, compressed.

    Args:
        moving: the moving image's grid.
    Raises:
        GridsNeededError: it is not known.
        OutputError: it cannot be written.
    """
    _, moving = _known(path, field.grid, moving)
    index = identity_points(field.grid.shape)
    there = moving.ras_to_index(field.grid.index_to_ras(index) + field.vectors)
    with atomic_path(path) as temporary:
        # Its name in the file is arr_0, which the challenge's evaluation looks up.
        np.savez_compressed(temporary, np.moveaxis(there - index, -1, 0).astype(np.float32))
