"""Affine searches from far away: large turns, cut views, swapped contrast, other sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from r2reg.errors import ImageError, RegistrationError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume
from r2reg.phantom import SEMI_AXES_MM, Deformation, labels_on
from r2reg.preprocessing.affine.initial import check_overlap, initial_affine

# Grey of the phantom's tissues, background to stem: fluid dark and white matter bright, and the other way round.
T1 = np.array([0.0, 0.25, 0.55, 0.9, 0.2, 0.2, 0.65, 0.65, 0.8])
T2 = np.array([0.0, 0.95, 0.6, 0.35, 0.9, 0.9, 0.5, 0.5, 0.4])
BRAIN = np.array(np.meshgrid(*[np.linspace(-1, 1, 9)] * 3)).reshape(3, -1).T
BRAIN = BRAIN[np.linalg.norm(BRAIN, axis=1) < 1] * SEMI_AXES_MM


def truth_of(degrees, shift, size):
    matrix = np.eye(4)
    matrix[:3, :3] = size * Rotation.from_rotvec(degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return Affine(matrix)


def cube(count=64, spacing=3.5):
    affine = np.diag([-spacing, spacing, -spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, (count - 1) / 2)
    return Grid((count,) * 3, affine)


def scan(grid, greys, truth=None, cut=None):
    """The phantom's image, carried along by `truth`, with noise; `cut` is the slice of the first axis that is seen."""
    carried = None
    if truth is not None:
        back = truth.inverse().matrix
        carried = Deformation(back[:3, :3], back[:3, 3], np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    labels = labels_on(grid, carried)
    image = gaussian_filter(greys[labels], 0.6) + 0.02 * np.random.default_rng(0).normal(size=labels.shape)
    volume = Volume((image * (labels > 0)).astype(np.float32), grid)
    if cut is None:
        return volume
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_ras([cut.start, 0, 0])
    part = volume.array[cut]
    return Volume(part, Grid(part.shape, affine))


def error_mm(found, truth):
    return np.linalg.norm(found.map_points(BRAIN) - truth.map_points(BRAIN), axis=1).mean()


CASES = {
    "turned by 44 degrees, far, larger, other contrast": ((30.0, -25.0, 20.0), (25, -30, 10), 1.2, T2, None, None),
    "half of moving in view": ((-15.0, 10.0, 25.0), (10, 20, -15), 0.9, T1, None, slice(32, 64)),
    "half of fixed in view": ((0.0, 35.0, -10.0), (-20, 5, 25), 1.1, T1, slice(0, 32), None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_search_from_afar(case):
    degrees, shift, size, greys, fixed_cut, moving_cut = case
    truth = truth_of(degrees, shift, size)
    fixed, moving = scan(cube(), T1, cut=fixed_cut), scan(cube(), greys, truth, moving_cut)
    # The same anatomy in both, unlike the benchmark's two people: within a voxel where half is out of view.
    assert error_mm(initial_affine(fixed, moving, "affine"), truth) < 3.5


def test_cut_view_with_masks():
    """Both brains masked, half of moving's out of view; what is outside the masks is bright rubbish."""
    truth = truth_of((10.0, -20.0, 15.0), (15, -10, 5), 1.0)
    fixed, moving = scan(cube(), T1), scan(cube(), T2, truth, slice(28, 64))
    masks = [gaussian_filter((v.array > 0.05).astype(float), 1) > 0.3 for v in (fixed, moving)]
    rubbish = np.random.default_rng(1).uniform(size=moving.array.shape).astype(np.float32)
    dirty = moving.with_array(np.where(masks[1], moving.array, rubbish))
    found = initial_affine(fixed, dirty, "affine", fixed_mask=masks[0], moving_mask=masks[1])
    assert error_mm(found, truth) < 3.5


def test_threads_do_not_change_the_result():
    truth = truth_of((5.0, 10.0, -5.0), (5, 5, 5), 1.05)
    fixed, moving = scan(cube(40, 5.6), T1), scan(cube(40, 5.6), T2, truth)
    one, two = (initial_affine(fixed, moving, "affine", threads=n).matrix for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_masks_that_do_not_meet_are_refused_where_the_affine_is_given():
    grid = cube(16, 10.0)
    image = scan(grid, T1)
    left, right, none = (np.zeros(grid.shape, bool) for _ in range(3))
    left[:6], right[10:] = True, True
    with pytest.raises(RegistrationError, match=r"masks of fixed and moving do not overlap by their headers; use"):
        initial_affine(image, image, "none", fixed_mask=left, moving_mask=right)
    np.testing.assert_array_equal(initial_affine(image, image, "none", fixed_mask=left).matrix, np.eye(4))
    shift = np.eye(4)
    shift[0, 3] = -80.0  # 8 voxels: left lands on right, and right's image outside the view
    check_overlap(grid, grid, shift, left, right)
    with pytest.raises(RegistrationError, match=r"a mask and the other image do not overlap by init\.mat; use"):
        check_overlap(grid, grid, shift, right, None, "by init.mat")
    with pytest.raises(ImageError, match="the mask is empty; leave it out"):
        initial_affine(image, image, "affine", fixed_mask=none)
    with pytest.raises(ImageError, match="the fixed mask has shape"):
        initial_affine(image, image, "none", fixed_mask=left[:3])


def test_a_mask_in_the_last_incomplete_block():
    """231 voxels are averaged in blocks; the mask lies in what is left over."""
    image = Volume(np.random.default_rng(0).random((231, 64), dtype=np.float32), Grid((231, 64), np.eye(3)))
    mask = np.zeros(image.grid.shape, bool)
    mask[228:] = True
    assert np.isfinite(initial_affine(image, image, "affine", fixed_mask=mask).matrix).all()


def test_masks_that_hide_all_structure_are_refused():
    """Nothing but background where moving may be compared: no start is better than another."""
    grid = cube(16, 10.0)
    image = scan(grid, T1)
    corner = np.zeros(grid.shape, bool)
    corner[:3, :3, :3] = True
    noise = image.with_array(image.array + np.where(corner, 1e-6 * np.arange(16, dtype=np.float32), 0))
    with pytest.raises(RegistrationError, match="tell nothing of each other") as error:
        initial_affine(noise, image, "affine", clip=(0, 1), fixed_mask=corner)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def heads():
    """Five phantom heads of 48 x 56 x 48 voxels, each deformed in its own way, in one place."""
    from r2reg.phantom import labels_on, painted, random_deformation

    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-94, -110, -94)
    grid = Grid((48, 56, 48), affine)
    return [Volume(painted(labels_on(grid, random_deformation(rng)), rng), grid) for _ in range(5)]


@pytest.mark.parametrize("pair", [(1, 2), (3, 4)])
def test_a_rounded_head_is_not_turned(heads, pair):
    """At 16 mm these heads look better turned by a right angle; they are not turned."""
    moving, fixed = (heads[k] for k in pair)
    linear = initial_affine(fixed, moving, "affine").matrix[:3, :3]
    u, _, v = np.linalg.svd(linear)
    angle = np.degrees(np.arccos((np.trace(u @ v) - 1) / 2))
    assert angle < 30


@pytest.mark.parametrize("noise", [0.02, 0.08])
def test_no_pose_is_better_for_hiding_what_does_not_fit(noise):
    """Fixed like PET, blurred and with noise around the head too: pushed out of moving's view, that would not count."""
    rng = np.random.default_rng(3)
    turn, shift, size = (tuple(rng.normal(size=3) * 8), tuple(rng.normal(size=3) * 10), 1 + 0.05 * rng.normal())
    truth = truth_of(turn, shift, size)
    greys = np.array([0, 0.1, 0.9, 0.35, 0.1, 0.1, 0.7, 0.7, 0.4])
    fixed, moving = scan(cube(), greys, truth), scan(cube(), T1)
    random = np.random.default_rng(7).normal(size=(2, *fixed.array.shape)) * noise
    fixed = fixed.with_array(np.hypot(gaussian_filter(fixed.array, 2) + random[0], random[1]).astype(np.float32))
    assert error_mm(initial_affine(fixed, moving, "affine"), truth.inverse()) < 8


@pytest.mark.parametrize("lower", [0, 2])
def test_a_brain_is_followed_within_its_skull(lower):
    """Moving's brain lies so many voxels lower in its skull, which shows most contrast and asks for no shift."""
    grid = Grid((112, 128), np.diag([2.0, 2.0, 1.0]))
    index = np.indices(grid.shape)
    out = np.hypot((index[0] - 56) / 50, (index[1] - 64) / 58)
    texture = gaussian_filter(np.random.default_rng(0).normal(size=grid.shape), 2)
    texture = 0.45 + 0.4 * texture / np.abs(texture).max()
    fixed, moving = (
        Volume(np.where((out > 0.93) & (out < 1), 1, np.where(out < 0.93, brain, 0)).astype(np.float32), grid)
        for brain in (texture, np.roll(texture, -lower, axis=1))
    )
    found = initial_affine(fixed, moving, "affine").matrix @ [112, 128, 1]
    np.testing.assert_allclose(found[:2], [112, 128 - 2 * lower], atol=1.5)
