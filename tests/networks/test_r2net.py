"""The networks: shapes, what they compute, and their way to disk and back."""

import json
from typing import get_args

import keras
import numpy as np
import pytest
from keras import ops

from r2reg.config import NetworkConfig, Velocity
from r2reg.errors import ConfigError, ModelError
from r2reg.flow.integrate import flow, scaling_squaring
from r2reg.flow.resize import enlarge
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import compose
from r2reg.networks.build import build_network, velocity_model
from r2reg.networks.r2net import ResidualBlock
from r2reg.networks.saving import load_model, save_model

pytestmark = pytest.mark.backends
SMALL = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2}
CASES = [
    (network, integrator, shape)
    for network in ("svf-r2net", "nsvf-r2net", "vm-diff")
    for integrator in ("residual", "flow", "scaling_squaring")
    for shape in ((13, 10), (9, 10, 7))
    if (network, integrator) != ("vm-diff", "residual")
]


def small_config(**changes):
    ndim = changes.get("ndim", 3)
    return NetworkConfig(**{**SMALL, "spacing": (2.0,) * ndim, **changes})


def awake(model, seed=0):
    """Weights as after training: the flow layer's first values are too small to move anything."""
    rng = np.random.default_rng(seed)
    flow_layer = model.get_layer("flow")
    flow_layer.set_weights([rng.normal(scale=0.3, size=w.shape) for w in flow_layer.get_weights()])
    return model


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(size=(1, *shape, 1)).astype("float32") for _ in range(2)]


@pytest.mark.parametrize(("network", "integrator", "shape"), CASES)
def test_any_shape(network, integrator, shape):
    config = small_config(network=network, integrator=integrator, velocity_size="full", ndim=len(shape))
    out = awake(build_network(config, shape))(pair(shape))
    for name in ("velocity", "displacement"):
        assert tuple(out[name].shape) == (1, *shape, len(shape))
        assert np.isfinite(ops.convert_to_numpy(out[name])).all()


@pytest.mark.parametrize("velocity", get_args(Velocity))
@pytest.mark.parametrize("size", ["full", "half"])
@pytest.mark.parametrize("network", ["nsvf-r2net", "vm-diff"])
def test_every_estimator(network, velocity, size):
    shape = (13, 10)
    config = small_config(network=network, velocity=velocity, velocity_size=size, integrator="flow", ndim=2)
    out = awake(build_network(config, shape, inverse=True))(pair(shape))
    fine = {"full": shape, "half": (8, 6)}[size]  # 16 x 12 padded
    assert tuple(out["velocity"].shape) == (1, *fine, 2)
    assert tuple(out["displacement"].shape) == tuple(out["inverse"].shape) == (1, *shape, 2)
    assert ("log_variance" in out) == (velocity == "prob")
    assert np.isfinite(ops.convert_to_numpy(out["displacement"])).all()


def test_padded_half_size_runs_as_a_graph():
    """TensorFlow with oneDNN joins the padding to the first convolution, unless it is kept from it."""
    shape = (22, 26, 30)
    model = build_network(NetworkConfig(network="vm-diff"), shape)
    model.compile(jit_compile=False)
    assert model.predict_on_batch(pair(shape))["displacement"].shape == (1, *shape, 3)


def test_inverse_is_the_flow_run_backwards():
    shape = (12, 14)
    config = small_config(velocity="nonprob-gauss", velocity_sigma=2.0, integrator="flow", scheme="rk4", ndim=2)
    out = awake(build_network(config, shape, inverse=True))(pair(shape))
    there, back = out["displacement"], out["inverse"]
    error = ops.convert_to_numpy(compose(back, there))[0, 3:-3, 3:-3]
    size = ops.convert_to_numpy(there)[0, 3:-3, 3:-3]
    assert np.abs(size).max() > 0.01
    assert np.abs(error).max() < 0.05 * np.abs(size).max()


def test_residual_steps_are_not_run_backwards():
    with pytest.raises(ModelError, match="no flow that can be run backwards"):
        build_network(small_config(ndim=2), (12, 14), inverse=True)


def test_sampling_is_for_training_alone():
    shape = (12, 12)
    model = awake(build_network(small_config(velocity="prob", ndim=2), shape))
    head = model.get_layer("log_variance")
    head.bias.assign(np.zeros(2))  # variance 1
    images = pair(shape)
    mean = ops.convert_to_numpy(model(images, training=False)["mean"])
    np.testing.assert_array_equal(ops.convert_to_numpy(model(images, training=False)["velocity"]), mean)
    draws = np.stack([ops.convert_to_numpy(model(images, training=True)["velocity"]) - mean for _ in range(20)])
    assert draws.std() == pytest.approx(1, rel=0.05)
    assert not np.array_equal(draws[0], draws[1])


def test_smoothing_layer():
    shape = (12, 12)
    rough = awake(build_network(small_config(velocity="nonprob", ndim=2), shape))
    smooth = build_network(small_config(velocity="nonprob-gauss", velocity_sigma=1.5, ndim=2), shape)
    smooth.set_weights(rough.get_weights())
    images = pair(shape)
    expected = gaussian(rough(images)["velocity"], sigma=1.5)
    np.testing.assert_allclose(
        ops.convert_to_numpy(smooth(images)["velocity"]), ops.convert_to_numpy(expected), atol=1e-5
    )


