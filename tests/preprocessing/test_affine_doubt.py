"""A pose that is used as it was given, and is a right angle off."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from r2reg.geometry.grid import Grid
from r2reg.preprocessing.affine.doubt import better_turn, right_angles
from r2reg.preprocessing.affine.pyramid import Working
from r2reg.preprocessing.intensity import normalise

AFFINE = np.diag([5.0, 5.0, 5.0, 1.0])
AFFINE[:3, 3] = -5 * 18.0
GRID = Grid((37, 37, 37), AFFINE)


@pytest.fixture(scope="module")
def images():
    """Two noisy scans of a body that no turn carries onto itself: an ellipsoid with three unlike organs."""
    index = np.stack(np.meshgrid(*[np.arange(37.0) - 18] * 3, indexing="ij"), axis=-1)
    body = ((index / [15, 12, 9]) ** 2).sum(axis=-1) < 1
    scan = np.where(body, 0.5, 0)
    for centre, radius, grey in (((8, 3, 2), 4, 0.9), ((-7, 5, -2), 3, 0.2), ((-2, -7, 3), 3, 0.7)):
        scan[((index - centre) ** 2).sum(axis=-1) < radius**2] = grey
    rng = np.random.default_rng(0)
    return [gaussian_filter(scan, 0.7) + body * rng.normal(0, 0.02, scan.shape) for _ in range(2)]


def working(array):
    return Working(normalise(np.ascontiguousarray(array, np.float32), name="phantom"), GRID, None)


@pytest.mark.parametrize("contrast", [lambda x: x, lambda x: (x > 0) * (1.1 - x)], ids=["same", "inverted"])
def test_turned_images_are_noticed_and_others_are_not(images, contrast):
    fixed, moving = images[0], contrast(images[1])
    assert better_turn(working(fixed), working(moving), np.eye(4)) is None
    for axes in ((0, 1), (1, 2), (0, 2)):
        found = better_turn(working(fixed), working(np.rot90(moving, axes=axes)), np.eye(4))
        assert found == pytest.approx(90, abs=10)


def test_the_pose_counts_and_not_the_headers(images):
    """Turned in the file, and turned back by the affine that is given."""
    moving = np.rot90(images[1], axes=(0, 1))
    back = np.eye(4)
    back[:2, :2] = [[0, -1], [1, 0]]
    assert better_turn(working(images[0]), working(moving), back) is None


@pytest.mark.parametrize(("ndim", "count"), [(2, 3), (3, 23)])
def test_right_angles(ndim, count):
    found = right_angles(ndim)
    assert len({turn.tobytes() for turn in found}) == count
    assert all(np.linalg.det(turn) == pytest.approx(1) for turn in found)


def test_two_dimensions(images):
    grid = Grid(GRID.shape[:2], np.delete(np.delete(AFFINE, 2, 0), 2, 1))
    fixed, moving = (Working(working(i).array[:, :, 20], grid, None) for i in images)
    turned = Working(np.ascontiguousarray(np.rot90(moving.array)), grid, None)
    assert better_turn(fixed, moving, np.eye(3)) is None
    assert better_turn(fixed, turned, np.eye(3)) == pytest.approx(90, abs=20)
