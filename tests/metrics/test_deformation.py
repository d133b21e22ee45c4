"""Folds, NDV and the inverse's residual against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from r2reg.errors import GeometryError
from r2reg.flow.reference import full_jacobian_determinant
from r2reg.geometry.grid import Grid, identity_points
from r2reg.geometry.transforms import Displacement
from r2reg.metrics import deformation
from r2reg.metrics.deformation import deformation_metrics, inverse_residual


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 4)])
def test_identity(shape):
    assert deformation_metrics(np.zeros((*shape, len(shape)))) == {
        "folds": 0,
        "ndv_percent": 0,
        "digital_folds": 0,
        "jacobian_min": 1,
        "jacobian_max": 1,
        "sdlogj": 0,
    }


@pytest.mark.parametrize(("ndim", "ndv"), [(2, 100.0), (3, 100.0)])
def test_mirror_turns_the_whole_volume_over(ndim, ndv):
    """x -> -x along one axis: every simplex keeps its volume with the sign turned; all of it counts once."""
    shape = (6,) * ndim
    field = np.zeros((*shape, ndim))
    field[..., 0] = -2 * identity_points(shape)[..., 0]
    inside = np.zeros(shape, bool)
    inside[(slice(1, -1),) * ndim] = True  # at the border the displacement is repeated, not continued
    found = deformation_metrics(field, inside)
    # 3-D: eight corners of -1 and two centres of -2: 0.5 (8 + 4) / 6 = 1 voxel each; 2-D: 0.5 * 4 / 2 = 1.
    assert found["ndv_percent"] == pytest.approx(ndv)
    assert found["folds"] == found["digital_folds"] == inside.sum()
    assert found["jacobian_min"] == found["jacobian_max"] == -1
    assert found["sdlogj"] == 0


def test_one_displaced_voxel_is_missed_by_central_differences_only():
    """A voxel pushed 2 along x: central differences at it see nothing (Liu et al.: checkerboard)."""
    field = np.zeros((7, 7, 2))
    field[3, 3, 0] = 2.0
    found = deformation_metrics(field)
    # Determinants below 0, all -1: at (3, 3) forward along x (2 triangles), at (4, 3) backward along x (2).
    # The triangles at (3, 2), (3, 4) shear, (2, 3) stretches. So NDV = 0.5 * 4 / 2 = 1 pixel of 49.
    assert found["ndv_percent"] == pytest.approx(100 / 49)
    assert found["digital_folds"] == 2
    # Central differences along x see it at (2, 3) as 1 + 1 and at (4, 3) as 1 - 1 = 0.
    assert found["folds"] == 1
    assert (found["jacobian_min"], found["jacobian_max"]) == (0, 2)


def test_scaling_has_its_determinant_and_no_spread():
    field = 0.5 * identity_points((5, 5, 5))
    found = deformation_metrics(field)
    assert found["jacobian_min"] == pytest.approx(3.375)
    assert found["sdlogj"] == pytest.approx(0, abs=1e-12)


def test_sdlogj_of_two_halves():
    field = np.zeros((8, 3, 3, 3))
    field[:4, ..., 0] = np.arange(4)[:, None, None]  # stretched by 2 in the left half, kept in the right
    field[4:, ..., 0] = 3
    inside = np.zeros((8, 3, 3), bool)
    inside[[1, 2, 5, 6]] = True
    assert deformation_metrics(field, inside)["sdlogj"] == pytest.approx(np.log(2) / 2)


def test_masks_are_checked():
    field = np.zeros((4, 4, 2))
    with pytest.raises(GeometryError, match="empty"):
        deformation_metrics(field, np.zeros((4, 4)))
    with pytest.raises(GeometryError, match="shape"):
        deformation_metrics(field, np.ones((4, 5)))


@pytest.fixture
def oblique():
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1.0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [1.0, 2.0, 1.5], (5, -7, 11)
    return Grid((12, 10, 9), affine)


def test_inverse_residual_of_a_translation_is_zero_and_of_a_wrong_inverse_the_gap(oblique):
    shift = np.array([1.0, -0.5, 2.0])
    forward = Displacement(oblique, np.broadcast_to(shift, (*oblique.shape, 3)).copy())
    assert inverse_residual(forward, Displacement(oblique, -forward.vectors))["max"] == pytest.approx(0, abs=1e-6)
    wrong = Displacement(oblique, -forward.vectors + [0.3, 0, 0.4])
    found = inverse_residual(forward, wrong)
    # The residual is kept as float32: 1e-6 mm.
    assert found == pytest.approx({"mean": 0.5, "p99": 0.5, "max": 0.5}, abs=1e-6)


def test_points_that_leave_the_grid_do_not_count(oblique):
    away = Displacement(oblique, np.full((*oblique.shape, 3), 1e3))
    assert np.isnan(list(inverse_residual(away, away).values())).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_residual_equals_mapped_points(oblique, dtype):
    """Against `map_points`, there and back, the inverse on another grid."""
    rng = np.random.default_rng(0)
    other = Grid((9, 11, 8), oblique.affine @ np.array([[0, 1.1, 0, -1], [1, 0, 0.1, 0], [0, 0, 1.2, 0], [0, 0, 0, 1]]))
    forward, inverse = (
        Displacement(grid, rng.uniform(-1, 1, (*grid.shape, 3)).astype(dtype)) for grid in (oblique, other)
    )
    start = oblique.index_to_ras(identity_points(oblique.shape)).reshape(-1, 3)
    middle = start + forward.vectors.reshape(-1, 3)
    index = other.ras_to_index(middle)
    inside = ((index >= 0) & (index <= np.array(other.shape) - 1)).all(axis=-1)
    gaps = np.linalg.norm(inverse.map_points(middle[inside]) - start[inside], axis=-1)
    assert 100 < len(gaps) < len(start)
    expected = {"mean": gaps.mean(), "p99": np.percentile(gaps, 99), "max": gaps.max()}
    assert inverse_residual(forward, inverse) == pytest.approx(expected, abs=1e-6)  # the residual is float32


def test_inverse_residual_of_thin_grids():
    thin = Grid((6, 5, 1), np.eye(4))
    shift = Displacement(thin, np.broadcast_to([0.5, 0.25, 0], (6, 5, 1, 3)).astype(np.float32))
    assert inverse_residual(shift, Displacement(thin, -shift.vectors))["max"] == 0
    flat = Grid((6, 5), np.eye(3))
    shift = Displacement(flat, np.broadcast_to([0.5, 0.25], (6, 5, 2)).astype(np.float32))
    assert inverse_residual(shift, Displacement(flat, -shift.vectors + [0, 1]))["mean"] == 1


def test_a_known_jacobian_is_not_worked_out_again(monkeypatch):
    field = np.random.default_rng(0).normal(size=(6, 7, 8, 3)) * 0.2
    expected = deformation_metrics(field)
    jacobian = full_jacobian_determinant(field)
    monkeypatch.setattr(deformation, "full_jacobian_determinant", None)
    assert deformation_metrics(field, jacobian=jacobian) == expected
