"""The grid that all images of a training are brought to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r2reg.errors import ConfigError, TrainingError
from r2reg.geometry.grid import Grid
from r2reg.io.images import Volume
from r2reg.preprocessing.resolution import low_pass
from r2reg.resampling import resample

MARGIN_MM = 15.0  # kept around the painted head of the reference, for heads that are larger
MOST_PARTS = 2  # along an axis, into which labels divide a voxel of the training grid
MOST_VOXELS = 3_000_000  # of such labels: beyond, making a pair takes longer than learning from it


def training_grid(
    reference: Grid,
    foreground: np.ndarray,
    spacing: Sequence[float],
    shape: Sequence[int] | None,
    multiple: int,
    *,
    crop: bool = False,
) -> Grid:
    """A grid with the reference's canonical axes and the given spacing.

    Args:
        reference: of the first training image.
        foreground: (X, Y[, Z]) bool on `reference`; where the grid is smaller than the reference it is
            centred on the foreground's box.
        shape: voxels; None: all of the reference, or with `crop` the foreground's box and 15 mm around it,
            rounded up to `multiple`.
        multiple: what the network pads to.
    Raises:
        ConfigError: shape with another number of axes.
    """
    full = reference.canonical().with_spacing(spacing)
    if shape is not None and len(shape) != full.ndim:
        raise ConfigError(f"shape needs {full.ndim} numbers for these images. Received: shape={tuple(shape)}")
    low, high = _box(reference, foreground, full)
    if shape is None:
        wanted = np.minimum(high - low + 2 * MARGIN_MM / full.spacing, full.shape) if crop else np.array(full.shape)
        shape = (np.ceil(wanted / multiple - 1e-6) * multiple).astype(int).tolist()
    count = np.array(shape)
    start = np.round((low + high) / 2 - (count - 1) / 2)
    spare = np.array(full.shape) - count
    # A larger grid is centred on the reference, a smaller one stays inside it.
    start = np.where(spare > 0, np.clip(start, 0, np.maximum(spare, 0)), np.floor(spare / 2))
    affine = full.affine.copy()
    affine[:-1, -1] = full.index_to_ras(start)
    return Grid(tuple(int(n) for n in count), affine)


def _box(reference: Grid, foreground: np.ndarray, full: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest index on `full` of the foreground; the whole grid where there is none."""
    ends = []
    for axis in range(reference.ndim):
        others = tuple(a for a in range(reference.ndim) if a != axis)
        held = np.flatnonzero(foreground.any(axis=others))
        ends.append((held[0], held[-1]) if held.size else (0, reference.shape[axis] - 1))
    corners = np.array(np.meshgrid(*ends, indexing="ij"), dtype=np.float64).reshape(reference.ndim, -1).T
    index = full.ras_to_index(reference.index_to_ras(corners))
    return index.min(axis=0), index.max(axis=0)


def finer(grid: Grid, parts: Sequence[int]) -> Grid:
    """The grid that divides each voxel of another into equal parts along each axis."""
    shares = 1 / np.array(parts, float)
    affine = grid.affine.copy()
    affine[:-1, :-1] *= shares
    affine[:-1, -1] = grid.index_to_ras((shares - 1) / 2)
    return Grid(tuple(int(n * p) for n, p in zip(grid.shape, parts, strict=True)), affine)


def label_grid(labels: Grid, grid: Grid) -> Grid:
    """Where labels are kept for a training grid: on voxels up to MOST_PARTS times as fine, where the map is as fine.

    A voxel of the training grid then holds shares of several classes, as it does in the anatomy. A grid that would take
    more than MOST_VOXELS is the training grid itself.
    """
    along = np.linalg.norm(np.linalg.inv(labels.affine[:-1, :-1]) @ grid.affine[:-1, :-1], axis=0)
    parts = np.clip(np.floor(along + 1e-3), 1, MOST_PARTS).astype(int)
    return finer(grid, parts.tolist()) if np.prod(parts * grid.shape) <= MOST_VOXELS else grid


def block_means(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(*S') on a grid whose voxels it divides into equal parts: float32 means."""
    parts = [n // m for n, m in zip(array.shape, shape, strict=True)]
    if max(parts) == 1:
        return array.astype(np.float32)
    split = [n for m, p in zip(shape, parts, strict=True) for n in (m, p)]
    return array.reshape(split).mean(axis=tuple(range(1, len(split), 2)), dtype=np.float32)


def to_grid(volume: Volume, grid: Grid, transforms: Sequence, interpolation: str = "linear") -> np.ndarray:
    """Resample onto the training grid: moved(x) = volume(transforms(x)).

    Images are low-passed first along axes that get coarser, so that fine texture does not alias; labels and
    masks ("nearest") are not.

    Returns:
        (X, Y[, Z]) on `grid`, of the volume's dtype; 0 outside the volume.
    Raises:
        TrainingError: the volume does not reach the grid.
    """
    from dataclasses import replace

    if interpolation == "linear":
        volume = replace(volume, array=low_pass(volume.array, volume.grid, grid))
    result = resample(volume, grid, list(transforms), interpolation, fill=0)
    if not result.any():
        raise TrainingError(
            f"{volume.path}: nothing of it lies on the training grid; use --align affine or repair its header"
        )
    return result
