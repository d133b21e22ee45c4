"""How good the network is on the validation pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from r2reg.config import TrainConfig
from r2reg.metrics.overlap import dice
from r2reg.training.batches import Batch, Batches
from r2reg.training.synthesis import main_class
from r2reg.training.trainer import loss_parts, total_loss

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Validation:
    """Means over the validation pairs, and a picture of the first.

    values: loss, its parts, folds_percent (share of voxels with det J <= 0), and dice_labels (mean Dice of
    nearest warped labels) where any pair has labels. picture: (X, 3 Y) in [0, 1], fixed, moved and moving of
    the middle slice.
    """

    values: dict[str, float]
    picture: np.ndarray


def validate(trainer: keras.Model, batches: Batches, config: TrainConfig) -> Validation:
    """Run all validation pairs, one at a time."""
    rows = []
    picture = None
    for number in range(len(batches.dataset.validation)):
        batch = batches.validation(number)
        outputs = trainer.predict_on_batch({name: batch[name] for name in trainer.input_names})
        outputs = {name: value[:1] for name, value in outputs.items()}  # of the first device, where there are several
        rows.append(_scores(batch, outputs, config))
        if picture is None:
            picture = _picture(batch, outputs["displacement"])
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    return Validation(values, picture if picture is not None else np.zeros((1, 1), np.float32))


def _scores(batch: Batch, outputs: dict[str, np.ndarray], config: TrainConfig) -> dict[str, float]:
    from keras import ops

    from r2reg.flow.jacobian import jacobian_determinant
    from r2reg.flow.warp import warp

    tensors = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
    fields = {name: ops.convert_to_tensor(value) for name, value in outputs.items()}
    parts = loss_parts(tensors, fields, config)
    scores = {"loss": _number(total_loss(parts, config)), **{k: _number(v) for k, v in parts.items()}}
    determinant = ops.convert_to_numpy(jacobian_determinant(fields["displacement"]))
    scores["folds_percent"] = 100 * float((determinant <= 0).mean())
    if "moving_labels" in batch:
        # Places of classes are exact in float32.
        labels = ops.convert_to_tensor(main_class(batch["moving_labels"])[..., None].astype(np.float32))
        moved = ops.convert_to_numpy(warp(labels, fields["displacement"], "nearest"))
        mean = dice(main_class(batch["fixed_labels"])[0], moved[0, ..., 0].astype(np.int32))["mean"]
        if mean is not None:
            scores["dice_labels"] = mean
    return scores


def _number(value: object) -> float:
    from keras import ops

    return float(ops.convert_to_numpy(value))


def _picture(batch: Batch, displacement: np.ndarray) -> np.ndarray:
    from keras import ops

    from r2reg.flow.warp import warp

    tensors = [ops.convert_to_tensor(a) for a in (batch["moving"], displacement)]
    moved = ops.convert_to_numpy(warp(*tensors))
    images = (batch["fixed"], moved, batch["moving"])
    return np.concatenate([middle_slice(a[0, ..., 0]) for a in images], axis=1)


def middle_slice(array: np.ndarray) -> np.ndarray:
    """A 2-D image as it is, or the axial slice in the middle of a volume, its front up: (Y, X)."""
    plane = array if array.ndim == 2 else array[:, :, array.shape[2] // 2]
    return plane.T[::-1]
