"""The network's part of a registration: velocities on a grid, integrated with as many steps as are safe."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from r2reg.errors import ModelError
from r2reg.flow import backend
from r2reg.flow.certificate import Certificate
from r2reg.flow.diffeomorphism import LARGEST_BOUND, Diffeomorphism, identity
from r2reg.flow.integrate import STEP_LIMIT, backward_flow, flow, safe_substeps
from r2reg.flow.inverse import invert
from r2reg.flow.jacobian import lipschitz_bound
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import warp
from r2reg.geometry.grid import Grid
from r2reg.metrics import similarity
from r2reg.metrics.deformation import deformation_metrics
from r2reg.networks.branches import network_inputs
from r2reg.networks.build import velocity_model
from r2reg.networks.saving import SavedModel
from r2reg.networks.transformer import pair_family
from r2reg.registration.parametric import diffeomorphism
from r2reg.registration.refinement import LevelImages, MapOnGrid

Tensor = Any
log = logging.getLogger(__name__)
SMOOTHING_SIGMAS = (0.0, 0.7, 1.0, 1.4, 2.0, 3.0)  # voxels of the network's grid, tried in turn


def network_grid(model: SavedModel, fixed: Grid) -> Grid:
    """Fixed's field of view with canonical axes and the spacing that the model was trained at.

    Raises:
        ModelError: the model is for images of another dimension.
    """
    if model.network.ndim != fixed.ndim:
        raise ModelError(
            f"{model.folder}: the model is for {model.network.ndim}-D images, these are {fixed.ndim}-D; "
            "use another (`r2reg models list`) or --model none"
        )
    return fixed.canonical().with_spacing(model.network.spacing)


class Estimator:
    """A model built for pairs on one grid, to estimate the map between them.

    Args:
        grid: see `network_grid`.
    Raises:
        ModelError: as `SavedModel.build`.
    """

    def __init__(self, model: SavedModel, grid: Grid) -> None:
        self.model, self.config, self.grid = model, model.network, grid
        self._flows = self.config.integrator == "flow" and not self.config.parametric
        network = model.build(grid.shape)
        self._network = velocity_model(network) if self._flows else network

    def rehearse(self) -> None:
        """Have the backend compile what a pair needs, by a pass on noise; branches are built with the pair."""
        if self.config.two_phase:
            return
        noise = np.random.default_rng(0).random((2, 1, *self.grid.shape, 1), dtype=np.float32)
        outputs = self._outputs(list(noise))
        if self._flows:
            integrate_safely([0 * velocity for velocity in outputs], self.config.scheme, self.config.substeps)

    def rehearse_map(self) -> None:
        """Beside `rehearse`, for what becomes of a flow: smoothed if it folds, mostly by the first of the sigmas, then
        carried onto the images' grid, where it moves an image."""
        if self.config.two_phase or not self._flows:
            return
        velocity = self._network.outputs[0].shape[1:]
        gaussian(ops.zeros((1, *velocity)), sigma=SMOOTHING_SIGMAS[1])
        still = self._on_grid(identity(velocity[:-1])).on(self.grid)
        warp(ops.zeros((1, *self.grid.shape, 1)), still.phi.displacement)

    def __call__(self, *views: LevelImages) -> MapOnGrid:
        """The map with its inverse, on the images' grid; a flow of half size on that of its velocities.

        `flow` is integrated by `integrate_safely`; map and inverse of an affine-cpab are both known and sampled here;
        what the others give is taken as it is and carries no such bound.

        Args:
            views: a pair, or one pair in several contrasts: the mean of the velocities, or else of theta or of the
                displacements, is what counts; of displacements it may fold where neither does.
        """
        config, grid = self.config, self.grid
        answers = [self._answer(images) for images in views]
        found = answers[0] if len(views) == 1 else [sum(each) / len(views) for each in zip(*answers, strict=True)]
        del answers
        if config.parametric:
            theta = ops.convert_to_numpy(found[0])
            return MapOnGrid(diffeomorphism(pair_family(config), theta, grid.shape), grid)
        if not self._flows:
            displacement = found[0]
            return MapOnGrid(Diffeomorphism(displacement, invert(displacement)[0], Certificate(1, math.nan)), grid)
        velocities = [found[0]] * len(found) if config.stationary else found
        return self._on_grid(integrate_safely(velocities, config.scheme, config.substeps))

    def _on_grid(self, phi: Diffeomorphism) -> MapOnGrid:
        """A flow with the grid of its velocities."""
        return MapOnGrid(phi, self.grid if self.config.velocity_size == "full" else half_size(self.grid, phi.shape))

    def _answer(self, images: LevelImages) -> list[Tensor]:
        """The velocities in turn; of networks without `flow`, theta or the displacement."""
        found = self._outputs([ops.convert_to_numpy(image) for image in (images.moving, images.fixed)])
        return found if self._flows else [found["theta" if self.config.parametric else "displacement"]]

    def _outputs(self, pair: list[np.ndarray]) -> Any:
        return forward_pass(self._network, network_inputs(self.model, *pair))


