"""The numpy reference of the field mathematics against closed forms and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from r2reg.errors import GeometryError
from r2reg.flow import reference
from r2reg.geometry.grid import identity_points

SHAPES = [(7, 9), (6, 8, 7)]


def linear_field(shape, matrix):
    """u(x) = matrix x, so that x -> (I + matrix) x."""
    return identity_points(shape) @ np.asarray(matrix).T


def random_field(shape, scale, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, len(shape))) * scale


@pytest.mark.parametrize("shape", SHAPES)
def test_warp_of_a_linear_ramp_is_the_ramp_at_the_image_points(shape):
    slope = np.arange(1.0, len(shape) + 1)
    ramp = identity_points(shape) @ slope
    field = np.clip(random_field(shape, 0.3), -0.5, 0.5)
    inner = (slice(1, -1),) * len(shape)
    # Linear interpolation is exact on a ramp away from the clamped border.
    np.testing.assert_allclose(reference.warp(ramp, field)[inner], (ramp + field @ slope)[inner], atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_warp_by_whole_voxels_shifts_and_repeats_the_edge(shape):
    image = np.random.default_rng(0).normal(size=(*shape, 2))
    field = np.zeros((*shape, len(shape)))
    field[..., 1] = 2
    rows = np.minimum(np.arange(shape[1]) + 2, shape[1] - 1)
    np.testing.assert_array_equal(reference.warp(image, field), image[:, rows])


@pytest.mark.parametrize("shape", SHAPES)
def test_composition_of_linear_maps_is_their_product(shape):
    ndim = len(shape)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, ndim, ndim)) * 0.02
    composed = reference.compose(linear_field(shape, a), linear_field(shape, b))
    product = (np.eye(ndim) + a) @ (np.eye(ndim) + b) - np.eye(ndim)
    inner = (slice(1, -2),) * ndim  # the border is clamped, so the outer map is not linear there
    np.testing.assert_allclose(composed[inner], linear_field(shape, product)[inner], atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_inner_acts_first(shape):
    ndim = len(shape)
    inner = np.zeros((*shape, ndim))
    inner[..., 0] = 1
    outer = np.zeros((*shape, ndim))
    outer[..., 1] = identity_points(shape)[..., 0]
    assert reference.compose(outer, inner)[2, 3, ..., 1].min() == 3
    assert reference.compose(inner, outer)[2, 3, ..., 1].max() == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_determinants_of_a_linear_map(shape):
    ndim = len(shape)
    matrix = np.random.default_rng(2).normal(size=(ndim, ndim)) * 0.3
    field, expected = linear_field(shape, matrix), np.linalg.det(np.eye(ndim) + matrix)
    inner = reference.jacobian_determinant(field)
    assert inner.shape == tuple(n - 2 for n in shape)
    np.testing.assert_allclose(inner, expected, rtol=1e-12)
    np.testing.assert_allclose(reference.full_jacobian_determinant(field), expected, rtol=1e-12)
    for start, stop, dets in reference.cell_determinants(field):
        # The displacement is repeated beyond the border, so only inner voxels see the linear map.
        own = dets[(slice(None), slice(int(start == 0), stop - start - int(stop == shape[0])))]
        own = own[(slice(None), slice(None), *[slice(1, -1)] * (ndim - 1))]
        np.testing.assert_allclose(own[: 2**ndim], expected, rtol=1e-12)
        np.testing.assert_allclose(own[2**ndim :], 2 * expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_full_determinant_equals_numpy_gradient(shape):
    field = random_field(shape, 0.5)
    axes = tuple(range(len(shape)))
    columns = [np.stack(np.gradient(field[..., c], axis=axes), -1) for c in axes]
    expected = np.linalg.det(np.stack(columns, -2) + np.eye(len(shape)))
    np.testing.assert_allclose(reference.full_jacobian_determinant(field), expected, atol=1e-12)


def brute_force(field):
    """The determinants voxel by voxel from corner positions, with LAPACK's determinant."""
    ndim = field.ndim - 1
    padded = np.pad(field, [(1, 1)] * ndim + [(0, 0)], mode="edge")
    padded = padded + identity_points(padded.shape[:-1])
    diagonals = [(1, 1, 0), (0, 1, 1), (1, 0, 1)]

    def edge(p, offset):
        return padded[tuple(p + offset)] - padded[tuple(p)]

    result = []
    for index in np.ndindex(*field.shape[:-1]):
        p = np.array(index) + 1
        dets = []
        for signs in itertools.product((1, -1), repeat=ndim):
            units = np.diag(signs)
            dets.append(np.linalg.det([s * edge(p, u) for s, u in zip(signs, units, strict=True)]))
        if ndim == 3:
            dets.append(np.linalg.det([edge(p, np.array(d)) for d in diagonals]))
            dets.append(np.linalg.det([edge(p, -np.array(d)) for d in (diagonals[0], diagonals[2], diagonals[1])]))
        result.append(dets)
    return np.moveaxis(np.reshape(result, (*field.shape[:-1], -1)), -1, 0)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
@pytest.mark.parametrize("slab", [1, 1 << 18])
def test_cell_determinants_equal_brute_force_in_any_slabs(shape, slab, monkeypatch):
    monkeypatch.setattr(reference, "SLAB_VOXELS", slab)
    field = random_field(shape, 0.7)
    ours = np.concatenate([dets for _, _, dets in reference.cell_determinants(field)], axis=1)
    np.testing.assert_allclose(
        np.sort(ours[: 2 ** len(shape)], 0), np.sort(brute_force(field)[: 2 ** len(shape)], 0), atol=1e-12
    )
    np.testing.assert_allclose(ours[2 ** len(shape) :], brute_force(field)[2 ** len(shape) :], atol=1e-12)


def test_float32_stays_float32():
    field = random_field((5, 6, 7), 0.3).astype(np.float32)
    assert reference.full_jacobian_determinant(field).dtype == np.float32
    ((_, _, dets),) = reference.cell_determinants(field)
    assert dets.dtype == np.float32


def test_shapes_are_checked():
    with pytest.raises(GeometryError, match="3 voxels"):
        reference.jacobian_determinant(np.zeros((2, 5, 5, 3)))
    with pytest.raises(GeometryError, match="2 voxels"):
        reference.full_jacobian_determinant(np.zeros((1, 5, 5, 3)))
    with pytest.raises(GeometryError, match="Received"):
        reference.jacobian_determinant(np.zeros((5, 5, 5, 2)))


def test_cells_are_mapped_in_order(monkeypatch):
    monkeypatch.setattr(reference, "SLAB_VOXELS", 1)
    field = random_field((9, 4, 3), 0.7)
    expected = [(start, stop, dets.sum()) for start, stop, dets in reference.cell_determinants(field)]
    assert reference.map_cells(lambda start, stop, dets: (start, stop, dets.sum()), field) == expected
    assert len(expected) == 9
