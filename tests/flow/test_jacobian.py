"""Jacobians and Lipschitz bounds against closed forms and the numpy reference."""

import numpy as np
import pytest
from keras import ops

from r2reg.errors import GeometryError
from r2reg.flow import reference
from r2reg.flow.jacobian import jacobian_determinant, lipschitz_bound
from r2reg.flow.warp import identity_coordinates

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("ndim", [2, 3])
def test_linear_displacement(ndim):
    matrix = np.random.default_rng(0).normal(scale=0.3, size=(ndim, ndim)).astype("float32")
    field = ops.convert_to_numpy(identity_coordinates((5,) * ndim)) @ matrix.T
    determinant = ops.convert_to_numpy(jacobian_determinant(ops.convert_to_tensor(field)))
    assert determinant.shape == (1, *(3,) * ndim)
    np.testing.assert_allclose(determinant, np.linalg.det(np.eye(ndim) + matrix), rtol=1e-4)  # float32
    # The bound of a linear field is its Frobenius norm or its largest row sum.
    expected = min(np.linalg.norm(matrix), np.abs(matrix).sum(1).max())
    assert float(lipschitz_bound(ops.convert_to_tensor(field))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_numpy_reference(ndim):
    field = np.random.default_rng(1).normal(size=(1, *(8,) * ndim, ndim))
    got = ops.convert_to_numpy(jacobian_determinant(ops.convert_to_tensor(field.astype("float32"))))
    np.testing.assert_allclose(got[0], reference.jacobian_determinant(field[0]), atol=1e-5)  # float32


def test_bound_holds_between_any_two_points():
    """|u(x) - u(y)| <= L |x - y| in one of the two norms, for random pairs of points of a random field."""
    rng = np.random.default_rng(2)
    field = rng.normal(size=(9, 9, 2))
    bound = float(lipschitz_bound(ops.convert_to_tensor(field[None].astype("float32"))))
    x = rng.uniform(0, 8, (4000, 2))
    y = np.clip(x + rng.normal(scale=0.1, size=x.shape), 0, 8)
    change = reference.sample(field, x) - reference.sample(field, y)
    euclidean = (np.linalg.norm(change, axis=1) / np.linalg.norm(x - y, axis=1)).max()
    maximum = (np.abs(change).max(1) / np.abs(x - y).max(1)).max()
    assert min(euclidean, maximum) <= bound * (1 + 1e-6)  # rounding of the bound


def test_too_few_voxels():
    with pytest.raises(GeometryError, match="3 voxels"):
        jacobian_determinant(ops.zeros((1, 2, 5, 2)))
