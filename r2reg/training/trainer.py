"""The training objective and the Keras model that minimises it, on any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r2reg.config import TrainConfig

if TYPE_CHECKING:
    import keras

Tensor = Any


def loss_parts(batch: dict[str, Tensor], outputs: dict[str, Tensor], config: TrainConfig, classes: int) -> dict:
    """The parts of the objective, unweighted scalars, lower is better.

    Args:
        batch: as `batches.Batches` makes it.
        outputs: {"velocity", "displacement"}, (N, *S, d), voxels.
        classes: number of label classes without background.
    Returns:
        similarity, folding, diffusion, and dice where it has a weight beside another similarity.
    """
    from r2reg.flow.warp import warp
    from r2reg.losses.regularity import diffusion, folding
    from r2reg.losses.similarity import SIMILARITIES

    displacement = outputs["displacement"]
    parts = {}
    if config.similarity == "dice":
        parts["similarity"] = dice_loss(batch, displacement, classes)
    else:
        moved = warp(batch["moving"], displacement)
        parts["similarity"] = SIMILARITIES[config.similarity](batch["fixed"], moved, batch.get("mask"))
        if config.loss_weights["dice"] > 0:
            parts["dice"] = dice_loss(batch, displacement, classes)
    parts["folding"] = folding(displacement)
    parts["diffusion"] = diffusion(outputs["velocity"])
    return parts


def dice_loss(batch: dict[str, Tensor], displacement: Tensor, classes: int) -> Tensor:
    """1 - mean soft Dice of the linearly warped one-hot labels, background left out."""
    from keras import ops

    from r2reg.flow.warp import warp
    from r2reg.losses.overlap import soft_dice

    def one_hot(labels: Tensor) -> Tensor:
        return ops.one_hot(ops.cast(labels, "int32"), classes + 1, dtype=displacement.dtype)[..., 1:]

    return soft_dice(one_hot(batch["fixed_labels"]), warp(one_hot(batch["moving_labels"]), displacement))


def total_loss(parts: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """The weighted sum of the parts."""
    weights = config.loss_weights
    return sum(weights[name] * value for name, value in parts.items())


def make_trainer(network: keras.Model, config: TrainConfig, classes: int) -> keras.Model:
    """A compiled model around a network, for `train_on_batch(batch)`, which returns the loss and its parts.

    Keras' own train step is kept: overriding only the loss works alike on TensorFlow, JAX and PyTorch.
    """
    import keras

    from r2reg.flow import backend

    names = ["similarity", "folding", "diffusion"]
    if config.similarity != "dice" and config.loss_weights["dice"] > 0:
        names.append("dice")

    class Trainer(keras.Model):
        """The network as a model of batches, with the objective as its loss."""

        def __init__(self) -> None:
            super().__init__(name="trainer")
            self.network = network
            self.trackers = [keras.metrics.Mean(name) for name in names]

        def call(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return self.network([batch["moving"], batch["fixed"]])

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # type: ignore[no-untyped-def]
            # PyTorch's trainer hands the batch on as it came, in NumPy arrays.
            batch = {name: keras.ops.convert_to_tensor(value) for name, value in x.items()}
            parts = loss_parts(batch, y_pred, config, classes)
            for tracker in self.trackers:
                tracker.update_state(parts[tracker.name])
            return total_loss(parts, config)

    trainer = Trainer()
    optimizer = keras.optimizers.Adam(config.learning_rate, clipnorm=config.clipnorm or None)
    trainer.compile(optimizer=optimizer, loss=None, jit_compile=backend.jit_compile())
    optimizer.build(network.trainable_variables)
    return trainer
