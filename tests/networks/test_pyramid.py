"""The pyramid: what it compares, how its levels compose, and how it is registered with."""

import keras
import numpy as np
import pytest
from keras import ops

from r2reg.config import NetworkConfig
from r2reg.errors import ConfigError
from r2reg.evaluation.inspection import block_norms
from r2reg.flow.integrate import flow
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import compose, warp
from r2reg.geometry.grid import Grid
from r2reg.networks.build import build_network, velocity_model
from r2reg.networks.pyramid import Correlation
from r2reg.networks.saving import load_model, save_model
from r2reg.registration import network as network_stage
from r2reg.registration.network import Estimator, likeness
from r2reg.registration.refinement import LevelImages

pytestmark = pytest.mark.backends
SMALL = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2}


@pytest.fixture(autouse=True)
def _same_weights_each_time():
    keras.utils.set_random_seed(0)


def small_config(**changes):
    ndim = changes.get("ndim", 2)
    return NetworkConfig(
        **{**SMALL, "network": "pyramid-nsvf-r2net", "spacing": (2.0,) * ndim, "ndim": ndim, **changes}
    )


def awake(model, scale=0.3, seed=0):
    """Weights as after training: the first ones of the velocities are too small to move anything."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        if weight.name == "bias":
            weight.assign(rng.normal(scale=0.1, size=weight.shape))
    for weight in model.trainable_weights:
        if "flow" in weight.path:
            weight.assign(rng.normal(scale=scale, size=weight.shape))
    return model


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(size=(1, *shape, 1)).astype("float32") for _ in range(2)]


@pytest.mark.parametrize("size", ["full", "half"])
@pytest.mark.parametrize("shape", [(13, 10), (9, 10, 7)])
def test_any_shape(size, shape):
    config = small_config(velocity_size=size, ndim=len(shape))
    model = awake(build_network(config, shape, inverse=True))
    out = model(pair(shape))
    padded = tuple(-(-n // 4) * 2 for n in shape)
    assert tuple(out["velocity"].shape[1:-1]) == {"full": shape, "half": padded}[size]
    assert tuple(out["displacement"].shape) == tuple(out["inverse"].shape) == (1, *shape, len(shape))
    displacement = ops.convert_to_numpy(out["displacement"])
    assert np.isfinite(displacement).all()
    assert np.abs(displacement).max() > 0.01
    assert len(velocity_model(model).outputs) == config.blocks * {"full": 3, "half": 2}[size]


def test_correlation_is_the_mean_product_with_each_neighbour():
    rng = np.random.default_rng(0)
    fixed, moving = rng.normal(size=(2, 1, 5, 6, 4)).astype("float32")
    found = ops.convert_to_numpy(Correlation()([ops.convert_to_tensor(fixed), ops.convert_to_tensor(moving)]))
    near = np.pad(moving, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
    starts = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    expected = [(fixed * near[:, a : a + 5, b : b + 6]).mean(axis=-1) for a, b in starts]
    np.testing.assert_allclose(found, np.stack(expected, axis=-1), atol=1e-5)


def test_the_coarse_level_acts_after_the_fine_one():
    """Moving's features were carried by the coarse flow when the fine one was estimated: phi = coarse o fine."""
    shape = (16, 20)
    model = awake(build_network(small_config(velocity_size="full"), shape))
    images = [gaussian(ops.convert_to_tensor(image), sigma=2.0) for image in pair(shape)]
    steps = velocity_model(model)(images)
    levels = [flow([v / 3 for v in steps[k : k + 2]]) for k in (0, 2, 4)]  # the finest first
    expected = compose(compose(levels[2], levels[1]), levels[0])
    other = compose(levels[0], compose(levels[1], levels[2]))
    # As the network composes it, coarse levels on their own grids, and as a flow.
    for found, share in ((model(images)["displacement"], 0.5), (flow(steps), 0.1)):
        away, away_from_other = (np.abs(ops.convert_to_numpy(found - u)).mean() for u in (expected, other))
        assert away_from_other > 0.05
        assert away < share * away_from_other


def smooth_pair(shape, black=0):
    """Two images alike, of which the outer voxels are black."""
    images = [ops.convert_to_numpy(gaussian(ops.convert_to_tensor(image), sigma=2.0)) for image in pair(shape)]
    return [np.pad(image, [(0, 0), *[(black, black)] * len(shape), (0, 0)]) for image in images]


