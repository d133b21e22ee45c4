"""Register a pair: intensities -> affine -> network -> refinement -> transforms, images and scores."""

from __future__ import annotations

import functools
import logging
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from r2reg.config import RegisterConfig, check_choice
from r2reg.errors import ConfigError, RegistrationError
from r2reg.flow.reference import full_jacobian_determinant
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, Transform, map_points
from r2reg.io.images import Volume
from r2reg.io.transforms import read_affine
from r2reg.metrics.deformation import deformation_metrics, inverse_residual
from r2reg.preprocessing.affine import Init, initial_affine
from r2reg.preprocessing.affine_starts import views_overlap
from r2reg.preprocessing.intensity import normalise
from r2reg.preprocessing.resolution import low_pass
from r2reg.registration.pair import Pair
from r2reg.registration.result import RegistrationResult
from r2reg.registration.scores import score_stages
from r2reg.resampling import resample

if TYPE_CHECKING:
    from r2reg.networks.saving import SavedModel

log = logging.getLogger("r2reg")


@dataclass
class Clock:
    """Seconds of each stage, in the order in which they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a with-block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        # Reading says nothing: a file that is no good is then the only line on the screen.
        log.log(logging.DEBUG if name == "load" else logging.INFO, "%s: %.1f s", name, self.seconds[name])


def peak_memory_bytes() -> int:
    """The process's largest resident size so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def register(pair: Pair, config: RegisterConfig, clock: Clock | None = None) -> RegistrationResult:
    """Register a pair.

    Returns:
        The result; its `metrics` hold scores, deformation, model, and the seconds of the stages so far.
    Raises:
        RegistrationError, ModelError, ImageError, ConfigError: one line each, see the stages.
    """
    clock = Clock() if clock is None else clock
    check_init(config.init)
    model = load_fitting_model(pair, config)
    with clock.stage("affine"):
        normalised = _normalise(pair, config)
        affine = find_affine(pair, config)
    field_found = _deform(pair, normalised, affine, model, config, clock)
    with clock.stage("transform"):
        warp, inverse, certified_steps = _finish(pair.fixed.grid, field_found)
        fill = config.fill
        moved = resample(pair.moving, pair.fixed.grid, [warp, affine], config.interpolation, fill)
        moved_labels = None
        if pair.moving_labels:
            moved_labels = resample(pair.moving_labels, pair.fixed.grid, [warp, affine], "nearest", 0)
        moved_points = map_points([warp, affine], pair.fixed_points.ras) if pair.fixed_points else None
        jacobian = full_jacobian_determinant(warp.to_voxels()) * np.linalg.det(affine.matrix[:-1, :-1])
    with clock.stage("evaluate"):
        stages: dict[str, Sequence[Transform]] = {"before": [], "affine": [affine], "after": [warp, affine]}
        metrics = score_stages(pair, normalised, stages)
        metrics["deformation"] = _deformation(warp, inverse, certified_steps)
    return RegistrationResult(
        pair=pair,
        affine=affine,
        warp=warp,
        inverse_warp=inverse,
        moved=moved.astype(np.float32, copy=False),
        moved_labels=moved_labels,
        moved_points=moved_points,
        jacobian=jacobian.astype(np.float32),
        metrics=metrics | {"model": field_found.model},
    )


def check_init(init: str) -> None:
    """Raise ConfigError unless init is a way to find the affine, or an existing file."""
    if init not in get_args(Init) and not Path(init).is_file():
        if Path(init).suffix:
            raise ConfigError(
                f"{init}: no such file; give --init a transform file or none, com, moments, rigid, affine"
            )
        check_choice("init", init, Init)


def _normalise(pair: Pair, config: RegisterConfig) -> tuple[np.ndarray, np.ndarray]:
    moving, fixed = pair.moving, pair.fixed
    return (
        normalise(moving.array, config.clip, name=str(moving.path)),
        normalise(fixed.array, config.clip, name=str(fixed.path)),
    )


def find_affine(pair: Pair, config: RegisterConfig) -> Affine:
    """The affine that --init asks for: searched, or read from a file and used as it is."""
    if config.init not in get_args(Init):
        affine = read_affine(config.init)
        if affine.ndim != pair.fixed.grid.ndim:
            raise RegistrationError(f"{config.init}: is {affine.ndim}-D, the images are {pair.fixed.grid.ndim}-D")
        if not views_overlap(pair.fixed.grid, pair.moving.grid, affine.matrix):
            raise RegistrationError(f"{config.init}: carries fixed out of moving's view; check its direction")
        return affine
    return initial_affine(
        pair.fixed,
        pair.moving,
        config.init,
        fixed_mask=pair.fixed_mask.array if pair.fixed_mask else None,
        moving_mask=pair.moving_mask.array if pair.moving_mask else None,
        clip=config.clip,
        seed=config.seed,
        # ITK's threads add up in any order; one thread repeats bit for bit.
        threads=1 if config.deterministic else config.threads or None,
    )


