"""Opening digital folds."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow import reference
from r2reg.flow.certificate import Certificate
from r2reg.registration.unfolding import unfold

pytestmark = pytest.mark.backends


def pinched(places):
    """Noise in which two planes of a few voxels swap places."""
    field = (0.1 * np.random.default_rng(0).normal(size=(1, 64, 24, 24, 3))).astype("float32")
    for x in places:
        field[0, x : x + 2, 10:14, 10:14, 0] += np.array([0.8, -0.8], "float32")[:, None, None]
    return field


def test_unfolding_is_local():
    """What lies far from the folds keeps its displacement; the steps are bounded."""
    field = pinched([8])
    assert reference.folded_voxels(field[0]).any()
    opened, certificate = unfold(ops.convert_to_tensor(field), Certificate(3, 0.5))
    opened = ops.convert_to_numpy(opened)
    assert not reference.folded_voxels(opened[0]).any()
    # PyTorch samples at places scaled to [-1, 1] and back: off by a float32 rounding.
    np.testing.assert_allclose(opened[0, 24:], field[0, 24:], atol=5e-6)
    assert certificate.holds
    assert certificate.steps > 3


def test_two_groups_of_folds():
    opened, _ = unfold(ops.convert_to_tensor(pinched([8, 48])), Certificate())
    assert not reference.folded_voxels(ops.convert_to_numpy(opened)[0]).any()


def test_a_map_without_folds_is_left_alone():
    field = pinched([])
    opened, certificate = unfold(ops.convert_to_tensor(field), Certificate())
    np.testing.assert_array_equal(ops.convert_to_numpy(opened), field)
    assert certificate == Certificate()