def test_the_black_around_does_not_matter():
    found = []
    for black in (16, 32):
        keras.utils.set_random_seed(0)
        shape = (16 + 2 * black, 20 + 2 * black)
        model = awake(build_network(small_config(velocity_size="full"), shape), 0.05)
        displacement = ops.convert_to_numpy(model(smooth_pair((16, 20), black))["displacement"])
        found.append(displacement[0, black:-black, black:-black])
    assert np.abs(found[0]).max() > 0.05
    np.testing.assert_allclose(*found, atol=0.02 * np.abs(found[0]).max())


def test_features_lie_in_the_middle_of_their_blocks():
    """Seen in a mirror, by convolutions that are their own mirror image, they are mirrored."""
    config = small_config(velocity_size="full")
    encoder = awake(build_network(config, (16, 24))).get_layer("encoder")
    for weight in encoder.trainable_weights:
        if weight.name == "kernel":
            kernel = ops.convert_to_numpy(weight)
            weight.assign(kernel + kernel[::-1] + kernel[:, ::-1] + kernel[::-1, ::-1])
    image = pair((16, 24))[0]
    there, mirrored = encoder(image), encoder(image[:, ::-1, ::-1].copy())
    for a, b in zip(there, mirrored, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a)[:, ::-1, ::-1], ops.convert_to_numpy(b), atol=1e-3)


def test_moving_is_carried_by_what_the_coarser_levels_found():
    shape = (32, 40)
    model = awake(build_network(small_config(), shape), scale=1.0)
    images = smooth_pair(shape)
    carried = model.get_layer("carried1")
    seen = keras.Model(model.inputs, [*carried.input, carried.output, *velocity_model(model).outputs])
    features, displacement, moved, *velocities = seen(images)
    expected = ops.convert_to_numpy(warp(features, displacement))
    coarse = ops.convert_to_numpy(flow([v / 2 for v in velocities[2:]]))  # after level 1's two
    features, displacement, moved = map(ops.convert_to_numpy, (features, displacement, moved))
    assert np.abs(coarse).max() > 0.1
    assert np.abs(displacement - coarse).mean() < 0.3 * np.abs(coarse).mean()
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert np.abs(moved - features).mean() > 0.01


def test_velocity_is_the_mean_over_time():
    model = awake(build_network(small_config(), (16, 20)))
    images = pair((16, 20))
    steps = [ops.convert_to_numpy(v) for v in velocity_model(model)(images)]
    np.testing.assert_allclose(ops.convert_to_numpy(model(images)["velocity"]), np.mean(steps, axis=0), atol=1e-6)


@pytest.mark.parametrize("changes", [{"velocity_size": "full"}, {}, {"symmetric": True, "rounds": 2}])
def test_there_and_back(changes):
    model = awake(build_network(small_config(**changes), (32, 40), inverse=True), scale=0.1)
    found = model(smooth_pair((32, 40)))
    there, back = found["displacement"], found["inverse"]
    moved = np.abs(ops.convert_to_numpy(there)).mean()
    assert moved > 0.1
    assert np.abs(ops.convert_to_numpy(compose(there, back))).mean() < 0.4 * moved


def test_half_the_difference_of_both_directions_is_the_other_way_round_for_changed_images():
    """Of one level, whose answer no coarser one has moved."""
    shape = (16, 20)
    images = smooth_pair(shape)
    one = {"encoder": (4,), "decoder": (4, 4, 4, 3)}
    for symmetric in (True, False):
        keras.utils.set_random_seed(0)
        model = awake(build_network(small_config(**one, symmetric=symmetric), shape))
        there, back = (
            [ops.convert_to_numpy(v) for v in velocity_model(model)(both)] for both in (images, images[::-1])
        )
        assert np.abs(there[0] - there[1]).max() > 0.001
        away = max(np.abs(a + b).max() for a, b in zip(there, reversed(back), strict=True))
        assert bool(away < 1e-5) is symmetric


def test_a_second_round_goes_on_from_the_first():
    """It has the same weights, and sees what the first has moved."""
    shape = (32, 40)
    images = smooth_pair(shape)
    once, twice = (build_network(small_config(rounds=k), shape) for k in (1, 2))
    twice.set_weights(awake(once, scale=1.0).get_weights())
    steps = velocity_model(twice)(images)
    assert len(steps) == 2 * len(velocity_model(once)(images))
    warped = twice.get_layer("carried2_2")
    seen = keras.Model(twice.inputs, [*warped.input, warped.output])
    features, displacement, moved = map(ops.convert_to_numpy, seen(images))
    expected = ops.convert_to_numpy(flow([v / 4 for v in steps[-2:]]))  # the coarse level's first round
    assert np.abs(displacement - expected[:, ::2, ::2] / 2).mean() < 0.3 * np.abs(displacement).mean()
    assert np.abs(moved - features).mean() > 0.001


