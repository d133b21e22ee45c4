"""The network's part of a registration: velocities on a grid, integrated with as many steps as are safe."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from r2reg.errors import ModelError
from r2reg.flow import backend
from r2reg.flow.integrate import flow, safe_substeps
from r2reg.geometry.grid import Grid
from r2reg.networks.r2net import velocity_model
from r2reg.networks.saving import SavedModel
from r2reg.registration.refinement import LevelImages

Tensor = Any


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


def predict(model: SavedModel, images: LevelImages) -> tuple[Tensor, bool]:
    """Displacement of a pair, and whether each of its steps is one-to-one by its bound.

    `flow` takes as many substeps as keep each step's Lipschitz constant below 1 (Euler: the step is then
    one-to-one). `residual` and `scaling_squaring` carry no such bound.

    Args:
        images: the pair on the network's grid.
    Returns:
        (1, X, Y[, Z], d) in voxels, and the bound's verdict.
    """
    network = model.build(images.grid.shape)
    pair = [ops.convert_to_numpy(image) for image in (images.moving, images.fixed)]
    if model.network.integrator != "flow":
        return _run(network, pair)["displacement"], False
    velocities = _run(velocity_model(network), pair)
    if model.network.network == "svf-r2net":
        velocities = [velocities[0]] * len(velocities)
    scheme = model.network.scheme
    substeps = safe_substeps(velocities, scheme, model.network.substeps)
    return flow(velocities, scheme, substeps), True


def _run(network: Any, pair: list[np.ndarray]) -> Any:
    """One forward pass as a compiled graph, whose buffers are freed on the way, without XLA on a CPU."""
    network.compile(jit_compile=backend.jit_compile())
    outputs = network.predict_on_batch(pair)
    as_tensor = ops.convert_to_tensor
    if isinstance(outputs, dict):
        return {name: as_tensor(value) for name, value in outputs.items()}
    return [as_tensor(value) for value in outputs]
