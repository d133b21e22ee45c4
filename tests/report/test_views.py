"""Slices for the eye: which side is where, squareness, and that they are the image's own values."""

import numpy as np
import pytest

from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume
from r2reg.report.views import LARGEST, places_ras, slices, views

AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def head(codes, shape=(40, 50, 60), spacing=(1.0, 1.0, 1.0)):
    """A volume about the origin with array axes along three of R, L, A, P, S, I: a bright right, front and top."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        world, sign = AXES[code]
        affine[world, axis] = sign * spacing[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Grid(shape, affine)
    ras = grid.index_to_ras(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float))
    inside = (np.abs(ras) < 15).all(axis=-1)
    return Volume(np.where(inside, 0.5 + ras @ [0.01, 0.005, 0.002], 0).astype(np.float32), grid)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "LIA", "PSR"])
def test_the_patient_looks_up_and_the_right_is_on_the_left(codes):
    volume = head(codes)
    found = {name: slices(volume, view)[0] for name, view in views(volume.array, volume.grid).items()}
    for name, across, up in (("axial", -0.01, 0.005), ("coronal", -0.01, 0.002), ("sagittal", 0.005, 0.002)):
        picture = found[name]
        rows, columns = np.nonzero(picture > 0)
        middle = picture[rows.min() + 2 : rows.max() - 1, columns.min() + 2 : columns.max() - 1]
        # Linear values are sampled exactly between voxels, to float32.
        assert np.allclose(np.diff(middle, axis=1), across, atol=1e-5)
        assert np.allclose(np.diff(middle, axis=0), -up, atol=1e-5)


def test_pixels_are_square_and_not_too_many():
    thick = head("RAS", (40, 50, 12), (1.0, 1.0, 4.0))
    for name, view in views(thick.array, thick.grid).items():
        assert np.allclose(view.spacing[:2], 1.0), name
    wide = Volume(np.ones((2 * LARGEST, 10, 10), np.float32), Grid((2 * LARGEST, 10, 10), np.eye(4)))
    assert {name: max(view.shape[:2]) for name, view in views(wide.array, wide.grid).items()} == {
        "axial": LARGEST, "coronal": LARGEST, "sagittal": 10,
    }  # fmt: skip


def test_slices_spread_over_what_is_shown():
    volume = head("LIA")
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        places = places_ras(views(volume.array, volume.grid, 7)[name])[:, axis]
        assert len(places) == 7
        assert np.all(np.diff(places) > 0)
        assert -15 < places[0] < -11, "the cube reaches from -15 to 15"
        assert 11 < places[-1] < 15
    few = head("RAS", (40, 50, 3))
    assert views(few.array, few.grid, 7)["axial"].shape[2] == 3


def test_an_image_of_nothing_is_shown_in_the_middle():
    grid = Grid((10, 12, 14), np.eye(4))
    assert {v.shape[2] for v in views(np.zeros(grid.shape), grid).values()} == {1}


def test_slices_in_the_plane():
    grid = Grid((30, 20), np.diag([2.0, 1.0, 1.0]))
    image = np.zeros(grid.shape, np.float32)
    image[25:, 15:] = 1  # right, front
    (view,) = views(image, grid).values()
    (picture,) = slices(Volume(image, grid), view)
    assert picture.shape == (20, 60)
    assert picture[:4, :8].min() == 1
    assert picture[6:].max() == 0


def test_a_volume_goes_through_its_transforms():
    volume = head("RAS")
    shift = np.eye(4)
    shift[0, 3] = 5
    view = views(volume.array, volume.grid)["axial"]
    still, moved = slices(volume, view)[0], slices(volume, view, [Affine(shift)])[0]
    assert np.allclose(moved[:, 10:-10], still[:, 5:-15], atol=1e-5)  # moved(x) = image(x + 5 mm to the right)
