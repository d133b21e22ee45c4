"""The training objective and the Keras model that minimises it, on any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from r2reg.config import BOTH_DIRECTIONS, FLOW_CONSISTENCIES, LOSS_PARTS, TrainConfig
from r2reg.training.views import coarser

if TYPE_CHECKING:
    import keras

Tensor = Any


def loss_parts(batch: dict[str, Tensor], outputs: dict[str, Tensor], config: TrainConfig) -> dict:
    """The parts of the objective that have a weight, unweighted scalars, lower is better.

    Of a network with several scales (ms-vm-diff) the means over the scales, each with its own images; what looks at
    inverses is of the finest.

    Args:
        batch: as `batches.Batches` makes it.
        outputs: of the trainer's model, {"velocity", "displacement", ...}.
    Returns:
        similarity, folding and diffusion always, the others where they have a weight.
    """
    from r2reg.losses import regularity

    return_trip = (outputs["displacement"], outputs.get("backward"))
    flow_trip = (outputs["displacement"], outputs.get("inverse"))
    inverses: dict[str, Callable[[], Tensor]] = {
        "inverse_consistency": lambda: regularity.inverse_consistency(*return_trip),
        "gradicon": lambda: regularity.gradicon(*return_trip),
        "flow_consistency_data": lambda: regularity.flow_consistency(*flow_trip, batch["data_points"]),
        "flow_consistency_domain": lambda: regularity.flow_consistency(*flow_trip, batch["domain_points"]),
    }
    by_scale = [_scale_parts(*at_scale(batch, outputs, scale), config) for scale in config.model.scales]
    parts = {}
    for name in part_names(config):
        values = [makers[name]() for makers in by_scale] if name in by_scale[0] else [inverses[name]()]
        parts[name] = sum(values) / len(values)
    return parts


def _scale_parts(
    batch: dict[str, Tensor], outputs: dict[str, Tensor], config: TrainConfig
) -> dict[str, Callable[[], Tensor]]:
    """Name -> what computes a part that every scale has."""
    from r2reg.flow.warp import warp
    from r2reg.losses import regularity
    from r2reg.losses.similarity import SIMILARITIES

    displacement, velocity = outputs["displacement"], outputs["velocity"]

    def similarity() -> Tensor:
        if config.similarity == "dice":
            return dice_loss(batch, displacement)
        moved = warp(batch["moving"], displacement)
        return SIMILARITIES[config.similarity](batch["fixed"], moved, batch.get("mask"))

    return {
        "similarity": similarity,
        "dice": lambda: dice_loss(batch, displacement),
        "folding": lambda: regularity.folding(displacement),
        "diffusion": lambda: regularity.diffusion(velocity),
        "kinetic": lambda: regularity.kinetic(velocity),
        "bending": lambda: regularity.bending(velocity),
        "kl": lambda: regularity.kl_divergence(outputs["mean"], outputs["log_variance"], config.prior_lambda),
    }


def at_scale(
    batch: dict[str, Tensor], outputs: dict[str, Tensor], scale: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a scale's loss looks at."""
    if scale == 1:
        return batch, outputs
    suffix = f"_{scale}"
    return coarser(batch, scale), {
        name.removesuffix(suffix): value for name, value in outputs.items() if name.endswith(suffix)
    }


def part_names(config: TrainConfig) -> list[str]:
    """The names of the objective's parts, in order: three that are always watched, and those with a weight."""
    watched = ("similarity", "folding", "diffusion")
    return [name for name in LOSS_PARTS if name in watched or name_counts(config, name)]


def name_counts(config: TrainConfig, name: str) -> bool:
    """Whether a part has a weight and is not the similarity itself by another name."""
    return config.loss_weights[name] > 0 and not (name == "dice" and config.similarity == "dice")


def dice_loss(batch: dict[str, Tensor], displacement: Tensor) -> Tensor:
    """1 - mean soft Dice of the linearly warped shares of the classes, background left out; on the classes' grid."""
    from keras import ops

    from r2reg.flow.resize import shrink
    from r2reg.flow.warp import warp
    from r2reg.losses.overlap import soft_dice

    fixed, moving = (ops.cast(batch[f"{role}_labels"], displacement.dtype) / 255 for role in ("fixed", "moving"))
    factor = displacement.shape[1] // fixed.shape[1]
    if factor > 1:
        displacement = shrink(displacement, factor) / factor
    return soft_dice(fixed, warp(moving, displacement))


def total_loss(parts: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """The weighted sum of the parts; those that are only watched cost no gradient."""
    weights = config.loss_weights
    return sum(weights[name] * value for name, value in parts.items() if weights[name] > 0)


def needs_inverse(config: TrainConfig) -> bool:
    """Whether the loss looks at the flow run backwards."""
    return any(config.loss_weights[name] > 0 for name in FLOW_CONSISTENCIES)


def make_trainer(network: keras.Model, config: TrainConfig, steps: int = 1) -> keras.Model:
    """A compiled model around a network, for `train_on_batch(batch)`, which returns the loss and its parts.

    Keras' own train step is kept: overriding only the loss works alike on TensorFlow, JAX and PyTorch.

    Args:
        network: of `build_network`, with its inverse where `needs_inverse` says so.
        steps: of the whole training, over which the schedule cosine goes.
    """
    import keras

    from r2reg.flow import backend

    names = part_names(config)
    both = any(config.loss_weights[name] > 0 for name in BOTH_DIRECTIONS)

    class Trainer(keras.Model):
        """The network as a model of batches, with the objective as its loss."""

        def __init__(self) -> None:
            super().__init__(name="trainer")
            self.network = network
            self.input_names = [tensor.name for tensor in network.inputs]
            self.trackers = [keras.metrics.Mean(name) for name in names]

        # Keras hands `training` on to those alone that name it; a sampled velocity is sampled where it is true.
        def call(self, batch: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
            outputs = dict(self.network([batch[name] for name in self.input_names], training=training))
            if both:
                back = self.network([batch["fixed"], batch["moving"]], training=training)
                outputs["backward"] = back["displacement"]
            return outputs

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # type: ignore[no-untyped-def]
            # PyTorch's trainer hands the batch on as it came, in NumPy arrays.
            batch = {name: keras.ops.convert_to_tensor(value) for name, value in x.items()}
            parts = loss_parts(batch, y_pred, config)
            for tracker in self.trackers:
                tracker.update_state(parts[tracker.name])
            return total_loss(parts, config) / backend.replicas()

    trainer = Trainer()
    trainer.built = True  # as the network is; Keras would look at a batch for it
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer: keras.optimizers.Optimizer = keras.optimizers.Adam(
        rate,
        clipnorm=config.clipnorm or None,
        weight_decay=config.weight_decay or None,
        gradient_accumulation_steps=config.accumulate if config.accumulate > 1 else None,
    )
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    if config.mixed_precision:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)  # small gradients vanish in half precision
    trainer.compile(optimizer=optimizer, loss=None, jit_compile=backend.jit_compile())
    optimizer.build(network.trainable_variables)
    return trainer
