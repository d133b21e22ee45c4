"""An aligned pair: its images, masks and labels on the grids that a registration works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from r2reg.errors import ConfigError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume
from r2reg.preprocessing.resolution import low_pass, low_pass_reach
from r2reg.registration.pair import Pair, label_ids
from r2reg.resampling import resample
from r2reg.threads import in_threads

if TYPE_CHECKING:
    from r2reg.registration.refinement import LevelImages

Tensor = Any

VIEW_FACTOR = 4  # of fixed's spacing, where it is decided whether moving's view is cut
CUT_SHARE = 0.001  # of fixed's voxels brighter than its mean


@dataclass(frozen=True)
class Aligned:
    """A pair whose affine is known, and its intensities in [0, 1], each on its own grid."""

    pair: Pair
    moving: np.ndarray
    fixed: np.ndarray
    affine: Affine

    def images_on(self, grid: Grid) -> LevelImages:
        """Both images and the masks on a grid, low-passed where it is coarser, moving through the affine."""
        from r2reg.registration.refinement import LevelImages

        pair = self.pair
        sources = [(self.fixed, pair.fixed.grid, grid, []), (self.moving, pair.moving.grid, grid, [self.affine])]
        fixed, moving = in_threads(lambda source: _tensor(*source), sources)  # SciPy's filters take one thread each
        return LevelImages(
            grid,
            fixed,
            moving,
            pair.fixed_mask and _tensor(_weights(pair.fixed_mask), pair.fixed.grid, grid, []),
            pair.moving_mask and _tensor(_weights(pair.moving_mask), pair.moving.grid, grid, [self.affine]),
            self._view(grid) if self.cut else None,
        )

    @cached_property
    def cut(self) -> bool:
        """Whether fixed shows anatomy that lies outside moving's field of view."""
        from r2reg.registration.refinement import level_grid

        grid = level_grid(self.pair.fixed.grid, VIEW_FACTOR)
        fixed = _on_grid(self.fixed, self.pair.fixed.grid, grid, [])
        content = fixed > fixed.mean()
        return bool((content & (self._seen(grid) < 0.5)).sum() > CUT_SHARE * content.sum())

    def _seen(self, grid: Grid) -> np.ndarray:
        """1 where moving was scanned, on a grid that the affine carries into it; 0 outside."""
        moving = self.pair.moving.grid
        return resample(Volume(np.ones(moving.shape, np.float32), moving), grid, [self.affine], "linear", 0.0)

    def _view(self, grid: Grid) -> Tensor:
        from keras import ops

        return ops.convert_to_tensor(self._seen(grid)[None, ..., None])

    def labels_on(self, grid: Grid) -> LevelImages:
        """One channel per label that both maps hold, low-passed where the grid is coarser."""
        from r2reg.registration.refinement import LevelImages

        fixed, moving = guiding_labels(self.pair)
        common = common_labels(fixed, moving)
        return LevelImages(grid, _channels(fixed, common, grid, []), _channels(moving, common, grid, [self.affine]))


def guiding_labels(pair: Pair) -> tuple[Volume, Volume]:
    """Fixed's and moving's labels.

    Raises:
        ConfigError: one is missing.
    """
    if pair.fixed_labels is None or pair.moving_labels is None:
        raise ConfigError("--guide labels needs --moving-labels and --fixed-labels; give both, or leave it out")
    return pair.fixed_labels, pair.moving_labels


def common_labels(a: Volume, b: Volume) -> np.ndarray:
    """The ids, but for 0, that both maps hold."""
    return np.array(sorted(label_ids(a.array) & label_ids(b.array)))


def _channels(labels: Volume, ids: np.ndarray, grid: Grid, transforms: list[Affine]) -> Any:
    from keras import ops
    from scipy.ndimage import find_objects

    boxes = find_objects(np.searchsorted(ids, labels.array, side="right") * np.isin(labels.array, ids))
    margin = np.ceil(low_pass_reach(labels.grid, grid)).astype(int) + 1
    channels = []
    for label, box in zip(ids, boxes, strict=True):
        wide = tuple(slice(max(part.start - n, 0), part.stop + n) for part, n in zip(box, margin, strict=True))
        affine = labels.grid.affine.copy()
        affine[:-1, -1] = labels.grid.index_to_ras(np.array([part.start for part in wide], dtype=np.float64))
        array = (labels.array[wide] == label).astype(np.float32)
        channels.append(_tensor(array, Grid(array.shape, affine), grid, transforms))
    return ops.concatenate(channels, axis=-1)


def _weights(mask: Volume) -> np.ndarray:
    return mask.array.astype(np.float32)


def _tensor(array: np.ndarray, source: Grid, target: Grid, transforms: list[Affine]) -> Tensor:
    from keras import ops

    return ops.convert_to_tensor(_on_grid(array, source, target, transforms)[None, ..., None])


def _on_grid(array: np.ndarray, source: Grid, target: Grid, transforms: list[Affine]) -> np.ndarray:
    low = Volume(low_pass(array, source, target), source)
    return resample(low, target, transforms, "linear", 0.0).astype(np.float32, copy=False)