def test_vm_diff_is_scaling_and_squaring_of_its_velocity():
    """Its published settings: sampled, half size, 7 squarings; decoder without transposed convolutions."""
    config = NetworkConfig(network="vm-diff")
    assert (config.velocity, config.velocity_size, config.integrator) == ("prob", "half", "scaling_squaring")
    model = awake(build_network(config, (16, 16, 16)))
    conv = lambda a, b: 27 * a * b + b  # noqa: E731
    encoder = conv(2, 16) + conv(16, 32) + 2 * conv(32, 32)
    decoder = conv(32, 32) + 2 * conv(32 + 32, 32) + conv(32 + 16, 32) + conv(32, 16)
    assert model.count_params() == encoder + decoder + (conv(16, 3) - 3) + conv(16, 3)
    out = model(pair((16, 16, 16)))
    expected = 2 * ops.convert_to_numpy(enlarge(scaling_squaring(out["velocity"], 7)))
    np.testing.assert_allclose(ops.convert_to_numpy(out["displacement"]), expected, atol=1e-5)


@pytest.mark.parametrize("network", ["svf-r2net", "nsvf-r2net"])
def test_flow_integrates_the_block_states(network):
    shape = (10, 12)
    config = small_config(network=network, integrator="flow", ndim=2)
    model = awake(build_network(config, shape))
    states = velocity_model(model)(pair(shape))
    assert len(states) == config.blocks
    expected = ops.convert_to_numpy(flow(states))
    np.testing.assert_allclose(ops.convert_to_numpy(model(pair(shape))["displacement"]), expected, atol=1e-5)


def test_stationary_shares_its_block():
    stationary = build_network(small_config(network="svf-r2net"), (8, 8, 8))
    varying = build_network(small_config(network="nsvf-r2net"), (8, 8, 8))
    block = 3**3 * 9 + 9
    assert varying.count_params() - stationary.count_params() == 6 * block


def test_published_filters():
    """The weights of the published nonProb network, counted by hand from its list of filters."""
    model = build_network(NetworkConfig(), (16, 16, 16))
    conv = lambda a, b: 27 * a * b + b  # noqa: E731
    encoder = conv(2, 16) + conv(16, 32) + 2 * conv(32, 32)
    up = 4 * 0 + conv(32, 8) * 3 + conv(16, 8) + conv(32, 8) * 0
    decoder = conv(32, 32) + 2 * conv(8 + 32, 32) + conv(8 + 16, 32) + conv(32, 16) + conv(8 + 2, 16) + conv(16, 3)
    assert model.count_params() == encoder + up + decoder + 27 * 9 + 7 * (27 * 9 + 9)


def test_block_is_invertible():
    """With operator norms <= 1 and s = 1/2 the fixed point v = y - s branch(v) halves its error each time."""
    block = ResidualBlock(2, 0.5, "operator")
    v = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(1, 16, 16, 2)).astype("float32"))
    y = block(v)
    back = y
    for _ in range(30):
        back = y - (block(back) - back)
    np.testing.assert_allclose(ops.convert_to_numpy(back), ops.convert_to_numpy(v), atol=1e-5)  # float32


def test_save_and_load(tmp_path):
    config = small_config(ndim=2)
    model = awake(build_network(config, (12, 12)))
    save_model(tmp_path / "m", model, config, {"training": {"steps": 3}})
    saved = load_model(tmp_path / "m")
    assert saved.network == config
    assert saved.details == {"training": {"steps": 3}}
    again = saved.build((20, 14))  # weights fit every shape
    expected = build_network(config, (20, 14))
    expected.set_weights(model.get_weights())
    images = pair((20, 14))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(again(images)["displacement"]),
        ops.convert_to_numpy(expected(images)["displacement"]),
    )


def test_mixed_precision_is_the_unets_alone():
    images = pair((8, 8, 8))
    found = []
    for mixed in (False, True):
        keras.utils.set_random_seed(0)
        model = build_network(small_config(integrator="flow"), (8, 8, 8), mixed=mixed)
        model.get_layer("flow").kernel.assign(1e4 * model.get_layer("flow").kernel)  # near 0 before training
        assert model.get_layer("bottom2").compute_dtype == ("float16" if mixed else "float32")
        found.append(model.predict_on_batch(images)["displacement"])
    assert found[1].dtype == np.float32
    largest = np.abs(found[0]).max()
    assert largest > 0.05
    np.testing.assert_allclose(found[1], found[0], atol=0.01 * largest)


def test_bad_model_folders(tmp_path):
    config = small_config(ndim=2)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(tmp_path)
    save_model(tmp_path, build_network(config, (8, 8)), config, {})
    with pytest.raises(ModelError, match="2-D"):
        load_model(tmp_path).build((8, 8, 8))
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="corrupt"):
        load_model(tmp_path)
    save_model(tmp_path, build_network(config, (8, 8)), config, {})
    (tmp_path / "config.json").write_text(json.dumps({"schema_version": 1, "network": {"depth": 3}}), encoding="utf-8")
    with pytest.raises(ModelError, match="unknown setting depth"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="not a model's settings"):
        load_model(tmp_path)


def test_settings_name_what_is_wrong():
    with pytest.raises(ConfigError, match="known are network"):
        NetworkConfig.from_dict({"depth": 2})
    with pytest.raises(ConfigError, match="integrator must be one of"):
        NetworkConfig(integrator="leapfrog")
    with pytest.raises(ConfigError, match="decoder needs"):
        NetworkConfig(encoder=(8, 8))
    with pytest.raises(ModelError, match="3-D"):
        build_network(NetworkConfig(), (16, 16))
