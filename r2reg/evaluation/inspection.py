"""A trained network looked into: how its residual blocks are bounded, and whether they integrate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from r2reg.config import Branch, TrainConfig
from r2reg.errors import ModelError
from r2reg.flow import reference
from r2reg.geometry.grid import identity_points

if TYPE_CHECKING:
    import keras

    from r2reg.networks.saving import SavedModel
    from r2reg.training.batches import Batches

FINE_STEPS = 32  # of the converged integration, over unit time


def block_norms(model: SavedModel) -> list[dict[str, Any]]:
    """Of each spectrally normalised convolution the norm as an operator (an upper bound) and that of its kernel.

    Below 1 as an operator, a block of residual scale s < 1 is one-to-one.
    """
    from r2reg.networks.spectral import kernel_norm_bound, operator_norm_bound

    network = model.build((model.network.stride,) * model.network.ndim)
    found = []
    for layer in _residual_blocks(network):
        for convolution in (layer.first, layer.second):
            kernel = convolution.normalised_kernel()
            norms = {"operator": operator_norm_bound(kernel), "kernel": kernel_norm_bound(kernel)}
            found.append({"layer": f"{layer.name}/{convolution.name}", **{k: float(v) for k, v in norms.items()}})
    return found


def _residual_blocks(network: keras.Model) -> Iterator[Any]:
    """Its own and those of the models that it is made of."""
    from keras import Model

    from r2reg.networks.r2net import ResidualBlock

    for layer in network.layers:
        if isinstance(layer, Model):
            yield from _residual_blocks(layer)
        elif isinstance(layer, ResidualBlock):
            yield layer


def validation_batches(run: Path, model: SavedModel) -> Batches:
    """The pairs that a run was validated on, as it saw them.

    Raises:
        ModelError: the folder does not say which they were.
        TrainingError: its prepared images are gone.
    """
    from r2reg.networks.branches import Branches
    from r2reg.training.batches import Batches
    from r2reg.training.dataset import reopened
    from r2reg.training.folder import CACHE, CONFIG

    place = run.resolve()
    if place.name in get_args(Branch) and (place.parent / CONFIG).is_file():
        raise ModelError(f"{run}: is one branch of {place.parent}; test that for convergence")
    try:
        data, training = model.details["data"], model.details["training"]
        pairs, shape, spacing, ids = data["validation"], *(tuple(data[key]) for key in ("shape", "spacing", "labels"))
    except KeyError as error:
        raise ModelError(f"{run}: config.json does not say what it was validated on ({error})") from None
    settings = {name: value for name, value in (model.network.to_dict() | training).items() if name != "ndim"}
    config = replace(TrainConfig.from_flat(settings), shape=shape)
    dataset = reopened(pairs, run / CACHE, shape, spacing, ids)
    return Batches(dataset, config, branches=Branches(model, shape) if model.network.two_phase else None)


def convergence(run: Path, model: SavedModel) -> dict[str, Any]:
    """The paper's convergence test, and the same against an integration that has converged, over the validation pairs.

    Errors are of displacements: the mean over voxels of the squared distance (voxels squared), its root, and the
    largest distance, each as mean and standard deviation over pairs. `paper`: what the network predicts against
    scaling and squaring of its initial velocity, for stationary networks. `converged`: against the flow of the field
    that the integrator is given, in float64 by Runge-Kutta steps of 1/32; `residual` is given none, and compared with
    the flow of the initial velocity. There `scaling_squaring` is 7 squarings of that against its flow.

    Source: Joshi & Hong 2023, eqs. 11 to 13.
    """
    from keras import ops

    from r2reg.flow.integrate import scaling_squaring

    if model.network.parametric:
        raise ModelError(f"{run}: {model.network.network} integrates exactly; there is nothing to test")
    batches = validation_batches(run, model)
    errors: dict[str, list[dict[str, float]]] = {}
    for v0, predicted, velocities in _outputs(model, batches):
        fields = [v0] if model.network.integrator == "residual" else velocities
        true = converged_flow(fields)
        if model.network.stationary:
            expected = ops.convert_to_numpy(scaling_squaring(ops.convert_to_tensor(v0[None]), 7))[0]
            errors.setdefault("paper", []).append(_error(predicted, expected))
            if model.network.integrator == "residual":
                errors.setdefault("scaling_squaring", []).append(_error(expected, true))
        errors.setdefault("converged", []).append(_error(predicted, true))
    return {
        "pairs": len(batches.dataset.validation),
        **{
            name: {key: {"mean": float(np.mean(v)), "sd": float(np.std(v))} for key, v in _columns(rows).items()}
            for name, rows in errors.items()
        },
    }


def _outputs(model: SavedModel, batches: Batches) -> Iterator[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Of each validation pair v0, the displacement and the integrated velocities, (*S, d)."""
    from r2reg.flow import backend
    from r2reg.networks.build import velocity_model

    if model.network.velocity_size == "half":
        raise ModelError(
            f"{model.folder}: integrates at half size, and the convergence test compares at full size; "
            "train with --velocity-size full"
        )
    network = model.build(batches.view.shape)
    both = (network, velocity_model(network))
    for part in both:
        part.compile(jit_compile=backend.jit_compile())
    for k in range(len(batches.dataset.validation)):
        batch = batches.validation(k)
        inputs = [batch[tensor.name] for tensor in network.inputs]
        outputs, velocities = (part.predict_on_batch(inputs) for part in both)
        listed = velocities if isinstance(velocities, list) else [velocities]
        yield np.asarray(outputs["velocity"])[0], np.asarray(outputs["displacement"])[0], [v[0] for v in listed]


def converged_flow(velocities: Sequence[np.ndarray], steps: int = FINE_STEPS) -> np.ndarray:
    """Displacement after unit time of fields that are each constant over their share of it, float64.

    Args:
        velocities: (X, Y[, Z], d) each, voxels per unit time. steps: of Runge-Kutta over the whole time, at least.
    """
    each = -(-steps // len(velocities))
    h = 1 / (each * len(velocities))
    start = identity_points(velocities[0].shape[:-1])
    points = start
    for velocity in velocities:
        for _ in range(each):
            k1 = reference.sample(velocity, points)
            k2 = reference.sample(velocity, points + h / 2 * k1)
            k3 = reference.sample(velocity, points + h / 2 * k2)
            k4 = reference.sample(velocity, points + h * k3)
            points = points + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return points - start


def _error(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    squares = np.sum((a.astype(np.float64) - b) ** 2, axis=-1)
    mean = float(squares.mean())
    return {"mean_square": mean, "rms": mean**0.5, "max": float(squares.max()) ** 0.5}


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def inspect_model(run: Path, *, converges: bool = False) -> dict[str, Any]:
    """What `r2reg inspect` says: settings, norms of the blocks' convolutions, and the convergence test if asked for.

    Raises:
        ModelError, TrainingError: no model, or no pairs to test it on.
    """
    from r2reg.networks.saving import load_model

    model = load_model(run)
    found: dict[str, Any] = {"network": model.network.to_dict(), "norms": block_norms(model)}
    if converges:
        found["convergence"] = convergence(run, model)
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain
