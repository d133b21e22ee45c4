"""The flow of piecewise affine velocities: against Runge-Kutta in float64, its inverse, its gradients."""

import subprocess
import sys

import numpy as np
import pytest
from cpab_reference import runge_kutta, velocity
from keras import ops

from r2reg.errors import ConfigError
from r2reg.flow import backend, cpab
from r2reg.flow.tessellation import Tessellation

CASES = [((2, 2), "fixed"), ((3, 4), "free"), ((3, 3, 3), "fixed"), ((2, 1, 2), "free")]


def carried(theta, x, tessellation, dtype="float32"):
    theta, x = (ops.convert_to_tensor(value, dtype) for value in (theta, x))
    return ops.convert_to_numpy(cpab.cpab(theta, x, tessellation))


@pytest.mark.parametrize(("counts", "boundary"), CASES)
def test_against_runge_kutta(counts, boundary):
    t, rng = Tessellation(counts, boundary), np.random.default_rng(0)
    theta = rng.normal(0, 0.12, (2, t.parameters))
    x = rng.uniform(0, 1, (2, 40, t.ndim))
    there = carried(theta, x, t)
    assert np.abs(there - x).max() > 0.1
    np.testing.assert_allclose(there, runge_kutta(velocity(t, theta), x, 10_000), rtol=0, atol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize(("counts", "boundary"), CASES)
def test_the_inverse_is_minus_theta(counts, boundary):
    t, rng = Tessellation(counts, boundary), np.random.default_rng(1)
    theta = rng.normal(0, 0.05, (1, t.parameters))
    x = rng.uniform(0, 1, (1, 3000, t.ndim))  # more than are followed together
    there = carried(theta, x, t)
    assert np.abs(there - x).max() > 0.04
    np.testing.assert_allclose(carried(-theta, there, t), x, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(carried(0 * theta, x, t), x.astype("float32"))


def test_places_on_facets_and_outside():
    """Vertices and edges are places like any other; outside a fixed boundary nothing moves."""
    t, rng = Tessellation((2, 2), "fixed"), np.random.default_rng(2)
    theta = rng.normal(0, 0.2, (1, t.parameters))
    corners = t.corners[None]
    between = 0.5 * (corners[:, t.cells[:, 0]] + corners[:, t.cells[:, 1]])
    outside = np.array([[[-0.3, 0.5], [1.2, 1.7], [0.4, 1.0001]]])
    x = np.concatenate([corners, between], axis=1)
    there = carried(theta, x, t)
    np.testing.assert_allclose(there, runge_kutta(velocity(t, theta), x, 2000), rtol=0, atol=1e-5)
    np.testing.assert_allclose(carried(theta, outside, t), outside, atol=1e-6)
    free = Tessellation((2, 2), "free")
    shift = np.tile([0.1, -0.2], (1, free.parameters // 2))
    np.testing.assert_allclose(carried(shift, outside, free), outside + np.array([0.1, -0.2]), atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize(("counts", "boundary"), CASES)
def test_gradients_are_finite_differences(counts, boundary):
    t, rng = Tessellation(counts, boundary), np.random.default_rng(3)
    theta, x = rng.normal(0, 0.1, (2, t.parameters)), rng.uniform(0.02, 0.98, (2, 30, t.ndim))
    pull = rng.normal(size=x.shape).astype("float32")

    def loss(theta, x):
        return ops.sum(cpab.cpab(theta, x, t) * ops.convert_to_tensor(pull))

    def slope(function, at):
        at = ops.convert_to_tensor(at, "float32")
        return ops.convert_to_numpy(backend.gradient(function, at)).astype(np.float64)

    in_theta = slope(lambda value: loss(value, ops.convert_to_tensor(x, "float32")), theta)
    in_x = slope(lambda value: loss(ops.convert_to_tensor(theta, "float32"), value), x)
    small = 1e-4
    dtheta, dx = (rng.normal(size=value.shape) for value in (theta, x))
    for found, d1, d2 in ((in_theta, dtheta, 0 * dx), (in_x, 0 * dtheta, dx)):
        ends = []
        for sign in (1, -1):
            ways = runge_kutta(velocity(t, theta + sign * small * d1), x + sign * small * d2, 1000)
            ends.append((ways * pull).sum())
        expected = (ends[0] - ends[1]) / (2 * small)
        given = found * (d1 if found is in_theta else d2)
        assert given.sum() == pytest.approx(expected, rel=1e-3, abs=1e-4 * np.abs(given).sum())


def test_the_velocity_is_continuous_across_cells():
    t = Tessellation((2, 3, 2), "free")
    theta = np.random.default_rng(4).normal(size=(1, t.parameters))
    at = ops.convert_to_numpy(cpab.vertex_velocities(ops.convert_to_tensor(theta), t))[0]
    a, k = np.nonzero(t.neighbours >= 0)
    b = t.neighbours[a, k]
    shared = np.array([[v for v in t.cells[i] if v in t.cells[j]] for i, j in zip(a, b, strict=True)])
    middle = t.corners[shared].mean(axis=1)
    one = np.concatenate([middle, np.ones((len(middle), 1))], axis=1)
    sides = [np.einsum("nij,nj,nid->nd", t.to_weights[cell], one, at[t.cells[cell]]) for cell in (a, b)]
    np.testing.assert_allclose(*sides, atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("items", [1, 2])
def test_points_in_blocks_go_the_same_way(items, monkeypatch):
    t = Tessellation((2, 2), "free")
    rng = np.random.default_rng(6)
    theta = ops.convert_to_tensor(rng.normal(0, 0.2, (items, t.parameters)).astype("float32"))
    points = ops.convert_to_tensor(rng.uniform(size=(items, 150, 2)).astype("float32"))
    pull = ops.convert_to_tensor(rng.uniform(size=(items, 150, 2)).astype("float32"))

    def both():
        slope = backend.gradient(lambda value: ops.sum(cpab.cpab(value, points, t) * pull), theta)
        return [ops.convert_to_numpy(found) for found in (cpab.cpab(theta, points, t), slope)]

    whole = both()
    monkeypatch.setattr(cpab, "CHUNK", 32)
    monkeypatch.setattr(cpab, "BLOCK", 64)
    for found, expected in zip(both(), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


PEAK = """
import resource
import numpy as np
from keras import ops
from r2reg.flow import backend, cpab
from r2reg.flow.tessellation import Tessellation
t = Tessellation((4, 4), "fixed")
points = ops.convert_to_tensor(np.random.default_rng(0).random((1, 60_000, 2)).astype("float32"))
for scale in (0.01, 3.0):
    theta = ops.convert_to_tensor(np.random.default_rng(1).normal(0, scale, (1, t.parameters)).astype("float32"))
    backend.gradient(lambda value: ops.sum(cpab.cpab(value, points, t)), theta)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_pieces_of_the_way():
    """The gradient's loop keeps its state and nothing of its way: one 300 times as long asks for no more."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    near, far = map(float, done.stdout.split())
    assert far - near < 30  # MB


def test_a_long_way_back():
    t = Tessellation((4, 4), "free")
    x = np.random.default_rng(5).uniform(0.2, 0.8, (1, 50, 2))
    pull = ops.ones((1, 50, 2))
    for scale in (0.01, 3.0):
        theta = ops.convert_to_tensor(np.tile([scale, 0.0], (1, t.parameters // 2)), "float32")
        velocities = cpab.vertex_velocities(theta, t)
        end = ops.convert_to_tensor(x + np.array([scale, 0.0]), "float32")
        _, pulled = cpab._adjoint(velocities, end, pull, tessellation=t)
        np.testing.assert_allclose(ops.convert_to_numpy(pulled), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tessellation((0, 2)), "at least 1 along each axis"),
        (lambda: Tessellation((3,)), "two or three numbers of boxes"),
        (lambda: Tessellation((1, 1, 1)), "have 0 parameters; give more boxes"),
        (lambda: Tessellation((40, 40, 40)), "parameters; give fewer boxes"),
        (lambda: Tessellation((2, 2), "open"), "fixed or free"),
        (lambda: cpab.vertex_velocities(ops.zeros((1, 7)), Tessellation((2, 2))), "theta needs 10 numbers"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
