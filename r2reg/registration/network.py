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
from r2reg.flow.diffeomorphism import LARGEST_BOUND, Diffeomorphism
from r2reg.flow.integrate import STEP_LIMIT, backward_flow, flow, safe_substeps
from r2reg.flow.inverse import invert
from r2reg.flow.jacobian import lipschitz_bound
from r2reg.flow.smooth import gaussian
from r2reg.geometry.grid import Grid
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
            "use another model or --model none"
        )
    return fixed.canonical().with_spacing(model.network.spacing)


def predict(model: SavedModel, images: LevelImages) -> MapOnGrid:
    """The map of a pair with its inverse, on the images' grid; a flow of half size on that of its velocities.

    `flow` is integrated by `integrate_safely`; map and inverse of an affine-cpab are both known and sampled here; what
    the others give is taken as it is and carries no such bound.

    Args:
        images: the pair on the network's grid.
    """
    network = model.build(images.grid.shape)
    inputs = network_inputs(model, *(ops.convert_to_numpy(image) for image in (images.moving, images.fixed)))
    if model.network.parametric:
        theta = ops.convert_to_numpy(forward_pass(network, inputs)["theta"])
        return MapOnGrid(diffeomorphism(pair_family(model.network), theta, images.grid.shape), images.grid)
    if model.network.integrator != "flow":
        displacement = forward_pass(network, inputs)["displacement"]
        return MapOnGrid(Diffeomorphism(displacement, invert(displacement)[0], Certificate(1, math.nan)), images.grid)
    velocities = forward_pass(velocity_model(network), inputs)
    if model.network.stationary:
        velocities = [velocities[0]] * len(velocities)
    phi = integrate_safely(velocities, model.network.scheme, model.network.substeps)
    return MapOnGrid(phi, images.grid if model.network.velocity_size == "full" else half_size(images.grid, phi.shape))


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
    network.compile(jit_compile=backend.jit_compile())
    outputs = network.predict_on_batch(inputs)
    as_tensor = ops.convert_to_tensor
    if isinstance(outputs, dict):
        return {name: as_tensor(value) for name, value in outputs.items()}
    return [as_tensor(value) for value in (outputs if isinstance(outputs, list) else [outputs])]
