"""Grids: closed form and round trips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reg.errors import GeometryError
from r2reg.geometry.grid import Grid, canonical_axes, index_map


@st.composite
def grids(draw):
    """Any rotation, spacing, flip and shape."""
    ndim = draw(st.sampled_from([2, 3]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((ndim, ndim)))
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = axes * rng.uniform(0.3, 5, ndim)
    affine[:-1, -1] = rng.uniform(-200, 200, ndim)
    return Grid(tuple(rng.integers(1, 40, ndim)), affine)


def test_index_to_ras_of_a_flipped_grid():
    grid = Grid((10, 20, 30), [[-2, 0, 0, 90], [0, 0, 3, -40], [0, 1, 0, 5], [0, 0, 0, 1]])
    np.testing.assert_array_equal(grid.index_to_ras([1, 2, 3]), [88, -31, 7])
    np.testing.assert_array_equal(grid.spacing, [2, 1, 3])
    np.testing.assert_array_equal(grid.center_ras, [81, 3.5, 14.5])


def test_canonical_axes_of_lia():
    lia = Grid((4, 5, 6), [[-1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    assert canonical_axes(lia) == ([0, 2, 1], [True, False, True])
    canonical = lia.canonical()
    assert canonical.shape == (4, 6, 5)
    np.testing.assert_array_equal(canonical.affine, [[1, 0, 0, -3], [0, 1, 0, 0], [0, 0, 1, -4], [0, 0, 0, 1]])


@given(grids())
def test_index_and_ras_round_trip(grid):
    index = grid.corners()
    np.testing.assert_allclose(grid.ras_to_index(grid.index_to_ras(index)), index, atol=1e-9)


@given(grids())
def test_canonical_holds_the_same_voxels_with_positive_diagonal(grid):
    canonical = grid.canonical()
    key = lambda g: sorted(map(tuple, np.round(g.index_to_ras(g.corners()), 6)))  # noqa: E731
    np.testing.assert_allclose(key(canonical), key(grid), atol=1e-5)
    assert canonical_axes(canonical) == (list(range(grid.ndim)), [False] * grid.ndim)


@given(grids(), st.floats(0.5, 4))
def test_with_spacing_keeps_centre_and_covers_the_extent(grid, spacing):
    other = grid.with_spacing(spacing)
    np.testing.assert_allclose(other.spacing, spacing)
    np.testing.assert_allclose(other.center_ras, grid.center_ras, atol=1e-9)
    extent, covered = np.array(grid.shape) * grid.spacing, np.array(other.shape) * spacing
    assert (covered >= extent - 1e-3 * spacing).all()
    assert (covered < extent + spacing).all()


@given(grids(), grids())
def test_index_map_is_the_path_through_the_world(source, target):
    if source.ndim != target.ndim:
        return
    matrix = index_map(source, target)
    expected = target.ras_to_index(source.index_to_ras(source.corners()))
    np.testing.assert_allclose(source.corners() @ matrix[:-1, :-1].T + matrix[:-1, -1], expected, atol=1e-6)


def test_equality_allows_for_float32_headers():
    affine = np.diag([0.7, 0.7, 1.3, 1])
    rounded = affine.astype(np.float32).astype(np.float64)
    assert Grid((256, 256, 100), affine) == Grid((256, 256, 100), rounded)
    assert Grid((256, 256, 100), affine) != Grid((256, 256, 101), affine)
    shifted = affine.copy()
    shifted[0, 3] = 0.01
    assert Grid((256, 256, 100), affine) != Grid((256, 256, 100), shifted)


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((3, 3, 3, 3), np.eye(5), "2 or 3 non-empty axes"),
        ((3, 0), np.eye(3), "2 or 3 non-empty axes"),
        ((3, 3), np.eye(4), "3x3 affine"),
        ((3, 3), np.full((3, 3), np.nan), "NaN"),
        ((3, 3, 3), np.diag([1.0, 0, 1, 1]), "singular"),
        ((3, 3), [[1, 1, 0], [1, 1, 0], [0, 0, 1]], "singular"),
    ],
)
def test_bad_grids_are_refused(shape, affine, message):
    with pytest.raises(GeometryError, match=message):
        Grid(shape, affine)


def test_spacing_must_be_positive():
    with pytest.raises(GeometryError, match="positive"):
        Grid((3, 3), np.eye(3)).with_spacing(0)


def test_the_affine_cannot_be_changed():
    grid = Grid((3, 3), np.eye(3))
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
