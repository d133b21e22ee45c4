"""Affine and displacement maps of points, and their inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2reg.errors import GeometryError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, inverse_displacement, inverse_points, map_points

GRID = Grid((20, 22, 24), [[-2, 0, 0, 18], [0, 0, 1.5, -20], [0, -1, 0, 12], [0, 0, 0, 1]])


def bump(grid: Grid, amplitude: float) -> Displacement:
    """A Gaussian push along every axis, `amplitude` mm at the middle, 3 mm wide, nil at the border."""
    axes = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    offset = grid.index_to_ras(np.stack(axes, -1)) - grid.center_ras
    push = amplitude * np.exp(-(offset**2).sum(-1) / (2 * 3.0**2))
    return Displacement(grid, np.repeat(push[..., None], grid.ndim, -1))


def inner_points(count: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    return GRID.index_to_ras(rng.uniform(2, np.array(GRID.shape) - 3, (count, 3)))


def test_affine_maps_and_inverts_exactly():
    affine = Affine(np.array([[0.0, 2, 0, 5], [-1, 0, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]]))
    np.testing.assert_array_equal(affine.map_points(np.array([[1.0, 2, 3]])), [[9, 2, 3]])
    np.testing.assert_allclose(affine.inverse().map_points(np.array([9.0, 2, 3])), [1, 2, 3], atol=1e-14)


def test_displacement_is_linear_between_voxels_and_zero_outside():
    grid = Grid((3, 2), np.diag([2.0, 1, 1]))
    vectors = np.zeros((3, 2, 2))
    vectors[1, :, 0] = 4
    field = Displacement(grid, vectors)
    points = np.array([[2.0, 0], [3, 0.5], [2, 1.4], [2, 1.6], [-5, 0]])
    np.testing.assert_allclose(field.map_points(points), [[6, 0], [5, 0.5], [6, 1.4], [2, 1.6], [-5, 0]])


def test_from_voxels_turns_axes_into_the_world():
    voxels = np.broadcast_to(np.array([1.0, 2, 3]), (*GRID.shape, 3))
    field = Displacement.from_voxels(GRID, voxels)
    np.testing.assert_allclose(field.vectors[0, 0, 0], [-2, 4.5, -2])
    np.testing.assert_allclose(field.to_voxels(), voxels)


def test_the_first_transform_of_a_list_acts_first():
    double = Affine(np.diag([2.0, 2, 2, 1]))
    shift = Affine(np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    np.testing.assert_array_equal(map_points([shift, double], np.zeros(3)), [2, 0, 0])
    np.testing.assert_array_equal(map_points([double, shift], np.zeros(3)), [1, 0, 0])


@pytest.mark.parametrize("amplitude", [1.0, -2.0])
def test_inverse_points_undoes_a_list(amplitude):
    affine = Affine(np.array([[1.1, 0.2, 0, 4], [-0.2, 0.9, 0, -3], [0, 0, 1.2, 1], [0, 0, 0, 1]]))
    transforms = [bump(GRID, amplitude), affine]
    truth = inner_points()
    found, residual = inverse_points(transforms, map_points(transforms, truth))
    assert residual.max() < 1e-3
    np.testing.assert_allclose(found, truth, atol=5e-3)  # residual over the smallest stretch of the map


def test_inverse_points_of_a_steep_map_needs_the_smaller_steps():
    # phi(x) = x + 1.5 x near 0: slope 1.5 > 1, where the plain fixed point runs away.
    grid = Grid((41, 41), np.diag([1.0, 1, 1]))
    x = np.arange(41.0) - 20
    vectors = np.zeros((41, 41, 2))
    vectors[..., 0] = 1.5 * (x * np.exp(-(x**2) / 72))[:, None]
    field = Displacement(grid, vectors)
    truth = np.stack([np.linspace(14, 26, 50), np.full(50, 20.0)], -1)
    found, residual = inverse_points([field], field.map_points(truth))
    assert residual.max() < 1e-3
    np.testing.assert_allclose(found, truth, atol=5e-3)


def test_a_point_without_inverse_is_told_by_its_residual():
    grid = Grid((21, 21), np.eye(3))
    shift = Displacement(grid, np.full((21, 21, 2), [5.0, 0.0]))  # nothing is carried to -0.5 < x < 4.5
    _, residual = inverse_points([shift], np.array([[2.0, 10.0], [8.0, 10.0]]))
    assert residual[0] > 0.5
    assert residual[1] == 0


def test_inverse_displacement_in_slabs(monkeypatch):
    field = bump(GRID, 1.5)
    whole, residual = inverse_displacement([field], GRID)
    monkeypatch.setattr("r2reg.geometry.transforms.POINTS_AT_ONCE", 1000)
    slabs, _ = inverse_displacement([field], GRID)
    np.testing.assert_array_equal(whole.vectors, slabs.vectors)
    assert residual.shape == GRID.shape
    assert residual.max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]))
def test_random_affines_invert(seed, ndim):
    rng = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += rng.uniform(-0.2, 0.2, (ndim, ndim))
    matrix[:-1, -1] = rng.uniform(-50, 50, ndim)
    points = rng.uniform(-100, 100, (10, ndim))
    found, residual = inverse_points([Affine(matrix)], Affine(matrix).map_points(points))
    np.testing.assert_allclose(found, points, atol=1e-9)
    assert residual.max() < 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(np.eye(5)), "3x3 or 4x4"),
        (lambda: Affine(np.full((4, 4), np.nan)), "NaN"),
        (lambda: Affine(np.diag([1.0, 1, 0, 1])), "singular"),
        (lambda: Displacement(GRID, np.zeros((2, 2, 2, 3))), "has shape"),
        (lambda: Displacement(GRID, np.full((*GRID.shape, 3), np.inf)), "infinite"),
    ],
)
def test_bad_transforms_are_refused(make, message):
    with pytest.raises(GeometryError, match=message):
        make()
