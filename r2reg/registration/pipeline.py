"""Register a pair: intensities -> affine -> network -> refinement -> transforms, images and scores."""

from __future__ import annotations

import dataclasses
import logging
import resource
import sys
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from r2reg.config import AUTO, RegisterConfig
from r2reg.errors import ConfigError, RegistrationError
from r2reg.flow.certificate import Certificate
from r2reg.flow.reference import full_jacobian_determinant
from r2reg.flow.tessellation import tessellate
from r2reg.geometry.transforms import Affine
from r2reg.io.transforms import read_affine
from r2reg.metrics.deformation import deformation_metrics, inverse_residual
from r2reg.preprocessing.affine.doubt import better_turn
from r2reg.preprocessing.affine.initial import Init, check_overlap, initial_affine
from r2reg.preprocessing.affine.pyramid import Working
from r2reg.preprocessing.affine.starts import views_overlap
from r2reg.preprocessing.intensity import normalise
from r2reg.registration.aligned import Aligned, guiding_labels
from r2reg.registration.choice import suitable_model
from r2reg.registration.clock import Clock
from r2reg.registration.deformation import Deformation, find_deformation, rehearsals
from r2reg.registration.pair import Pair
from r2reg.registration.result import RegistrationResult
from r2reg.registration.scores import carry, score_stages
from r2reg.resampling import Resampler
from r2reg.threads import cancelling_pool, short_turns

if TYPE_CHECKING:
    from r2reg.networks.saving import SavedModel
    from r2reg.registration.network import Estimator


log = logging.getLogger("r2reg")
SEARCHED = ("rigid", "affine")  # ways to find the pose that look for it everywhere
AT_ONCE = 2  # the affine search and a rehearsal, or two


