"""Families of maps: their identity, their inverses, closed forms."""

import numpy as np
import pytest
from cpab_reference import runge_kutta, velocity
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


def test_a_homography_carries_its_corners():
    """Four points in general position and where they go determine it: scikit-image's convention, its corner case."""
    family = Homography(2)
    theta = np.array([[0.1, -0.2, 0.05, 0.3, 0.2, -0.1, 0.4, -0.3]], np.float32)
    x = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]], np.float32)
    matrix = np.eye(3) + np.append(theta[0], 0).reshape(3, 3)
    there = np.concatenate([x[0] - 0.5, np.ones((4, 1))], axis=1) @ matrix.T
    expected = there[:, :2] / there[:, 2:] + 0.5
    np.testing.assert_allclose(ops.convert_to_numpy(family.map(theta, x))[0], expected, rtol=1e-5)


def reference(family, theta, x):
    """(P,), (N, d) -> (N, d), float64, by numpy and scipy alone."""
    ndim = family.ndim
    if isinstance(family, AffineCpab):
        linear, rest = np.split(theta, [ndim * (ndim + 1)])
        bent = runge_kutta(velocity(family.tessellation, rest[None]), x[None], 1000)[0]
        return reference(AffineDiff(ndim), linear, bent)
    if isinstance(family, ThinPlate):
        kernel = {2: "thin_plate_spline", 3: "linear"}[ndim]
        return x + RBFInterpolator(family.controls, theta.reshape(-1, ndim), kernel=kernel, degree=1)(x)
    if isinstance(family, Homography):
        matrix = np.eye(ndim + 1) + np.append(theta, 0).reshape(ndim + 1, ndim + 1)
    else:
        rows = np.vstack([theta.reshape(ndim, ndim + 1), np.zeros(ndim + 1)])
        matrix = expm(rows) if isinstance(family, AffineDiff) else rows + np.eye(ndim + 1)
    there = np.concatenate([x - 0.5, np.ones((len(x), 1))], axis=1) @ matrix.T
    return there[:, :ndim] / there[:, ndim:] + 0.5


WITH_REFERENCE = [family for family in FAMILIES if type(family) is not Cpab]  # of CPAB: test_cpab.py


@pytest.mark.backends
@pytest.mark.parametrize("family", WITH_REFERENCE, ids=str)
def test_against_numpy_and_scipy(family):
    theta, x = drawn(family, 0.3 if isinstance(family, Affine) else 0.1)
    found = ops.convert_to_numpy(family.map(theta, x))
    expected = [reference(family, *(a.astype(np.float64) for a in item)) for item in zip(theta, x, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_affine_cpab_is_one_after_the_other():
    family = AffineCpab((2, 2))
    theta, x = drawn(family)
    linear, rest = family.split(theta)
    outer = AffineDiff(2).map(linear, Cpab((2, 2)).map(rest, x))
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (family.map(theta, x), outer)), atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("family", WITH_REFERENCE, ids=str)
def test_gradients(family):
    """By each parameter, or along three directions of AffineCpab's, against differences of the float64 reference."""
    theta, x = drawn(family, 0.05, 20)
    pull = np.random.default_rng(9).normal(size=x.shape)

    def loss(value):
        return ops.sum(family.map(value, x) * ops.convert_to_tensor(pull, "float32"))

    slope = ops.convert_to_numpy(backend.gradient(loss, ops.convert_to_tensor(theta)))[0]
    theta, x = theta[0].astype(np.float64), x[0].astype(np.float64)
    directions = np.eye(family.parameters)
    if isinstance(family, AffineCpab):
        directions = np.random.default_rng(10).normal(size=(3, family.parameters))
    small = 1e-5
    expected = [
        ((reference(family, theta + small * d, x) - reference(family, theta - small * d, x)) * pull[0]).sum()
        for d in directions
    ]
    found = directions @ slope
    np.testing.assert_allclose(found, np.divide(expected, 2 * small), rtol=1e-3, atol=1e-4 * np.abs(found).max())


def test_bad_input():
    family = make_family("affine-cpab", 2, 2)
    with pytest.raises(ConfigError, match="theta needs 16 numbers an image"):
        family.check(np.zeros(7))
    with pytest.raises(ConfigError, match="2 numbers that are not finite"):
        family.check(np.append(np.zeros(14), [np.nan, np.inf]))
    for every in FAMILIES:
        theta, x = drawn(every)
        for wrong in (theta[:, 1:], np.tile(theta, (1, 2)), ops.convert_to_tensor(theta[:, 1:])):
            with pytest.raises(ConfigError, match=f"theta needs {every.parameters} numbers an image. Received: shape"):
                every.map(wrong, x)
        with pytest.raises(ConfigError, match="that are not finite"):
            every.map(np.full_like(theta, np.nan), x)
    np.testing.assert_array_equal(family.check(np.zeros(16)), np.zeros((1, 16)))
    with pytest.raises(ConfigError, match="spiral: is no family of maps; known are affine, affine-diff"):
        make_family("spiral", 2)
    with pytest.raises(ConfigError, match="0 parameters; give more boxes"):
        make_family("cpab", 3, 1)
    with pytest.raises(ConfigError, match="must be one whole number, or 2 of a 2-D map"):
        make_family("cpab", 2, (2, 3, 4))
    with pytest.raises(ConfigError, match=r"boxes 2\.5: must be one whole number"):
        make_family("cpab", 2, 2.5)
    assert make_family("cpab", 2, np.int64(3)) == make_family("cpab", 2, 3)
    assert make_family("cpab", 2, (2, 3)) == Cpab((2, 3))


def test_families_alike_share_what_is_compiled_for_their_cells():
    """Each new tessellation was compiled anew: two seconds and 45 MB for every batch of a study."""
    first, again = (make_family("cpab", 2, 3, "free") for _ in range(2))
    assert first.tessellation is again.tessellation
    assert first.tessellation is make_family("affine-cpab", 2, 3, "free").tessellation
    assert first.tessellation is not make_family("cpab", 2, 3, "fixed").tessellation
    assert make_family("cpab", 2, 3).tessellation is tessellate((3, 3), "fixed")
