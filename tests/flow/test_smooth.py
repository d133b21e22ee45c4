"""Filters against scipy."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from r2reg.flow.smooth import box_mean, gaussian

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("shape", [(9, 11), (7, 8, 9)])
def test_gaussian_equals_scipy(shape):
    field = np.random.default_rng(0).normal(size=(1, *shape, 2)).astype("float32")
    got = ops.convert_to_numpy(gaussian(ops.convert_to_tensor(field), sigma=1.3))
    for c in range(2):
        # scipy's kernel ends at round(truncate * sigma); ceil(3 * 1.3) = 4
        expected = ndimage.gaussian_filter(field[0, ..., c], 1.3, mode="nearest", truncate=4 / 1.3)
        np.testing.assert_allclose(got[0, ..., c], expected, atol=1e-5)  # float32


@pytest.mark.parametrize("shape", [(9, 11), (7, 8, 9)])
def test_box_mean_equals_scipy(shape):
    field = np.random.default_rng(1).normal(size=(1, *shape, 1)).astype("float32")
    got = ops.convert_to_numpy(box_mean(ops.convert_to_tensor(field), radius=2))
    expected = ndimage.uniform_filter(field[0, ..., 0], 5, mode="nearest")
    np.testing.assert_allclose(got[0, ..., 0], expected, atol=1e-5)  # float32


def test_no_smoothing_is_the_identity():
    field = ops.ones((1, 4, 4, 2))
    assert ops.convert_to_numpy(gaussian(field, sigma=0.0) == field).all()