def peak_memory_bytes() -> int:
    """The process's largest resident size so far."""
    status = Path("/proc/self/status")
    _, known, rest = status.read_text(encoding="utf-8").partition("VmHWM:") if status.exists() else ("", "", "")
    if known:
        return int(rest.split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux begins it at the size of the parent process
    return peak if sys.platform == "darwin" else peak * 1024


def register(
    pair: Pair, config: RegisterConfig, clock: Clock | None = None, start: Callable[[], None] = lambda: None
) -> RegistrationResult:
    """Register a pair.

    Args:
        start: what must run before the backend is used, such as its start. It runs while the affine is searched for.
    Returns:
        The result; its `metrics` hold scores, deformation, model, and the seconds of the stages so far.
    Raises:
        RegistrationError, ModelError, ImageError, ConfigError: one line each, see the stages.
    """
    clock = Clock() if clock is None else clock
    check_request(pair, config)
    with short_turns(), cancelling_pool(AT_ONCE) as aside:
        with clock.stage("affine"):
            searching = aside.submit(find_affine, pair, config)
            start()
            network = build_estimator(pair, config)
            first, rest = rehearsals(pair.fixed.grid, config, network)
            rehearsed = [aside.submit(task) for task in [*first, *rest]]
            moving, fixed = _normalise(pair, config)
            affine = searching.result()
            doubting = None if config.init in SEARCHED else aside.submit(find_doubt, pair, fixed, moving, affine)
        with clock.stage("compile"):
            wait(rehearsed[: len(first)])  # the rest is compiled beside what comes first
        found = find_deformation(Aligned(pair, moving, fixed, affine), network, config, clock)
        doubt = {} if doubting is None else {"pose": doubting.result()}
    warp, grid = found.warp, pair.fixed.grid
    affine = found.affine or affine
    with clock.stage("transform"):
        onto_fixed = Resampler(grid, [warp, affine])
        moved = onto_fixed(pair.moving, config.interpolation, config.fill)
        after = carry(pair, moving, onto_fixed)
        del onto_fixed  # twice the warp's size
        voxels = warp.to_voxels()
        jacobian = full_jacobian_determinant(voxels)
    with clock.stage("evaluate"):
        before, aligned = (carry(pair, moving, Resampler(grid, parts)) for parts in ([], [affine]))
        metrics = score_stages(pair, fixed, {"before": before, "affine": aligned, "after": after})
        metrics["deformation"] = _deformation(found, voxels, jacobian)
    return RegistrationResult(
        pair=pair,
        affine=affine,
        warp=warp,
        inverse_warp=found.inverse_warp,
        moved=moved.astype(np.float32, copy=False),
        moved_labels=after.labels,
        moved_points=after.points,
        jacobian=(jacobian * np.linalg.det(affine.matrix[:-1, :-1])).astype(np.float32),
        config=config,
        metrics=metrics | doubt | {"model": found.model},
    )


def check_request(pair: Pair, config: RegisterConfig) -> None:
    """Whether a pair can be registered as asked, as far as can be told before the work.

    Raises:
        RegistrationError, ConfigError, TransformError: one line each.
    """
    check_init(config.init)
    flat = [name for name in config.formats if name in ("x5", "fsl")] if pair.fixed.grid.ndim == 2 else []
    if flat:
        raise ConfigError(
            f"--formats {flat[0]}: holds 3-D transforms alone, and {pair.fixed.path} is 2-D; leave it out"
        )
    if "labels" in config.guide:
        guiding_labels(pair)
    if config.transform.endswith("cpab"):
        tessellate((config.boxes,) * pair.fixed.grid.ndim, "fixed")  # tells what cannot be
    refined = config.transform == "flow" and config.refine != "none"
    least, what = (3, "a refinement") if refined else (2, "a Jacobian")
    shape = pair.fixed.grid.shape
    if min(shape) < least:
        raise RegistrationError(
            f"{pair.fixed.path}: has {' x '.join(map(str, shape))} voxels, {what} needs {least} along each axis; "
            f"{'give --refine none or ' if min(shape) == 2 else ''}save one slice as a 2-D image"
        )
    if config.init not in get_args(Init):
        given_affine(pair, config.init)
    elif config.init == "none":
        check_overlap(pair.fixed.grid, pair.moving.grid, np.eye(len(shape) + 1), *_masks(pair))


def given_affine(pair: Pair, path: str) -> Affine:
    """The affine of a file, which is used as it is.

    Raises:
        TransformError, RegistrationError: it is no affine, or leaves nothing to compare.
    """
    affine = read_affine(path, fixed=pair.fixed.grid, moving=pair.moving.grid)
    if affine.ndim != pair.fixed.grid.ndim:
        raise RegistrationError(
            f"{path}: is {affine.ndim}-D, the images are {pair.fixed.grid.ndim}-D; give --init one of their dimension"
        )
    if not views_overlap(pair.fixed.grid, pair.moving.grid, affine.matrix):
        raise RegistrationError(f"{path}: carries fixed out of moving's view; check its direction")
    check_overlap(pair.fixed.grid, pair.moving.grid, affine.matrix, *_masks(pair), f"by {path}")
    return affine


def _masks(pair: Pair) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Fixed's and moving's."""
    fixed, moving = pair.fixed_mask, pair.moving_mask
    return fixed.array if fixed else None, moving.array if moving else None


def check_init(init: str) -> None:
    """Raise ConfigError unless init is a way to find the affine, or an existing file."""
    if init not in get_args(Init) and not Path(init).is_file():
        ways = ", ".join(get_args(Init))
        raise ConfigError(f"{init}: no such file; give --init a transform file or one of {ways}")


def align_pair(pair: Pair, config: RegisterConfig) -> Aligned:
    """What a network or a refinement of a pair starts from, checked.

    Raises:
        RegistrationError, ImageError, ConfigError: one line each, see the stages.
    """
    check_request(pair, config)
    moving, fixed = _normalise(pair, config)
    return Aligned(pair, moving, fixed, find_affine(pair, config))


def _normalise(pair: Pair, config: RegisterConfig) -> tuple[np.ndarray, np.ndarray]:
    moving, fixed = pair.moving, pair.fixed
    return (
        normalise(moving.array, config.clip, name=str(moving.path)),
        normalise(fixed.array, config.clip, name=str(fixed.path)),
    )


def find_affine(pair: Pair, config: RegisterConfig) -> Affine:
    """The affine that --init asks for: searched, or read from a file and used as it is."""
    if config.init not in get_args(Init):
        return given_affine(pair, config.init)
    fixed_mask, moving_mask = _masks(pair)
    return initial_affine(
        pair.fixed,
        pair.moving,
        config.init,
        fixed_mask=fixed_mask,
        moving_mask=moving_mask,
        clip=config.clip,
        seed=config.seed,
        threads=config.threads or None,
    )


def find_doubt(pair: Pair, fixed: np.ndarray, moving: np.ndarray, affine: Affine) -> dict[str, float | None]:
    """Whether the images, in [0, 1], fit better turned than by an affine that was not searched for."""
    fixed_mask, moving_mask = _masks(pair)
    images = Working(fixed, pair.fixed.grid, fixed_mask), Working(moving, pair.moving.grid, moving_mask)
    return {"better_turn_degrees": better_turn(*images, affine.matrix)}


def load_fitting_model(pair: Pair, config: RegisterConfig) -> SavedModel | None:
    """The model that is given or that suits the images, whose weights are not read yet.

    Raises:
        ModelError: it cannot be found, or not be used with these images.
    """
    if config.transform != "flow":
        if config.model not in (AUTO, "none"):
            log.warning("a registration of %s uses no network; model %s is left out", config.transform, config.model)
        return None
    name = suitable_model(pair) if config.model == AUTO else config.model
    if name is None or name == "none":
        return None
    from r2reg.networks.saving import load_model
    from r2reg.networks.tiles import largest_view
    from r2reg.registration.network import network_grid
    from r2reg.released import find_model, shipped

    model = load_model(shipped(name) if config.model == AUTO else find_model(name))
    largest_view(network_grid(model, pair.fixed.grid).shape, model.network)
    return model


def build_estimator(pair: Pair, config: RegisterConfig) -> Estimator | None:
    """The model, checked before hours are spent on what comes before it."""
    model = load_fitting_model(pair, config)
    if model is None:
        return None
    from r2reg.registration.network import Estimator, network_grid

    for branch in model.branches.values():
        branch.check()
    return Estimator(model, network_grid(model, pair.fixed.grid))


def _deformation(found: Deformation, voxels: np.ndarray, jacobian: np.ndarray) -> dict[str, Any]:
    measured = deformation_metrics(voxels, jacobian=jacobian)
    failure = _failure(found.certificate, measured["ndv_percent"], int(measured["digital_folds"]))
    return {
        **measured,
        "inverse_residual_mm": inverse_residual(found.warp, found.inverse_warp),
        "certified": failure is None,
        "certificate": {**dataclasses.asdict(found.certificate), "failure": failure},
        **({} if found.cpab is None else {"cpab": found.cpab}),
    }


def _failure(certificate: Certificate, ndv_percent: float, digital_folds: int) -> str | None:
    """Why a map is not certified to be one-to-one; None where it is."""
    if not certificate.holds:
        return "a step has no bound below 1 (the network's integrator is not flow)"
    if ndv_percent > 0 or digital_folds > 0:
        return f"the written field folds between {digital_folds} voxels (NDV {ndv_percent:.3g} %)"
    return None
