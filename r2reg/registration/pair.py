"""What a registration is given: two images and whatever comes with them, read and checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2reg.errors import ImageError, RegistrationError, listed
from r2reg.geometry.grid import Grid
from r2reg.io.images import Volume, read_image, read_labels, read_mask
from r2reg.io.points import Points, listed_rows, read_points
from r2reg.resampling import resample

log = logging.getLogger("r2reg")

OPTIONAL = ("moving_labels", "fixed_labels", "moving_mask", "fixed_mask", "moving_points", "fixed_points")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images of one dimension, on any grids; labels, masks (bool) and points where given.

    Fixed's labels and masks lie on fixed's grid, moving's on moving's. Labels of both are compared by their ids: a
    warning names those that only one of them holds.

    Raises:
        RegistrationError: images of different dimension, points that are not in pairs, or label maps of both images
            that share no id.
    """

    moving: Volume
    fixed: Volume
    moving_labels: Volume | None = None
    fixed_labels: Volume | None = None
    moving_mask: Volume | None = None
    fixed_mask: Volume | None = None
    moving_points: Points | None = None
    fixed_points: Points | None = None
    paths: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.moving.grid.ndim != self.fixed.grid.ndim:
            raise RegistrationError(
                f"{self.moving.path}: is {self.moving.grid.ndim}-D, {self.fixed.path}: is {self.fixed.grid.ndim}-D; "
                "register images of one dimension"
            )
        if self.moving_points and self.fixed_points and len(self.moving_points.ras) != len(self.fixed_points.ras):
            raise RegistrationError(
                f"{len(self.moving_points.ras)} moving points and {len(self.fixed_points.ras)} fixed points; "
                "give them in pairs, row by row"
            )
        if self.fixed_points is not None and not (inside := self.fixed.grid.holds(self.fixed_points.ras)).all():
            log.warning(
                "%d of %d fixed points lie outside of the fixed image, where the map tells nothing of them: rows %s",
                (~inside).sum(), len(inside), listed_rows(~inside),
            )  # fmt: skip
        if self.moving_labels and self.fixed_labels:
            _check_ids(self.moving_labels, self.fixed_labels)


def _check_ids(moving: Volume, fixed: Volume) -> None:
    ids = {"moving": label_ids(moving.array), "fixed": label_ids(fixed.array)}
    where = f"{moving.path} (moving), {fixed.path} (fixed)"
    if not ids["moving"] & ids["fixed"]:
        raise RegistrationError(
            f"{where}: share no label, {listed(sorted(ids['moving']))} against {listed(sorted(ids['fixed']))}; "
            "give maps with the same ids, or leave one out"
        )
    alone = {"moving": ids["moving"] - ids["fixed"], "fixed": ids["fixed"] - ids["moving"]}
    told = " and ".join(f"{listed(sorted(only))} only in {image}" for image, only in alone.items() if only)
    if told:
        log.warning("%s: labels differ, %s; their Dice is 0 and counts in the mean", where, told)


def label_ids(array: np.ndarray) -> set[int]:
    """The ids of a label map but 0, which is background."""
    low, high = int(array.min()), int(array.max())
    if high - low < array.size:  # a tenth of the time of sorting the voxels
        seen = np.zeros(high - low + 1, dtype=bool)
        seen[array.ravel().astype(np.intp) - low] = True
        return set((np.flatnonzero(seen) + low).tolist()) - {0}
    return set(np.unique(array).tolist()) - {0}


def read_pair(moving: Path | str, fixed: Path | str, **optional: Path | str | None) -> Pair:
    """Read two images and, by keyword, any of OPTIONAL.

    Labels and masks on another grid than their image are carried onto it by nearest neighbour.

    Raises:
        ImageError, TableError: a file that cannot be used; see the readers.
        RegistrationError: see `Pair`.
    """
    images = {"moving": read_image(moving), "fixed": read_image(fixed)}
    given = {name: Path(path) for name, path in optional.items() if path is not None}
    extra: dict[str, Volume | Points] = {}
    for name, path in given.items():
        image, kind = name.split("_")
        ndim = images[image].grid.ndim
        if kind == "points":
            extra[name] = read_points(path, ndim)
        else:
            volume = read_labels(path, ndim=ndim) if kind == "labels" else read_mask(path, ndim=ndim)
            if volume.grid.ndim != ndim:
                raise ImageError(f"{path}: is {volume.grid.ndim}-D, the {image} image {ndim}-D; give its own {kind}")
            extra[name] = on_grid(volume, images[image].grid, name)
    paths = (Path(moving), Path(fixed), *given.values())
    return Pair(**images, **extra, paths=paths)  # type: ignore[arg-type]


def on_grid(volume: Volume, grid: Grid, name: str) -> Volume:
    """Labels or a mask on a grid, by nearest neighbour where they lie on another.

    Raises:
        ImageError: nothing of it lies there; `name`, such as fixed_mask, says what it is.
    """
    if volume.grid == grid:
        return Volume(volume.array, grid, volume.path, volume.header)
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    moved = resample(Volume(array, volume.grid, volume.path), grid, [], "nearest", 0)
    if not moved.any():
        image = name.split("_")[0]
        raise ImageError(f"{volume.path}: does not overlap the {image} image; give the {name} of that image")
    return Volume(moved.astype(volume.array.dtype), grid, volume.path)
