"""Slices of a volume as radiology shows them: the patient's right on the left, anterior or superior at the top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r2reg.geometry.grid import Array, Grid, canonical_axes
from r2reg.geometry.transforms import Transform
from r2reg.io.images import Volume
from r2reg.resampling import resample

# Plane -> world axis (R, A, S) that it cuts, and the axes that its columns and rows run along.
PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}
LARGEST = 256  # pixels along a slice's longer side; finer images are thinned out
OUTER = 0.03  # share of what an image shows that lies beyond its first and beyond its last slice


def views(image: np.ndarray, grid: Grid, count: int = 1) -> dict[str, Grid]:
    """Grids on which to sample what is shown: square pixels, slices spread over what the image shows.

    Args:
        image: (X, Y[, Z]), 0 outside what it shows; on the grid.
        count: slices of each plane, at most; one lies in the middle.
    Returns:
        axial, coronal and sagittal of a volume, (W, H, n); "image" of a 2-D image, (W, H). W runs along columns
        from the left, H along rows from the top.
    """
    canonical = grid.canonical()
    planes = PLANES if grid.ndim == 3 else {"image": (None, 0, 1)}
    return {
        name: _view(canonical, across, up, None if cut is None else (cut, *_places(image, grid, cut, count)))
        for name, (cut, across, up) in planes.items()
    }


def _view(canonical: Grid, across: int, up: int, cut: tuple[int, int, float, float] | None) -> Grid:
    """Args: cut: axis, slices, the first one's place and their distance, in voxels."""
    spacing, sizes = canonical.spacing, canonical.spacing * canonical.shape
    pixel = max(min(spacing[across], spacing[up]), max(sizes[across], sizes[up]) / LARGEST)
    fine = canonical.with_spacing([spacing[k] if cut and k == cut[0] else pixel for k in range(canonical.ndim)])
    start = np.zeros(canonical.ndim)
    columns, rows = fine.affine[:-1, across], -fine.affine[:-1, up]
    start[up] = fine.shape[up] - 1
    if across == 0:  # seen from the front or the feet, the patient's right is on the left
        columns, start[0] = -columns, fine.shape[0] - 1
    axes, shape = [columns, rows], [fine.shape[across], fine.shape[up]]
    if cut:
        axis, count, first, step = cut
        start[axis] = first
        axes.append(step * fine.affine[:-1, axis])
        shape.append(count)
    affine = np.eye(canonical.ndim + 1)
    affine[:-1, :-1] = np.stack(axes, axis=1)
    affine[:-1, -1] = fine.index_to_ras(start)
    return Grid(tuple(shape), affine)


def _places(image: np.ndarray, grid: Grid, axis: int, count: int) -> tuple[int, float, float]:
    """How many slices, the first one's place along a canonical axis and the distance between two, voxels."""
    order, flips = canonical_axes(grid)
    mass = image.sum(axis=tuple(a for a in range(image.ndim) if a != order[axis]), dtype=np.float64)
    mass = mass[::-1] if flips[axis] else mass
    if mass.sum() <= 0:
        mass = np.ones_like(mass)
    shares = np.cumsum(mass) / mass.sum()
    first, middle, last = (int(np.searchsorted(shares, share)) for share in (OUTER, 0.5, 1 - OUTER))
    count = min(count, last - first + 1)
    return (count, first, (last - first) / (count - 1)) if count > 1 else (1, middle, 1.0)


def slices(
    volume: Volume, view: Grid, transforms: Sequence[Transform] = (), interpolation: str = "linear"
) -> np.ndarray:
    """(n, H, W): a volume carried through transforms onto the slices of a view, 0 outside its own."""
    return as_pictures(resample(volume, view, transforms, interpolation, 0.0))


def as_pictures(sampled: np.ndarray) -> np.ndarray:
    """(W, H[, n]) -> (n, H, W)."""
    return sampled.T if sampled.ndim == 3 else sampled.T[None]


def grey(pictures: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)


def places_ras(view: Grid) -> Array:
    """(n, d) RAS mm of the middle of each slice."""
    places = np.repeat([(np.array(view.shape) - 1) / 2], view.shape[2] if view.ndim == 3 else 1, axis=0)
    if view.ndim == 3:
        places[:, 2] = np.arange(view.shape[2])
    return view.index_to_ras(places)
