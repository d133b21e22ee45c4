"""What `register` writes, read and applied by ANTs: the same moved image and the same points, both ways."""

import numpy as np
import pytest

from r2reg.config import RegisterConfig
from r2reg.io.images import read_image
from r2reg.io.points import read_points
from r2reg.registration.run import register_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(phantom_pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ants") / "out"
    config = RegisterConfig(refine=5)
    points = {"fixed_points": phantom_pair.fixed_points}
    register_files(phantom_pair.moving, phantom_pair.fixed, folder, config, optional=points)
    return folder


def test_moved_image(result, phantom_pair):
    import ants

    fixed, moving = ants.image_read(str(phantom_pair.fixed)), ants.image_read(str(phantom_pair.moving))
    transforms = [str(result / "warp.nii.gz"), str(result / "affine.mat")]
    theirs = ants.apply_transforms(fixed, moving, transforms).numpy()
    ours = read_image(result / "moved.nii.gz").array
    np.testing.assert_allclose(theirs, ours, atol=1e-3 * np.ptp(ours))


def test_points(result, phantom_pair):
    import ants
    import pandas

    fixed = read_points(phantom_pair.fixed_points, 3)
    table = pandas.DataFrame(fixed.ras * [-1, -1, 1], columns=["x", "y", "z"])
    transforms = [str(result / "warp.nii.gz"), str(result / "affine.mat")]
    theirs = ants.apply_transforms_to_points(3, table, transforms)[["x", "y", "z"]].to_numpy() * [-1, -1, 1]
    np.testing.assert_allclose(read_points(result / "moved_points.csv", 3).ras, theirs, atol=1e-3)  # mm


def test_inverse_carries_fixed_onto_moving(result, phantom_pair):
    """`-r MOVING -t [affine.mat,1] -t inverse_warp.nii.gz`: a registered fixed image looks like moving."""
    import ants

    fixed, moving = ants.image_read(str(phantom_pair.fixed)), ants.image_read(str(phantom_pair.moving))
    transforms = [str(result / "affine.mat"), str(result / "inverse_warp.nii.gz")]
    back = ants.apply_transforms(moving, fixed, transforms, whichtoinvert=[True, False]).numpy()
    untouched = ants.apply_transforms(moving, fixed, []).numpy()
    target = moving.numpy()
    assert np.corrcoef(back.ravel(), target.ravel())[0, 1] > 0.97
    assert np.corrcoef(back.ravel(), target.ravel())[0, 1] > np.corrcoef(untouched.ravel(), target.ravel())[0, 1]
