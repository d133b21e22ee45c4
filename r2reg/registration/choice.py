"""Which of the models that ship suits a pair of images, by what they show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r2reg.geometry.grid import Grid
from r2reg.io import itk
from r2reg.io.images import Volume
from r2reg.registration.pair import Pair
from r2reg.released import names

BRAIN, ANATOMY, ANATOMY_2D = "brain", "anatomy", "anatomy-2d"
# What a brain, with the head around it or without, measures from side to side, front to back and down to up, mm.
BRAIN_MM = ((95, 200), (120, 250), (80, 290))
COARSEST_MM = 3.0  # voxels of larger sides show a brain less well than the models have learnt it from
SAMPLED = 200_000  # voxels to look at
TAIL = 0.5  # percent of the bright voxels on either side that do not count for the extent


def defaults() -> list[str]:
    """Names of the models that ship and are chosen by what the images show."""
    return [name for name in (ANATOMY, ANATOMY_2D, BRAIN) if name in names()]


def suitable_model(pair: Pair) -> str | None:
    """The name of a model that ships: for brains where both images have a brain's size, else for any anatomy.

    Returns:
        None where none ships for such images, or the voxels are too large.
    """
    if max(*pair.fixed.grid.spacing, *pair.moving.grid.spacing) > COARSEST_MM:
        return None
    if pair.fixed.grid.ndim == 2:
        wanted = ANATOMY_2D
    else:
        wanted = BRAIN if all(has_brain_size(image) for image in (pair.fixed, pair.moving)) else ANATOMY
    return wanted if wanted in defaults() else None


def has_brain_size(image: Volume) -> bool:
    """Whether what is bright in a 3-D image is as large as a human head or brain along each axis of the body."""
    extent = extent_mm(image.array, image.grid)
    return extent is not None and all(low <= size <= high for size, (low, high) in zip(extent, BRAIN_MM, strict=True))


def extent_mm(array: np.ndarray, grid: Grid) -> Sequence[float] | None:
    """Size of what is bright, along each axis of the world; None where all is alike.

    Bright is above Otsu's threshold; half a percent of it on either side is left out, as noise.
    """
    step = max(round((array.size / SAMPLED) ** (1 / array.ndim)), 1)
    few = np.asarray(array[(slice(None, None, step),) * array.ndim], dtype=np.float32)
    if few.min() == few.max():
        return None
    otsu = itk.simpleitk().OtsuThresholdImageFilter()
    otsu.Execute(itk.simpleitk().GetImageFromArray(few))
    bright = (np.argwhere(few > otsu.GetThreshold()) * step).astype(np.float64)
    ends = np.percentile(grid.index_to_ras(bright), [TAIL, 100 - TAIL], axis=0)
    return [float(size) for size in ends[1] - ends[0]]
