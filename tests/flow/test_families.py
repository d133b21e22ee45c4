"""Families of maps: their identity, their inverses, closed forms."""

import numpy as np
import pytest
from keras import ops
from scipy.interpolate import RBFInterpolator
from scipy.linalg import expm

from r2reg.errors import ConfigError
from r2reg.flow import backend
from r2reg.flow.families import (
    Affine,
    AffineCpab,
    AffineDiff,
    Cpab,
    Homography,
    ThinPlate,
    make_family,
    matrix_exponential,
)
from r2reg.flow.tessellation import tessellate

FAMILIES = [
    *(kind(ndim) for kind in (Affine, AffineDiff, Homography, ThinPlate) for ndim in (2, 3)),
    Cpab((2, 3)), Cpab((2, 2, 2), "free"), AffineCpab((2, 2)), AffineCpab((3, 2, 2)),
]  # fmt: skip


def drawn(family, size=0.05, count=40, seed=0):
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, size, (2, family.parameters)).astype("float32")
    return theta, rng.uniform(0.1, 0.9, (2, count, family.ndim)).astype("float32")


@pytest.mark.backends
@pytest.mark.parametrize("scale", [1e-4, 0.3, 5.0])
@pytest.mark.parametrize("n", [3, 4])
def test_matrix_exponential_against_scipy(n, scale):
    matrix = (scale * np.random.default_rng(0).normal(size=(5, n, n))).astype("float32")
    found = ops.convert_to_numpy(matrix_exponential(ops.convert_to_tensor(matrix)))
    expected = np.stack([expm(a.astype(np.float64)) for a in matrix])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5 * np.abs(expected).max())


@pytest.mark.backends
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_zero_is_the_identity_and_back_again(family):
    theta, x = drawn(family)
    there = family.map(ops.convert_to_tensor(theta), ops.convert_to_tensor(x))
    assert np.abs(ops.convert_to_numpy(there) - x).max() > 0.01
    still = ops.convert_to_numpy(family.map(ops.zeros_like(theta), ops.convert_to_tensor(x)))
    np.testing.assert_allclose(still, x, atol=2e-6)
    if isinstance(family, ThinPlate):
        with pytest.raises(ConfigError, match="a ThinPlate has no inverse"):
            family.inverse(theta, there)
        return
    np.testing.assert_allclose(
        ops.convert_to_numpy(family.inverse(ops.convert_to_tensor(theta), there)), x, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_linear_families_are_their_matrices(ndim):
    theta, x = drawn(Affine(ndim), 0.3)
    rows = theta.reshape(2, ndim, ndim + 1).astype(np.float64)
    homogeneous = np.concatenate([x - 0.5, np.ones((2, 40, 1))], axis=-1)
    plain = np.einsum("bij,bnj->bni", np.eye(ndim, ndim + 1) + rows, homogeneous) + 0.5
    np.testing.assert_allclose(ops.convert_to_numpy(Affine(ndim).map(theta, x)), plain, atol=1e-5)
    exponentials = np.stack([expm(np.vstack([a, np.zeros(ndim + 1)]))[:ndim] for a in rows])
    diff = np.einsum("bij,bnj->bni", exponentials, homogeneous) + 0.5
    np.testing.assert_allclose(ops.convert_to_numpy(AffineDiff(ndim).map(theta, x)), diff, atol=1e-5)


def test_a_homography_carries_its_corners():
    """Four points in general position and where they go determine it: scikit-image's convention, its corner case."""
    family = Homography(2)
    theta = np.array([[0.1, -0.2, 0.05, 0.3, 0.2, -0.1, 0.4, -0.3]], np.float32)
    x = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]], np.float32)
    matrix = np.eye(3) + np.append(theta[0], 0).reshape(3, 3)
    there = np.concatenate([x[0] - 0.5, np.ones((4, 1))], axis=1) @ matrix.T
    expected = there[:, :2] / there[:, 2:] + 0.5
    np.testing.assert_allclose(ops.convert_to_numpy(family.map(theta, x))[0], expected, rtol=1e-5)


@pytest.mark.parametrize(("ndim", "kernel", "degree"), [(2, "thin_plate_spline", 1), (3, "linear", 1)])
def test_thin_plates_against_scipy(ndim, kernel, degree):
    family = ThinPlate(ndim)
    theta, x = drawn(family)
    for item in range(2):
        spline = RBFInterpolator(family.controls, theta[item].reshape(-1, ndim), kernel=kernel, degree=degree)
        found = ops.convert_to_numpy(family.map(theta[item : item + 1], x[item : item + 1]))[0]
        np.testing.assert_allclose(found, x[item] + spline(x[item]), atol=2e-5)


def test_affine_cpab_is_one_after_the_other():
    family = AffineCpab((2, 2))
    theta, x = drawn(family)
    linear, rest = family.split(theta)
    inner = Cpab((2, 2)).map(ops.convert_to_tensor(rest), ops.convert_to_tensor(x))
    outer = AffineDiff(2).map(ops.convert_to_tensor(linear), inner)
    np.testing.assert_allclose(family.map(theta, x), outer, atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("family", [f for f in FAMILIES if not isinstance(f, Cpab)], ids=str)
def test_gradients(family):
    """Along theta, against central differences of float64 maps of the same theta (float32 elsewhere)."""
    theta, x = drawn(family, 0.03, 20)
    step = np.random.default_rng(9).normal(size=theta.shape).astype("float32")

    def loss(value):
        return ops.sum(ops.square(family.map(value, ops.convert_to_tensor(x))))

    slope = ops.convert_to_numpy(backend.gradient(loss, ops.convert_to_tensor(theta)))
    small = 1e-2
    ends = [float(loss(ops.convert_to_tensor(theta + sign * small * step))) for sign in (1, -1)]
    assert (slope * step).sum() == pytest.approx((ends[0] - ends[1]) / (2 * small), rel=5e-3, abs=0.02)


def test_bad_input():
    family = make_family("affine-cpab", 2, 2)
    with pytest.raises(ConfigError, match="theta needs 16 numbers"):
        family.check(np.zeros(7))
    with pytest.raises(ConfigError, match="2 numbers that are not finite"):
        family.check(np.append(np.zeros(14), [np.nan, np.inf]))
    np.testing.assert_array_equal(family.check(np.zeros(16)), np.zeros((1, 16)))
    with pytest.raises(ConfigError, match="spiral: is no family of maps; known are affine, affine-diff"):
        make_family("spiral", 2)
    with pytest.raises(ConfigError, match="0 parameters; give more boxes"):
        make_family("cpab", 3, 1)


def test_families_alike_share_what_is_compiled_for_their_cells():
    """Each new tessellation was compiled anew: two seconds and 45 MB for every batch of a study."""
    first, again = (make_family("cpab", 2, 3, "free") for _ in range(2))
    assert first.tessellation is again.tessellation
    assert first.tessellation is make_family("affine-cpab", 2, 3, "free").tessellation
    assert first.tessellation is not make_family("cpab", 2, 3, "fixed").tessellation
    assert make_family("cpab", 2, 3).tessellation is tessellate((3, 3), "fixed")
