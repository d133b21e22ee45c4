"""The converged flow against closed forms."""

import numpy as np
import pytest
from scipy.linalg import expm

from r2reg.evaluation.inspection import converged_flow
from r2reg.geometry.grid import identity_points


def linear_field(matrix, shape):
    """x -> A (x - c), voxels per unit time."""
    centre = (np.array(shape) - 1) / 2
    return (identity_points(shape) - centre) @ matrix.T


@pytest.mark.parametrize("parts", [1, 3])
def test_a_turn_that_shrinks_is_a_matrix_exponential(parts):
    """Linear interpolation is exact for it where no point leaves the grid."""
    matrix, shape = np.array([[-0.3, 0.8], [-0.8, -0.2]]), (20, 24)
    found = converged_flow([linear_field(matrix, shape)] * parts)
    inner = (slice(6, -6),) * 2
    np.testing.assert_allclose(found[inner], linear_field(expm(matrix) - np.eye(2), shape)[inner], atol=1e-6)


def test_fields_follow_one_another():
    shape = (12, 12)
    fields = [np.broadcast_to(v, (*shape, 2)) for v in ([2.0, 0], [0, 1.0])]
    np.testing.assert_allclose(converged_flow(fields)[3, 3], [1, 0.5], atol=1e-9)
