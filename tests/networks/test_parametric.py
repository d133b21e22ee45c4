"""The network that predicts the few parameters of a pair's map."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from r2reg.config import NetworkConfig, TrainConfig
from r2reg.errors import ConfigError, ModelError
from r2reg.evaluation.inspection import inspect_model
from r2reg.flow.warp import compose
from r2reg.geometry.grid import Grid
from r2reg.networks.build import build_network
from r2reg.networks.saving import load_model, save_model
from r2reg.networks.transformer import PoolTo, axis_shares, pair_family
from r2reg.registration.network import Estimator
from r2reg.registration.parametric import diffeomorphism
from r2reg.registration.refinement import LevelImages
from r2reg.training.trainer import make_trainer

CONFIG = NetworkConfig(network="affine-cpab", ndim=2, encoder=(4, 8), decoder=(4, 4, 4, 4, 3), boxes=2, spacing=(1, 1))


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((1, *shape, 1), dtype="float32") for _ in range(2)]


def awake(network, seed=0):
    """A last layer as after training, of maps that move by a tenth of the image."""
    layer = network.get_layer("theta")
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.01, size=layer.kernel.shape), rng.normal(scale=0.05, size=layer.bias.shape)])
    return network


@pytest.mark.backends
@pytest.mark.parametrize("shape", [(24, 21), (13, 12, 11)])
def test_begins_at_the_identity_and_inverts(shape):
    config = dataclasses.replace(CONFIG, ndim=len(shape), spacing=(1.0,) * len(shape))
    network = build_network(config, shape, inverse=True)
    found = network(pair(shape))
    assert tuple(found["displacement"].shape) == (1, *shape, len(shape))
    np.testing.assert_allclose(ops.convert_to_numpy(found["displacement"]), 0, atol=1e-5)
    found = awake(network)(pair(shape))
    displacement = ops.convert_to_numpy(found["displacement"])
    assert 0.2 < np.abs(displacement).max() < 10
    family = pair_family(config)
    centres = np.full((1, 1, len(shape)), 0.5, np.float32)
    there = family.map(found["theta"], ops.convert_to_tensor(centres))
    np.testing.assert_allclose(ops.convert_to_numpy(family.inverse(found["theta"], there)), centres, atol=1e-5)
    away = ops.convert_to_numpy(compose(found["displacement"], found["inverse"]))
    inside = tuple(slice(n // 3, -(n // 3)) for n in shape)  # places that stay on the grid
    assert np.abs(away[(0, *inside)]).max() < 0.2 * np.abs(displacement).max()


@pytest.mark.backends
def test_its_weights_fit_every_shape_and_the_map_is_registered(tmp_path):
    network = awake(build_network(CONFIG, (16, 12)))
    save_model(tmp_path, network, CONFIG, {})
    model = load_model(tmp_path)
    moving, fixed = (ops.convert_to_tensor(image) for image in pair((21, 30)))
    images = LevelImages(Grid((21, 30), np.eye(3)), fixed, moving)
    found = Estimator(model, images.grid)(images)
    expected = model.build((21, 30))([moving, fixed])["displacement"]
    np.testing.assert_allclose(ops.convert_to_numpy(found.phi.displacement), ops.convert_to_numpy(expected), atol=1e-4)
    assert found.phi.certificate.holds
    assert inspect_model(tmp_path)["norms"] == []
    with pytest.raises(ModelError, match="integrates exactly"):
        inspect_model(tmp_path, converges=True)


@pytest.mark.backends
def test_of_two_views_the_mean_of_theta_counts(tmp_path):
    save_model(tmp_path, awake(build_network(CONFIG, (16, 12))), CONFIG, {})
    model, grid = load_model(tmp_path), Grid((16, 12), np.eye(3))
    views = [LevelImages(grid, *map(ops.convert_to_tensor, pair(grid.shape, seed))) for seed in (0, 1)]
    thetas = [ops.convert_to_numpy(model.build(grid.shape)([view.moving, view.fixed])["theta"]) for view in views]
    assert np.abs(thetas[0] - thetas[1]).max() > 1e-3
    expected = diffeomorphism(pair_family(CONFIG), (thetas[0] + thetas[1]) / 2, grid.shape)
    found = Estimator(model, grid)(*views)
    np.testing.assert_allclose(*(ops.convert_to_numpy(p.displacement) for p in (found.phi, expected)), atol=1e-5)


@pytest.mark.backends
def test_it_learns_where_a_blob_has_gone():
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, 24)] * 2, indexing="ij"), axis=-1)
    rng = np.random.default_rng(0)

    def blobs(count):
        centres = rng.uniform(0.35, 0.65, (count, 1, 1, 2))
        return np.exp(-40 * ((x - centres) ** 2).sum(-1))[..., None].astype("float32")

    config = TrainConfig(model=CONFIG, learning_rate=3e-3, weights={"diffusion": 0.0})
    trainer = make_trainer(build_network(CONFIG, (24, 24)), config)
    losses = [
        float(trainer.train_on_batch({"moving": blobs(8), "fixed": blobs(8)}, return_dict=True)["similarity"])
        for _ in range(120)
    ]
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:10])


def test_parts_are_means():
    np.testing.assert_allclose(axis_shares(7, 3).sum(axis=1), 1)
    np.testing.assert_allclose(axis_shares(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    image = np.random.default_rng(0).random((2, 6, 9, 3), dtype="float32")
    expected = image.reshape(2, 3, 2, 3, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(ops.convert_to_numpy(PoolTo(3)(image)), expected, atol=1e-6)


@pytest.mark.parametrize("given", [{"network": "affine-cpab", "integrator": "flow"}, {"integrator": "cpab"}])
def test_its_integrator_is_its_own(given):
    with pytest.raises(ConfigError, match="has the integrator cpab, and no other"):
        NetworkConfig(**given)
