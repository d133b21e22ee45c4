"""Slices of a volume as radiology shows them."""

from __future__ import annotations

import numpy as np

from r2reg.geometry.grid import Grid, canonical_axes

# Plane -> world axis (R, A, S) that it cuts, and the axes that its columns and rows run along.
PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}


def middle(image: np.ndarray) -> tuple[int, ...]:
    """The voxel at the centre of mass of an image that is 0 outside what it shows."""
    weights = image.astype(np.float64)
    total = weights.sum()
    if total <= 0:
        return tuple(n // 2 for n in image.shape)
    axes = range(image.ndim)
    sums = [weights.sum(axis=tuple(a for a in axes if a != axis)) for axis in axes]
    return tuple(round(float(np.arange(len(s)) @ s / total)) for s in sums)


def slices(image: np.ndarray, grid: Grid, at: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Slices through a voxel: the patient's right on the left, anterior or superior at the top, pixels square.

    Args:
        image: (X, Y[, Z]) in [0, 1], on the grid.
        at: the voxel.
    Returns:
        axial, coronal and sagittal of a volume, "image" of a 2-D image: (H, W) uint8.
    """
    order, flips = canonical_axes(grid)
    turned = image.transpose(order)
    place, spacing = [at[axis] for axis in order], [float(grid.spacing[axis]) for axis in order]
    for axis, flip in enumerate(flips):
        if flip:
            turned = np.flip(turned, axis)
            place[axis] = turned.shape[axis] - 1 - place[axis]
    planes = PLANES if image.ndim == 3 else {"image": (None, 0, 1)}
    found = {}
    for name, (cut, across, up) in planes.items():
        plane = turned if cut is None else np.take(turned, place[cut], axis=cut)
        upright = plane.T[::-1]  # rows from the top; columns grow to the patient's right
        if across == 0:
            upright = upright[:, ::-1]  # seen from the front or the feet, the patient's right is on the left
        found[name] = _square(upright, spacing[up], spacing[across])
    return found


def _square(plane: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """The plane with pixels as large as its smaller spacing, as uint8."""
    from scipy.ndimage import zoom

    least = min(row_mm, column_mm)
    if max(row_mm, column_mm) > 1.01 * least:
        plane = zoom(
            plane.astype(np.float32), (row_mm / least, column_mm / least), order=1, grid_mode=True, mode="nearest"
        )
    return (np.clip(plane, 0, 1) * 255).round().astype(np.uint8)
