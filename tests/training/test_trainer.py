"""The objective of networks with several scales."""

import keras
import numpy as np
import pytest
from keras import ops

from r2reg.config import NetworkConfig, TrainConfig
from r2reg.networks.build import build_network
from r2reg.training.trainer import at_scale, loss_parts, make_trainer

SMALL = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4}


@pytest.mark.backends
def test_a_field_for_each_scale():
    """On grids that share the image's field of view, also where the image is padded inside."""
    config = NetworkConfig(network="ms-vm-diff", ndim=2, spacing=(1.0, 1.0), **SMALL)
    images = [np.random.default_rng(k).random((1, 19, 18, 1), np.float32) for k in (0, 1)]
    outputs = build_network(config, (19, 18)).predict_on_batch(images)
    shapes = {name: outputs[name].shape for name in outputs if name.startswith("displacement")}
    assert shapes == {
        "displacement": (1, 19, 18, 2),
        "displacement_2": (1, 10, 9, 2),
        "displacement_4": (1, 5, 5, 2),
    }
    assert {"mean_4", "log_variance_2", "velocity_2"} <= outputs.keys()


@pytest.mark.backends
def test_similarity_is_the_mean_over_scales():
    model = NetworkConfig(network="ms-vm-diff", velocity="nokl", ndim=2, spacing=(1.0, 1.0), **SMALL)
    config = TrainConfig(model=model)
    rng = np.random.default_rng(0)
    batch = {name: rng.random((1, 16, 24, 1), np.float32) for name in ("moving", "fixed")}
    outputs = {}
    for scale in (1, 2, 4):
        still = ops.zeros((1, 16 // scale, 24 // scale, 2))
        suffix = "" if scale == 1 else f"_{scale}"
        outputs |= {f"displacement{suffix}": still, f"velocity{suffix}": still}
    tensors = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
    found = float(loss_parts(tensors, outputs, config)["similarity"])
    difference = (batch["moving"] - batch["fixed"])[0, ..., 0]
    blocks = [difference.reshape(16 // s, s, 24 // s, s).mean(axis=(1, 3)) for s in (1, 2, 4)]
    assert found == pytest.approx(np.mean([np.mean(block**2) for block in blocks]), rel=1e-4)


@pytest.mark.backends
def test_penalties_of_a_constant_velocity():
    config = TrainConfig(weights={"kinetic": 1.0, "diffusion": 1.0, "bending": 1.0})
    velocity = ops.broadcast_to(ops.convert_to_tensor([3.0, 0.0, -4.0]), (1, 5, 5, 5, 3))
    image = ops.ones((1, 5, 5, 5, 1))
    outputs = {"velocity": velocity, "displacement": ops.zeros_like(velocity)}
    parts = loss_parts({"moving": image, "fixed": image}, outputs, config)
    assert [float(parts[name]) for name in ("kinetic", "diffusion", "bending")] == pytest.approx([25, 0, 0])


def test_shares_of_a_scale_are_the_blocks_means():
    shares = np.random.default_rng(0).integers(0, 255, (1, 4, 6, 2)).astype(np.uint8)
    images, _ = at_scale({"moving_labels": ops.convert_to_tensor(shares)}, {}, 2)
    found = ops.convert_to_numpy(images["moving_labels"])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(shares.reshape(1, 2, 2, 3, 2, 2).mean(axis=(2, 4))))


@pytest.mark.backends
def test_a_sampled_velocity_is_sampled_while_training_alone():
    """Without learning, a batch's loss differs from step to step by the noise; the prediction does not."""
    model = NetworkConfig(network="vm-diff", ndim=2, spacing=(1.0, 1.0), **SMALL)
    rng = np.random.default_rng(0)
    batch = {name: rng.random((1, 16, 16, 1), np.float32) for name in ("moving", "fixed")}

    def losses(seed):
        keras.utils.set_random_seed(seed)
        network = build_network(model, (16, 16))
        head = network.get_layer("log_variance")
        head.bias.assign(np.zeros(2, np.float32))  # a standard deviation of one voxel
        trainer = make_trainer(network, TrainConfig(model=model, learning_rate=1e-12))
        same = [trainer.predict_on_batch(batch)["displacement"] for _ in range(2)]
        np.testing.assert_array_equal(*same)
        return [float(trainer.train_on_batch(batch, return_dict=True)["similarity"]) for _ in range(2)]

    first, second = losses(0)
    assert abs(first - second) > 1e-3 * first
    assert losses(0) == pytest.approx([first, second], rel=1e-4)
    assert abs(losses(1)[0] - first) > 1e-3 * first


def test_accumulated_steps_are_one_of_the_larger_batch():
    """Two steps of one pair each against one step of both: one update by the same mean gradient."""
    model = NetworkConfig(network="svf-r2net", velocity="nokl", ndim=2, spacing=(1.0, 1.0), blocks=2, **SMALL)
    rng = np.random.default_rng(0)
    batch = {name: rng.random((2, 16, 16, 1), np.float32) for name in ("moving", "fixed")}
    moved = []
    for accumulate, parts in ((1, [slice(0, 2)]), (2, [slice(0, 1), slice(1, 2)])):
        keras.utils.set_random_seed(0)
        config = TrainConfig(model=model, accumulate=accumulate, learning_rate=1e-3)
        trainer = make_trainer(build_network(model, (16, 16)), config)
        kernel = trainer.network.get_layer("conv0b").kernel
        before = ops.convert_to_numpy(kernel)
        for part in parts:
            np.testing.assert_array_equal(ops.convert_to_numpy(kernel), before)
            trainer.train_on_batch({name: array[part] for name, array in batch.items()})
        moved.append(ops.convert_to_numpy(kernel) - before)
    largest = np.abs(moved[0]).max()
    assert largest > 1e-5
    np.testing.assert_allclose(moved[0], moved[1], atol=0.02 * largest)


@pytest.mark.backends
def test_a_pyramid_learns_where_a_blob_has_gone():
    keras.utils.set_random_seed(0)
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, 24)] * 2, indexing="ij"), axis=-1)
    rng = np.random.default_rng(0)

    def blobs(count):
        centres = rng.uniform(0.35, 0.65, (count, 1, 1, 2))
        return np.exp(-40 * ((x - centres) ** 2).sum(-1))[..., None].astype("float32")

    network = NetworkConfig(network="pyramid-nsvf-r2net", ndim=2, spacing=(2.0, 2.0), blocks=1, **SMALL)
    config = TrainConfig(model=network, learning_rate=3e-3)
    trainer = make_trainer(build_network(config.model, (24, 24)), config)
    losses = [
        float(trainer.train_on_batch({"moving": blobs(8), "fixed": blobs(8)}, return_dict=True)["similarity"])
        for _ in range(120)
    ]
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:10])
