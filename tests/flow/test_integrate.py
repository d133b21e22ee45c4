"""Integrators against closed forms, their order, and each other."""

import numpy as np
import pytest
from keras import ops
from scipy.linalg import expm

from r2reg.errors import ConfigError
from r2reg.flow.integrate import backward_flow, flow, safe_substeps, scaling_squaring
from r2reg.flow.jacobian import jacobian_determinant, lipschitz_bound
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import compose, identity_coordinates

SHAPE = (33, 33)
MIDDLE = (slice(None), slice(12, 21), slice(12, 21))  # far enough from the border for every map below


def centred(dtype="float64"):
    return identity_coordinates(SHAPE, dtype) - 16


def linear_velocity(matrix, dtype="float64"):
    """v(x) = matrix x about the middle: interpolated without error, so only the time stepping is measured."""
    # By NumPy: Keras' matmul on PyTorch makes float64 float32.
    return ops.convert_to_tensor(ops.convert_to_numpy(centred(dtype)) @ np.array(matrix, dtype).T, dtype=dtype)


def exact(matrix):
    here = ops.convert_to_numpy(centred())
    return here @ (expm(np.array(matrix)) - np.eye(2)).T


def error(displacement, matrix):
    return np.abs(ops.convert_to_numpy(displacement)[MIDDLE] - exact(matrix)[MIDDLE]).max()


def smooth_velocity(shape, size, seed=0, sigma=3.0):
    noise = np.random.default_rng(seed).normal(size=(1, *shape, len(shape))).astype("float32")
    field = gaussian(ops.convert_to_tensor(noise), sigma=sigma)
    return field * (size / float(ops.max(ops.abs(field))))


ROTATION = [[0.0, -0.6], [0.6, 0.0]]
LINEAR = [[0.3, 0.2], [-0.4, -0.25]]


@pytest.mark.backends
@pytest.mark.parametrize("integrate", [lambda v: flow([v] * 7), lambda v: flow([v], "rk4"), scaling_squaring])
def test_constant_velocity_translates(integrate):
    velocity = ops.ones((1, 8, 9, 10, 3)) * ops.convert_to_tensor([1.0, -2.0, 0.5])
    np.testing.assert_allclose(
        ops.convert_to_numpy(integrate(velocity)), ops.convert_to_numpy(velocity), atol=1e-5
    )  # float32 sums of 128 parts


@pytest.mark.backends
@pytest.mark.parametrize("matrix", [ROTATION, LINEAR])
def test_linear_velocity_gives_the_matrix_exponential(matrix):
    assert error(flow([linear_velocity(matrix, "float32")], "rk4", 8), matrix) < 2e-4  # h^4 and float32
    # exp(v/2^7) is first order in 2^-7
    assert error(scaling_squaring(linear_velocity(matrix, "float32"), 7), matrix) < 2e-2


@pytest.mark.parametrize("matrix", [ROTATION, LINEAR])
@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("rk4", 4)])
def test_order_of_convergence(scheme, order, matrix):
    velocity = linear_velocity(matrix)
    errors = [error(flow([velocity], scheme, n), matrix) for n in (4, 8, 16)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(rates - order) < 0.25)  # the rate is asymptotic in h


def test_order_of_scaling_and_squaring():
    errors = [error(scaling_squaring(linear_velocity(LINEAR), n), LINEAR) for n in (4, 5, 6, 7)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(rates - 1) < 0.25)


@pytest.mark.backends
def test_integrators_agree_on_a_smooth_field():
    velocity = smooth_velocity((24, 24, 24), 2.0)
    reference = ops.convert_to_numpy(flow([velocity], "rk4", 16))
    assert np.abs(ops.convert_to_numpy(flow([velocity], "euler", 64)) - reference).max() < 0.05  # h = 1/64
    # 7 self-compositions interpolate 7 times
    assert np.abs(ops.convert_to_numpy(scaling_squaring(velocity)) - reference).max() < 0.1


@pytest.mark.backends
def test_time_varying_flow_is_the_composition_of_its_parts():
    first, second = smooth_velocity((20, 20), 1.5, 1), smooth_velocity((20, 20), 1.5, 2)
    together = flow([first, second], "rk4", 4)
    apart = compose(flow([second / 2], "rk4", 4), flow([first / 2], "rk4", 4))
    # composing on the grid interpolates once more
    assert np.abs(ops.convert_to_numpy(together - apart)).max() < 0.05


@pytest.mark.backends
def test_backward_flow_undoes_the_flow():
    velocities = [smooth_velocity((24, 24, 24), 2.0, seed) for seed in range(3)]
    forward, backward = flow(velocities, "rk4", 4), backward_flow(velocities, "rk4", 4)
    inside = (slice(None), *[slice(4, -4)] * 3)
    assert np.abs(ops.convert_to_numpy(compose(forward, backward))[inside]).max() < 0.1  # two interpolations


@pytest.mark.parametrize("scheme", ["euler", "rk4"])
def test_safe_substeps_keep_the_map_one_to_one(scheme):
    """A field so steep that seven steps fold, and as many as the bound asks for do not."""
    velocities = [smooth_velocity((32, 32), 14.0, seed, sigma=1.5) for seed in range(7)]
    substeps = safe_substeps(velocities, scheme)
    assert substeps > 1
    assert float(lipschitz_bound(velocities[0])) / (7 * substeps) < 1
    folded = float(ops.min(jacobian_determinant(flow(velocities[:1], "euler", 1))))
    safe = float(ops.min(jacobian_determinant(flow(velocities, scheme, 8 * substeps))))
    assert folded < 0 < safe


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="heun"):
        flow([ops.zeros((1, 4, 4, 2))], "heun")
    with pytest.raises(ConfigError, match="0 velocities"):
        flow([])
    with pytest.raises(ConfigError, match="NaN"):
        safe_substeps([ops.full((1, 4, 4, 2), float("nan"))])