@dataclass(frozen=True)
class _Field:
    """A displacement in voxels of its grid, (1, *grid, d) tensor or None for the identity."""

    displacement: Any
    grid: Grid
    steps_bounded: bool
    model: dict[str, str] | None


def _deform(
    pair: Pair,
    normalised: tuple[np.ndarray, np.ndarray],
    affine: Affine,
    model: SavedModel | None,
    config: RegisterConfig,
    clock: Clock,
) -> _Field:
    full = pair.fixed.grid.canonical()
    found = _Field(None, full, True, None)
    if config.transform == "affine":
        return found
    from r2reg.registration.refinement import levels_for, refine

    images_on = functools.partial(_level_images, pair, normalised, affine)
    if model is not None:
        with clock.stage("network"):
            found = _from_network(model, full, images_on)
    levels = levels_for(config.refine)
    if levels:
        with clock.stage("refine"):
            start = None if found.displacement is None else (found.displacement, found.grid)
            refined = refine(images_on, full, levels, config.similarity, start, log.info)
            # Refinement smooths its whole displacement, which is no composition: the steps' bounds end here.
            found = _Field(refined.displacement, refined.grid, False, found.model)
    return found


def load_fitting_model(pair: Pair, config: RegisterConfig) -> SavedModel | None:
    """The model, checked before hours are spent on what comes before it."""
    if config.transform == "affine" or config.model == "none":
        return None
    from r2reg.networks.saving import load_model
    from r2reg.registration.network import network_grid

    model = load_model(config.model)
    network_grid(model, pair.fixed.grid)
    model.build((2 ** len(model.network.encoder),) * model.network.ndim)  # the weights fit every shape
    return model


def _from_network(model: SavedModel, full: Grid, images_on: Any) -> _Field:
    from r2reg.registration.network import network_grid, predict

    images = images_on(network_grid(model, full))
    displacement, bounded = predict(model, images)
    return _Field(displacement, images.grid, bounded, {"name": model.folder.resolve().name, "sha256": model.sha256})


def _level_images(pair: Pair, normalised: tuple[np.ndarray, np.ndarray], affine: Affine, grid: Grid) -> Any:
    """Both images (and fixed's mask) on a grid, low-passed where it is coarser, moving through the affine."""
    from keras import ops

    from r2reg.registration.refinement import LevelImages

    moving, fixed = normalised

    def tensor(array: np.ndarray, source: Grid, transforms: list[Affine], interpolation: str) -> Any:
        array = low_pass(array, source, grid) if interpolation == "linear" else array
        moved = resample(Volume(array, source), grid, transforms, interpolation, 0.0)
        return ops.convert_to_tensor(moved.astype("float32")[None, ..., None])

    mask = None
    if pair.fixed_mask:
        mask = tensor(pair.fixed_mask.array.astype(np.uint8), pair.fixed.grid, [], "nearest")
    return LevelImages(
        grid,
        tensor(fixed, pair.fixed.grid, [], "linear"),
        tensor(moving, pair.moving.grid, [affine], "linear"),
        mask,
    )


def _finish(grid: Grid, found: _Field) -> tuple[Displacement, Displacement, bool]:
    """The warp and its inverse on fixed's own grid, in the float32 in which they are written."""
    if found.displacement is None:
        zero = np.zeros((*grid.shape, grid.ndim), dtype=np.float32)
        return Displacement(grid, zero), Displacement(grid, zero), True
    from keras import ops

    from r2reg.flow.inverse import invert, spread_interpolation_error
    from r2reg.registration.refinement import carry_displacement

    displacement = carry_displacement(found.displacement, found.grid, grid)
    inverse = spread_interpolation_error(invert(displacement)[0])
    warp = Displacement.from_voxels(grid, ops.convert_to_numpy(displacement)[0])
    return warp, Displacement.from_voxels(grid, ops.convert_to_numpy(inverse)[0]), found.steps_bounded


def _deformation(warp: Displacement, inverse: Displacement, steps_bounded: bool) -> dict[str, Any]:
    measured = deformation_metrics(warp.to_voxels())
    one_to_one = measured["ndv_percent"] == 0 and measured["digital_folds"] == 0
    return {
        **measured,
        "inverse_residual_mm": inverse_residual(warp, inverse),
        "certified": bool(steps_bounded and one_to_one),
    }
