"""The low-pass before a downsampling."""

import numpy as np
import pytest

from r2reg.geometry.grid import Grid
from r2reg.preprocessing.resolution import low_pass


def test_low_pass_acts_along_the_axes_that_get_coarser():
    # The source's first axis points up and is the fine one; the target is 4 mm isotropic.
    source = Grid((33, 9, 9), np.array([[0, 4, 0, 0], [0, 0, 4, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]))
    target = Grid((9, 9, 9), np.diag([4.0, 4, 4, 1]))
    impulse = np.zeros(source.shape, np.float32)
    impulse[16, 4, 4] = 1
    smooth = low_pass(impulse, source, target)
    along = smooth[:, 4, 4]
    assert smooth.sum() == pytest.approx(along.sum(), abs=1e-6)
    sigma = np.sqrt((along * (np.arange(33) - 16) ** 2).sum() / along.sum())
    # 0.425 sqrt(4^2 - 1) = 1.646 voxels; the kernel is cut at 3 sd, which takes 1.3 % of its width.
    assert sigma == pytest.approx(1.646, rel=0.03)
    np.testing.assert_array_equal(low_pass(impulse, target, target), impulse)
