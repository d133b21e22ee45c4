"""Double size against voxel geometry."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow.resize import double

pytestmark = pytest.mark.backends


def centres(shape, step=1.0):
    """(1, *shape, d): the centre of every voxel, in voxels of the finest grid."""
    axes = [(np.arange(n) + 0.5) * step - 0.5 for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[None].astype("float32")


@pytest.mark.parametrize("shape", [(6, 8), (4, 6, 10)])
def test_linear_fields_stay_where_they_are(shape):
    fine, coarse = centres(shape), centres([n // 2 for n in shape], step=2.0)
    doubled = ops.convert_to_numpy(double(ops.convert_to_tensor(coarse)))
    inner = (slice(None), *(slice(1, -1) for _ in shape))
    np.testing.assert_allclose(doubled[inner], fine[inner], atol=1e-6)
    np.testing.assert_allclose(doubled.min(), coarse.min(), atol=1e-6)  # the edge value is held
    np.testing.assert_allclose(doubled.max(), coarse.max(), atol=1e-6)
