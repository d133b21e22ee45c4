"""The inverse against closed forms and by its residual."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow.integrate import backward_flow, flow
from r2reg.flow.inverse import invert, spread_interpolation_error
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import compose, identity_coordinates

pytestmark = pytest.mark.backends


def test_linear_map():
    """(id + M)^-1 - id = (I + M)^-1 - I, on places whose image stays inside."""
    here = ops.convert_to_numpy(identity_coordinates((21, 21))) - 10
    matrix = np.array([[-0.3, 0.2], [-0.1, -0.4]])
    inverse, residual = invert(ops.convert_to_tensor((here @ matrix.T).astype("float32")))
    expected = here @ (np.linalg.inv(np.eye(2) + matrix) - np.eye(2)).T
    middle = (slice(None), slice(7, 14), slice(7, 14))
    np.testing.assert_allclose(ops.convert_to_numpy(inverse)[middle], expected[middle], atol=5e-3)  # tolerance 1e-3
    assert ops.convert_to_numpy(residual)[middle].max() < 1e-3


def test_flow_is_inverted_to_a_twentieth_of_a_voxel():
    noise = np.random.default_rng(0).normal(size=(1, 32, 32, 32, 3)).astype("float32")
    velocity = gaussian(ops.convert_to_tensor(noise), sigma=4.0)
    velocity = velocity * (4.0 / float(ops.max(ops.abs(velocity))))  # voxels
    forward = flow([velocity] * 7)
    inverse, residual = invert(forward, backward_flow([velocity] * 7))
    residual = ops.convert_to_numpy(residual)
    assert np.percentile(residual, 99) < 0.05
    both = ops.convert_to_numpy(compose(inverse, forward))
    inside = (slice(None), *[slice(6, -6)] * 3)
    assert np.percentile(np.linalg.norm(both[inside], axis=-1), 99) < 0.05


def test_spreading_the_error_helps_between_voxels():
    """A parabola is linearly interpolated with a mean error of 1/6 per axis (f'' = 2); spread, with none."""
    line = np.arange(12.0) ** 2
    field = ops.convert_to_tensor(np.broadcast_to(line[None, :, None, None], (1, 12, 4, 2)).astype("float32"))
    spread = ops.convert_to_numpy(spread_interpolation_error(field))[0, 2:-2, 1, 0]
    places = np.linspace(0, 7, 701)
    error = np.interp(places, np.arange(8), spread) - (places + 2) ** 2
    assert abs(error.mean()) < 1e-3  # a sum over 701 places for an integral
    assert np.abs(error).max() < 0.17 < 0.25  # 1/6 against h^2 / 8 f''


def test_a_folded_map_is_not_undone():
    """A fold covers some places thrice: each has an origin, but not every origin is found again."""
    field = np.zeros((1, 16, 16, 2), dtype="float32")
    field[0, 6:10, 6:10, 0] = np.linspace(4, -4, 4)[:, None]
    forward = ops.convert_to_tensor(field)
    inverse, residual = invert(forward)
    _, shorter = invert(forward, iterations=1)
    assert ops.convert_to_numpy(residual).mean() <= ops.convert_to_numpy(shorter).mean()
    assert np.abs(ops.convert_to_numpy(compose(inverse, forward))).max() > 1


def test_a_batch_in_many_parts(monkeypatch):
    """One item is there already, the other is worked on a few places at a time, on any backend."""
    from r2reg.flow import inverse as module

    noise = np.random.default_rng(1).normal(size=(2, 24, 24, 2)).astype("float32")
    noise[0] = 0
    field = gaussian(ops.convert_to_tensor(noise), sigma=3.0)
    field = field * (2.0 / float(ops.max(ops.abs(field))))  # voxels
    whole, _ = invert(field)
    monkeypatch.setattr(module, "PLACES_AT_ONCE", 100)
    parts, residual = invert(field)
    np.testing.assert_allclose(ops.convert_to_numpy(parts), ops.convert_to_numpy(whole), atol=5e-3)  # tolerance 1e-3
    assert ops.convert_to_numpy(parts)[0].max() == 0
    assert ops.convert_to_numpy(residual).max() < 1e-3


def test_a_start_that_holds_is_left_alone():
    noise = np.random.default_rng(2).normal(size=(1, 24, 24, 2)).astype("float32")
    field = gaussian(ops.convert_to_tensor(noise), sigma=3.0) * 3.0
    inverse, _ = invert(field)
    again, _ = invert(field, inverse, tolerance=0.01)
    np.testing.assert_array_equal(ops.convert_to_numpy(again), ops.convert_to_numpy(inverse))


def test_the_coarse_start_of_a_large_field(monkeypatch):
    from r2reg.flow import inverse as module

    monkeypatch.setattr(module, "SMALLEST_HALVED", 24)
    noise = np.random.default_rng(3).normal(size=(1, 25, 30, 24, 3)).astype("float32")
    field = gaussian(ops.convert_to_tensor(noise), sigma=4.0)
    field = field * (3.0 / float(ops.max(ops.abs(field))))  # voxels
    _, residual = invert(field)
    assert ops.convert_to_numpy(residual).max() < 1e-3
