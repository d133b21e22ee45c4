"""Augmentation changes image, labels and mask alike, and depends on its generator alone."""

from typing import get_args

import numpy as np
import pytest
from scipy.special import ndtr

from r2reg.config import Augment
from r2reg.flow.reference import full_jacobian_determinant
from r2reg.training.augmentation import augmented, draw_augmentation, exchanged_sides
from r2reg.training.look import NOISE, Look, looked
from r2reg.training.motion import Motion, divided, moved_labels, places, warp_field

IDS = (2, 3, 16, 41, 42)  # white matter and cortex of both sides, brain stem
EVEN = (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def pair():
    """A block per label, its grey value a tenth of the compact id, on both images."""
    labels = np.zeros((24, 20, 16), np.int32)
    for k in range(5):
        labels[3 + 4 * k : 6 + 4 * k, 4:16, 4:12] = k + 1
    image = (labels / 10).astype(np.float32)
    mask = (image > 0).astype(np.float32)
    return {"moving": image, "fixed": image, "moving_labels": labels, "fixed_labels": labels, "mask": mask}


def changed(pair, change):
    return augmented(pair, change, IDS, pair["fixed"].shape, EVEN)


def test_nothing_asked_for_changes_nothing(pair):
    change = draw_augmentation(np.random.default_rng(0), (), EVEN)
    for name, array in changed(pair, change).items():
        np.testing.assert_array_equal(array, pair[name])


@pytest.mark.parametrize("kinds", [("affine",), ("warp",), ("flip",), ("affine", "warp", "flip")])
@pytest.mark.parametrize("seed", range(4))
def test_labels_and_mask_follow_their_image(pair, kinds, seed):
    change = draw_augmentation(np.random.default_rng(seed), kinds, EVEN)
    done = changed(pair, change)
    assert {name: (a.shape, a.dtype) for name, a in done.items()} == {n: (a.shape, a.dtype) for n, a in pair.items()}
    exchanged = exchanged_sides(IDS) if change.flip else np.arange(6)
    for role in ("fixed", "moving"):
        grey = np.rint(done[role] * 10).astype(int)
        pure = np.isclose(done[role] * 10, grey, atol=1e-3)  # not blended with a neighbour, but by chance
        assert (exchanged[grey] == done[f"{role}_labels"])[pure].mean() > 0.998
    covered = done["mask"] > 0
    assert (covered == (done["fixed_labels"] > 0)).mean() > 0.999
    same = np.array_equal(done["fixed"], done["moving"])
    assert same == (kinds == ("flip",))


def test_flipped_sides_are_exchanged():
    assert exchanged_sides(IDS).tolist() == [0, 4, 5, 3, 1, 2]
    assert exchanged_sides((*IDS, 53)).tolist() == [0, 4, 5, 3, 1, 2, 6]  # the other side is not in the list
    parcels = exchanged_sides((*IDS, 1005, 2005, 3005, 4005))
    assert parcels.tolist() == [0, 4, 5, 3, 1, 2, 7, 6, 9, 8]
    assert exchanged_sides((2, 16, 41)).tolist() == [0, 1, 2, 3]  # not a FreeSurfer map


def test_turns_are_those_of_space():
    """On thick slices a turn out of the plane keeps lengths in mm."""
    spacing = np.array([1.25, 1.25, 10.0])
    for seed in range(5):
        matrix = draw_augmentation(np.random.default_rng(seed), ("affine",), tuple(spacing)).motions["fixed"].matrix
        lengths = np.linalg.svd(matrix[:3, :3] * spacing[:, None] / spacing, compute_uv=False)
        assert (np.abs(lengths - 1) < 0.11).all()
        assert (np.abs(matrix[:3, 3] * spacing) <= 10).all()


def test_intensities_keep_background_and_range(pair):
    change = draw_augmentation(np.random.default_rng(1), ("intensity",), EVEN)
    done = changed(pair, change)
    for role in ("fixed", "moving"):
        assert not done[role][pair[role] == 0].any()
        assert 0 <= done[role].min() <= done[role].max() <= 1
        assert np.abs(done[role] - pair[role]).max() > 0.01
    assert not np.array_equal(done["fixed"], done["moving"])
    np.testing.assert_array_equal(done["fixed_labels"], pair["fixed_labels"])


@pytest.mark.parametrize("one_image", [True, False])
def test_a_kind_more_leaves_the_others(one_image):
    few, all_ = (
        draw_augmentation(np.random.default_rng(3), kinds, (2.0, 2.0), one_image)
        for kinds in (("affine",), ("affine", *get_args(Augment)))
    )
    for role in ("moving", "fixed"):
        np.testing.assert_array_equal(few.motions[role].matrix, all_.motions[role].matrix)
        assert few.motions["fixed"].seed == all_.motions["fixed"].seed
        assert few.looks[role].seed == all_.looks[role].seed
    turn = few.motions["fixed"].matrix[:2, :2]
    assert np.linalg.det(turn) == pytest.approx(1, abs=0.25)
    assert few.looks["fixed"].gamma == 1.0


def test_two_people_are_warped_alike_and_one_image_twice():
    """Two people differ already: only a small warp of moving's own is added. One image differs by its warps alone."""
    shape, spacing = (40, 48, 40), np.array([4.0, 4.0, 4.0])
    apart, seeds = {True: [], False: []}, set()
    for seed in range(6):
        for one_image, found in apart.items():
            change = draw_augmentation(np.random.default_rng(seed), ("warp",), tuple(spacing), one_image=one_image)
            moving, fixed = (warp_field(change.motions[role], shape, spacing) for role in ("moving", "fixed"))
            found.append(np.sqrt(((moving - fixed) ** 2).mean() / (fixed**2).mean()))
            assert change.motions["moving"].push == change.motions["fixed"].push or one_image
            seeds.add(change.motions["moving"].own_seed)
    assert 0.02 < np.median(apart[False]) < 0.6
    assert np.median(apart[True]) > 1
    assert len(seeds) == 6 + 1  # 0 where all of moving's warp is its own


def test_a_motion_of_its_own_is_one():
    assert Motion(np.eye(4)).still
    assert not Motion(np.eye(4), own_push=1.0).still


def test_a_warp_is_one_to_one_and_as_large_as_drawn():
    for seed, push in enumerate((1.0, 3.0, 6.0)):
        field = warp_field(Motion(np.eye(4), push, 30.0, seed), (40, 48, 40), np.array([4.0, 4.0, 4.0]))
        assert full_jacobian_determinant(field).min() > 0
        assert 0.3 * push < 4 * np.sqrt((field**2).mean()) < 1.5 * push


def test_labels_finer_than_the_places_move_with_them():
    """A block moved by 1.5 voxels of the image is moved by 3 of labels that are twice as fine."""
    labels = np.zeros((24, 24, 24), np.int32)
    labels[8:14, 6:18, 6:18] = 5
    matrix = np.eye(4)
    matrix[0, 3] = 1.5
    moved = moved_labels(labels, places(Motion(matrix), (12, 12, 12), np.ones(3)))
    np.testing.assert_array_equal(moved, np.roll(labels, -3, axis=0))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_line_stays_a_line_when_divided(parts):
    line = np.arange(5, dtype=np.float32)[:, None].repeat(3, 1)
    expected = (np.arange(5 * parts) + 0.5) / parts - 0.5
    np.testing.assert_allclose(divided(line, 0, parts), expected[:, None].repeat(3, 1), atol=1e-6)


def test_images_are_painted_after_their_labels_have_moved(pair):
    change = draw_augmentation(np.random.default_rng(2), ("affine", "warp", "flip"), EVEN)
    labels = {name: pair[name] for name in ("moving_labels", "fixed_labels")}
    paint = dict.fromkeys(("moving", "fixed"), lambda index: (index / 10).astype(np.float32))
    done = augmented(labels, change, IDS, pair["fixed"].shape, EVEN, paint)
    for role in ("moving", "fixed"):
        np.testing.assert_allclose(done[role] * 10, done[f"{role}_labels"], atol=1e-5)


def test_looks():
    image = np.zeros((24, 20, 16), np.float32)
    image[4:20, 4:16, 3:13] = 0.6
    spacing = np.array([2.0, 2.0, 2.0])
    np.testing.assert_array_equal(looked(image, Look(), spacing), image)
    np.testing.assert_array_equal(looked(image, Look(voxel=(1.0, 1.0, 2.0)), spacing), image)
    # A Gaussian whose full width at half maximum is sqrt(8^2 - 2^2) mm, along the first axis alone.
    thick = looked(image, Look(voxel=(8.0, 2.0, 2.0)), spacing)
    sd = np.sqrt(60) / 2 / np.sqrt(8 * np.log(2))  # voxels
    block = ndtr((19.5 - np.arange(24)) / sd) - ndtr((3.5 - np.arange(24)) / sd)
    np.testing.assert_allclose(thick[:, 10, 8], 0.6 * block, atol=0.01)
    assert np.array_equal(thick[12, :, 8] > 0.3, image[12, :, 8] > 0.3)
    uneven = looked(image, Look(bias=0.4, seed=3), spacing)
    factor = uneven[image > 0] / 0.6
    assert 1.1 < factor.max() / factor.min() <= np.exp(0.8)
    assert not uneven[image == 0].any()
    noisy = looked(image, Look(noise=NOISE, seed=4), spacing)
    assert noisy[image > 0].std() == pytest.approx(NOISE, rel=0.1)
    cut = looked(image, Look(crop=((0.25, 0), (0, 0), (0, 0.5))), spacing)
    np.testing.assert_array_equal(cut[6:, :, :8], image[6:, :, :8])
    assert not cut[:6].any()
    assert not cut[:, :, 8:].any()
