"""A U-Net that shows images in one contrast before a network compares them."""

import keras
import numpy as np
import pytest
from keras import ops

from r2reg.config import NetworkConfig, TrainConfig
from r2reg.errors import ConfigError
from r2reg.networks.build import build_network, velocity_model
from r2reg.networks.harmoniser import NAME
from r2reg.networks.saving import begin_with, load_model, save_model
from r2reg.training.trainer import make_trainer

SMALL = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2, "ndim": 2, "spacing": (2.0, 2.0)}
NETWORKS = [{"network": "pyramid-nsvf-r2net"}, {"network": "svf-r2net", "integrator": "flow"}, {"network": "vm-diff"}]


@pytest.fixture(autouse=True)
def _same_weights_each_time():
    keras.utils.set_random_seed(0)


def pair(shape=(13, 10)):
    rng = np.random.default_rng(0)
    return [rng.uniform(size=(1, *shape, 1)).astype("float32") for _ in range(2)]


def awake(model):
    """Velocities and U-Net far from their first weights."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if "flow" in weight.path or "grey" in weight.path:
            weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return model


@pytest.mark.backends
@pytest.mark.parametrize("settings", NETWORKS)
def test_the_network_sees_harmonised_images(settings):
    config = NetworkConfig(**SMALL, **settings, harmonise=True)
    images = pair()
    model = awake(build_network(config, (13, 10)))
    found = model(images)
    assert found["harmonised_moving"].shape == found["harmonised_fixed"].shape == (1, 13, 10, 1)
    # Alike for both, whichever comes first.
    turned = model(images[::-1])
    np.testing.assert_allclose(
        ops.convert_to_numpy(found["harmonised_moving"]), ops.convert_to_numpy(turned["harmonised_fixed"]), atol=1e-6
    )
    # One grey for all leaves nothing to align.
    grey = model.get_layer(NAME).get_layer("grey")
    assert (ops.convert_to_numpy(found["displacement"]) != ops.convert_to_numpy(turned["displacement"])).any()
    grey.set_weights([0 * weight for weight in grey.get_weights()])
    black = model(images)["displacement"], model(images[::-1])["displacement"]
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, black))


def test_a_saved_one_is_built_again_and_gives_its_velocities(tmp_path):
    config = NetworkConfig(**SMALL, **NETWORKS[0], harmonise=True)
    images = pair()
    model = awake(build_network(config, (13, 10)))
    save_model(tmp_path / "m", model, config, {})
    again = load_model(tmp_path / "m").build((13, 10))
    for first, second in zip(velocity_model(model)(images), velocity_model(again)(images), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(first), ops.convert_to_numpy(second))


@pytest.mark.parametrize("settings", NETWORKS)
def test_it_may_be_put_before_a_network_that_was_trained_without(tmp_path, settings):
    config = NetworkConfig(**SMALL, **settings)
    first = awake(build_network(config, (8, 8)))
    save_model(tmp_path / "first", first, config, {})
    wider = NetworkConfig.from_dict(config.to_dict() | {"harmonise": True})
    model = build_network(wider, (8, 8))
    begin_with(model, wider, load_model(tmp_path / "first"))
    names = [layer.name for layer in first.layers if layer.weights]
    assert names
    for name in names:
        for ours, theirs in zip(model.get_layer(name).get_weights(), first.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.backends
def test_it_learns_the_plain_images_alone():
    """Where the loss asks for nothing else; the rest of the network stays as it is."""
    settings = TrainConfig(
        model=NetworkConfig(**SMALL, **NETWORKS[0], harmonise=True), synthesis="labels", similarity="dice",
        weights={"similarity": 0, "folding": 0, "diffusion": 0, "harmonisation": 1}, learning_rate=1e-2,
    )  # fmt: skip
    network = build_network(settings.model, (16, 16))
    trainer = make_trainer(network, settings)
    images = pair((16, 16))
    # Dark is bright: no contrast of the image's own.
    batch = {"moving": images[0], "fixed": images[1], "moving_plain": 1 - images[0], "fixed_plain": 1 - images[1]}
    labels = (np.stack([images[0] > 0.5], axis=-1)[0] * 255).astype("uint8")
    batch |= {"moving_labels": labels, "fixed_labels": labels}
    own, harmonises = network.get_layer("encoder"), network.get_layer(NAME)
    before = [weight.copy() for weight in own.get_weights()]
    losses = [float(trainer.train_on_batch(batch, return_dict=True)["harmonisation"]) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    for weight, first in zip(own.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, first)
    seen = ops.convert_to_numpy(harmonises(images[0]))
    assert np.corrcoef(seen.ravel(), images[0].ravel())[0, 1] < -0.8


def test_what_cannot_be_asked_for():
    for network in ("ms-nsvf-r2net", "affine-cpab"):
        with pytest.raises(ConfigError, match=f"{network} does not harmonise"):
            NetworkConfig(network=network, harmonise=True)
    harmonised = NetworkConfig(harmonise=True)
    with pytest.raises(ConfigError, match="needs a network with --harmonise, and --synthesis labels"):
        TrainConfig(model=harmonised, weights={"harmonisation": 1.0})
    assert TrainConfig(model=harmonised).loss_weights["harmonisation"] == 0
    assert TrainConfig(model=harmonised, synthesis="labels").loss_weights["harmonisation"] == 1
