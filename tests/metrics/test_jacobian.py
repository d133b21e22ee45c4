"""Jacobian measures against maps whose Jacobian is known."""

import numpy as np
import pytest

from r2reg.errors import GeometryError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, as_displacement
from r2reg.metrics.jacobian import jacobian_map

OBLIQUE = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])


def turn(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def field(linear, ndim=3):
    affine = np.eye(ndim + 1)
    affine[:ndim, :ndim] = OBLIQUE[:ndim, :ndim] * ([1.0, 2.0, 0.5][:ndim])
    matrix = np.eye(ndim + 1)
    matrix[:ndim, :ndim] = linear[:ndim, :ndim]
    return as_displacement([Affine(matrix)], Grid((7, 6, 5)[:ndim], affine))


@pytest.mark.parametrize("ndim", [2, 3])
def test_of_an_affine_in_the_world(ndim):
    stretch = np.diag([1.5, 0.8, 1.1])
    found = field(turn(20) @ stretch, ndim)
    expected = np.sort(np.diag(stretch)[:ndim])[::-1]
    np.testing.assert_allclose(jacobian_map(found, "determinant"), expected.prod(), rtol=1e-4)
    np.testing.assert_allclose(jacobian_map(found, "log"), np.log(expected.prod()), atol=1e-4)
    np.testing.assert_allclose(jacobian_map(found, "rotation"), 20, atol=0.01)
    np.testing.assert_allclose(
        jacobian_map(found, "stretch"), np.broadcast_to(expected, (*found.grid.shape, ndim)), rtol=1e-4
    )


def test_where_a_map_folds_there_is_no_logarithm():
    folded = field(np.diag([-0.5, 1.0, 1.0]))
    assert np.isnan(jacobian_map(folded, "log")).all()
    for ndim in (2, 3):
        turned = field(turn(30) @ np.diag([2.0, -0.5, 1.5] if ndim == 2 else [2.0, 1.5, -0.5]), ndim)
        np.testing.assert_allclose(jacobian_map(turned, "rotation"), 30, atol=0.01)
    thin = as_displacement([Affine(np.eye(4))], Grid((5, 5, 1), np.eye(4)))
    with pytest.raises(GeometryError, match="2 voxels along each axis"):
        jacobian_map(thin, "rotation")


def test_slabs_make_no_difference(monkeypatch):
    from r2reg.metrics import jacobian as module

    rng = np.random.default_rng(0)
    found = field(np.eye(3))
    found.vectors[...] = rng.normal(size=found.vectors.shape) * 0.1
    whole = jacobian_map(found, "stretch")
    monkeypatch.setattr(module, "slabs", lambda shape: [(k, k + 1) for k in range(shape[0])])
    np.testing.assert_allclose(jacobian_map(found, "stretch"), whole, rtol=1e-5)
