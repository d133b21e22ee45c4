"""Which of the models that ship, if any, suits a pair of images, by what they show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from r2reg.geometry.grid import Grid
from r2reg.io import itk
from r2reg.io.images import Volume
from r2reg.registration.pair import Pair
from r2reg.released import names

BRAIN, ANATOMY = "brain", "anatomy"
# What a brain, with the head around it or without, measures from side to side, front to back and down to up, mm.
BRAIN_MM = ((95, 200), (120, 250), (80, 290))
COARSEST_MM = 3.0  # voxels of larger sides show a brain less well than the models have learnt it from
# Fields of view that anatomy is for, along each axis: a smaller one is few of its voxels; a larger one, of fixed, takes
# more memory than many have.
VIEW_MM = (60, 400)
SAMPLED = 200_000  # voxels to look at
TAIL = 0.5  # percent of the bright voxels on either side that do not count for the extent


def defaults() -> list[str]:
    """Names of the models that ship and are chosen by what the images show."""
    return [name for name in (BRAIN, ANATOMY) if name in names()]


def suitable_model(pair: Pair) -> str | None:
    """The name of a model that ships: that for brains where both 3-D images have a brain's size, else that for any
    anatomy where their fields of view suit it; both want fine voxels.

    Returns:
        None where none ships for such images.
    """
    images = (pair.fixed, pair.moving)
    if pair.fixed.grid.ndim != 3 or any(max(image.grid.spacing) > COARSEST_MM for image in images):
        return None
    if BRAIN in defaults() and all(map(has_brain_size, images)):
        return BRAIN
    fixed, moving = (image.grid.shape * image.grid.spacing for image in images)
    suits = min(*fixed, *moving) >= VIEW_MM[0] and max(fixed) <= VIEW_MM[1]
    return ANATOMY if ANATOMY in defaults() and suits else None


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