def test_the_strength_of_a_contrast_does_not_matter():
    shape = (16, 20)
    model = awake(build_network(small_config(), shape))
    moving, fixed = pair(shape)
    found = [ops.convert_to_numpy(model([moving, image])["displacement"]) for image in (fixed, 0.5 * fixed)]
    np.testing.assert_allclose(*found, atol=0.01 * np.abs(found[0]).max())


@pytest.mark.parametrize("network", ["pyramid-nsvf-r2net", "nsvf-r2net"])
def test_a_flow_of_half_size_is_registered_with_a_bound(network, tmp_path):
    config = small_config(network=network, velocity_size="half", integrator="flow")
    save_model(tmp_path, awake(build_network(config, (16, 12)), 0.05), config, {})
    model = load_model(tmp_path)
    grid = Grid((22, 30), np.diag([2.0, 2, 1]))
    moving, fixed = (ops.convert_to_tensor(image) for image in pair(grid.shape))
    assert len(block_norms(model)) == len(velocity_model(model.build(grid.shape)).outputs) * 2
    estimator = Estimator(model, grid)
    estimator.rehearse()
    found = estimator(LevelImages(grid, fixed, moving))
    assert found.phi.certificate.holds
    np.testing.assert_allclose(found.grid.spacing, 4)
    expected = ops.convert_to_numpy(model.build(grid.shape)([moving, fixed])["displacement"])
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(
        ops.convert_to_numpy(found.on(grid).phi.displacement), expected, atol=0.05 * np.abs(expected).max()
    )


@pytest.mark.parametrize("size", ["half", "full"])
def test_a_map_is_rehearsed_in_the_shapes_of_the_pair(size, tmp_path, monkeypatch):
    config = small_config(velocity_size=size, integrator="flow")
    save_model(tmp_path, awake(build_network(config, (16, 12)), 0.05), config, {})
    grid = Grid((22, 30), np.diag([2.0, 2, 1]))
    estimator, warped, smoothed = Estimator(load_model(tmp_path), grid), [], []

    def warp_of(image, displacement):
        warped.append((tuple(image.shape), tuple(displacement.shape)))
        return warp(image, displacement)

    def gaussian_of(field, sigma):
        smoothed.append(tuple(field.shape))
        return gaussian(field, sigma=sigma)

    monkeypatch.setattr(network_stage, "warp", warp_of)
    monkeypatch.setattr(network_stage, "gaussian", gaussian_of)
    estimator.rehearse_map()
    images = LevelImages(grid, *map(ops.convert_to_tensor, pair(grid.shape)))
    found = estimator(images)
    likeness(images, found)
    assert warped == [((1, 22, 30, 1), (1, 22, 30, 2))] * 2
    assert smoothed == [tuple(found.phi.displacement.shape)]


@pytest.mark.parametrize("network", ["nsvf-r2net", "svf-r2net"])
def test_of_two_views_the_mean_of_the_velocities_is_integrated(network, tmp_path):
    config = small_config(network=network, velocity_size="full", integrator="flow")
    save_model(tmp_path, awake(build_network(config, (16, 12)), 0.05), config, {})
    model = load_model(tmp_path)
    grid = Grid((16, 12), np.eye(3))
    one, other = map(ops.convert_to_tensor, pair(grid.shape))
    estimator = Estimator(model, grid)
    found = estimator(LevelImages(grid, one, other), LevelImages(grid, other, one))
    velocities = velocity_model(model.build(grid.shape))
    there, back = (velocities([moving, fixed]) for moving, fixed in ((other, one), (one, other)))
    expected = ops.convert_to_numpy(flow([(v + w) / 2 for v, w in zip(there, back, strict=True)]))
    np.testing.assert_allclose(ops.convert_to_numpy(found.phi.displacement), expected, atol=1e-4)
    assert (
        np.abs(expected - ops.convert_to_numpy(estimator(LevelImages(grid, one, other)).phi.displacement)).max() > 0.01
    )
    assert found.phi.certificate.holds


def test_levels_compose_flows_only():
    with pytest.raises(ConfigError, match="its integrator is flow or scaling_squaring"):
        small_config(integrator="residual")
