"""Finer grids against voxel geometry."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow.resize import enlarge, shrink

pytestmark = pytest.mark.backends


def centres(shape, step=1.0):
    """(1, *shape, d): the centre of every voxel, in voxels of the finest grid."""
    axes = [(np.arange(n) + 0.5) * step - 0.5 for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[None].astype("float32")


@pytest.mark.parametrize("shape", [(6, 8), (4, 6, 10)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_linear_fields_stay_where_they_are(shape, factor):
    fine, coarse = centres([factor * n for n in shape]), centres(shape, step=float(factor))
    enlarged = ops.convert_to_numpy(enlarge(ops.convert_to_tensor(coarse), factor))
    assert enlarged.shape == fine.shape
    inner = (slice(None), *(slice(factor - 1, 1 - factor or None) for _ in shape))
    np.testing.assert_allclose(enlarged[inner], fine[inner], atol=1e-5)
    np.testing.assert_allclose(enlarged.min(), coarse.min(), atol=1e-5)  # the edge value is held
    np.testing.assert_allclose(enlarged.max(), coarse.max(), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_shrink_takes_means_and_repeats_the_edge(factor):
    field = np.random.default_rng(0).normal(size=(2, 6, 12, 3)).astype("float32")
    expected = field.reshape(2, 6 // factor, factor, 12 // factor, factor, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(ops.convert_to_numpy(shrink(ops.convert_to_tensor(field), factor)), expected, atol=1e-6)
    odd = ops.convert_to_tensor(np.array([1.0, 3, 7], "float32").reshape(1, 3, 1))
    np.testing.assert_allclose(ops.convert_to_numpy(shrink(odd, 2)).ravel(), [2, 7])