def likeness(images: LevelImages, found: MapOnGrid | None = None) -> float:
    """LNCC of a pair on the network's grid, moved by a map; within fixed's mask, where there is one."""
    moved = images.moving
    if found is not None:
        moved = warp(moved, found.on(images.grid).phi.displacement)
    arrays = [ops.convert_to_numpy(image)[0, ..., 0] for image in (images.fixed, moved)]
    mask = None if images.mask is None else ops.convert_to_numpy(images.mask)[0, ..., 0] > 0.5
    return similarity.lncc(arrays[0], arrays[1], mask if mask is not None and mask.any() else None)


def half_size(grid: Grid, shape: Sequence[int]) -> Grid:
    """The grid whose voxel i covers the voxels 2 i and 2 i + 1 of another along each axis, of a shape."""
    doubled = np.diag([*[2.0] * grid.ndim, 1.0])
    doubled[:-1, -1] = 0.5
    return Grid(tuple(shape), grid.affine @ doubled)


def integrate_safely(velocities: list[Tensor], scheme: str, substeps: int) -> Diffeomorphism:
    """Integrate with as many substeps as keep each step one-to-one, from velocities that the grid can carry.

    A flow without folds can still fold between the voxels at which it is sampled, where it compresses more than
    the grid resolves. Then the velocities are smoothed, no more than needed, and integrated again.

    Args:
        velocities: T fields (1, *S, d), voxels per unit time. scheme, substeps: of `flow`, substeps at least.
    """
    for sigma in SMOOTHING_SIGMAS:
        # An SVF's list holds one tensor many times; smooth it once.
        smoothed = {id(v): gaussian(v, sigma=sigma) if sigma else v for v in velocities}
        steps = [smoothed[id(v)] for v in velocities]
        taken = safe_substeps(steps, scheme, substeps)
        displacement = flow(steps, scheme, taken)
        folds = deformation_metrics(ops.convert_to_numpy(displacement)[0])["digital_folds"]
        if not folds:
            break
        log.debug("network: velocities smoothed by %.1f voxels leave %d digital folds", sigma, folds)
    else:
        log.warning("network: the map still folds at %d voxels; the model does not fit these images", folds)
    h = 1 / (len(steps) * taken)
    bound = max(float(lipschitz_bound(h * velocity)) for velocity in smoothed.values())
    bound *= 1 if scheme == "euler" else LARGEST_BOUND / STEP_LIMIT[scheme]  # a limit of each scheme's own
    return Diffeomorphism(displacement, backward_flow(steps, scheme, taken), Certificate(len(steps) * taken, bound))


def forward_pass(network: Any, inputs: list[np.ndarray]) -> Any:
    """One forward pass as a compiled graph, whose buffers are freed on the way, without XLA on a CPU.

    Returns:
        The outputs, tensors: a dictionary where the network has one, else a list.
    """
    if not network.compiled:
        network.compile(jit_compile=backend.jit_compile())
    outputs = network.predict_on_batch(inputs)
    as_tensor = ops.convert_to_tensor
    if isinstance(outputs, dict):
        return {name: as_tensor(value) for name, value in outputs.items()}
    return [as_tensor(value) for value in (outputs if isinstance(outputs, list) else [outputs])]
