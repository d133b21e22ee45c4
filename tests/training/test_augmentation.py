"""Augmentation changes image, labels and mask alike, and depends on its generator alone."""

import numpy as np
import pytest

from r2reg.training.augmentation import augmented, draw_augmentation, exchanged_sides

IDS = (2, 3, 16, 41, 42)  # white matter and cortex of both sides, brain stem
EVEN = (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def pair():
    """A block per label, its grey value a tenth of the compact id, on both images."""
    labels = np.zeros((24, 20, 16), np.int32)
    for k in range(5):
        labels[3 + 4 * k : 6 + 4 * k, 4:16, 4:12] = k + 1
    image = (labels[..., None] / 10).astype(np.float32)
    mask = (image > 0).astype(np.float32)
    return {"moving": image, "fixed": image, "moving_labels": labels, "fixed_labels": labels, "mask": mask}


def test_nothing_asked_for_changes_nothing(pair):
    change = draw_augmentation(np.random.default_rng(0), (), EVEN)
    for name, array in augmented(pair, change, IDS).items():
        np.testing.assert_array_equal(array, pair[name])


@pytest.mark.parametrize("kinds", [("affine",), ("flip",), ("affine", "flip")])
@pytest.mark.parametrize("seed", range(4))
def test_labels_and_mask_follow_their_image(pair, kinds, seed):
    change = draw_augmentation(np.random.default_rng(seed), kinds, EVEN)
    done = augmented(pair, change, IDS)
    assert {name: (a.shape, a.dtype) for name, a in done.items()} == {n: (a.shape, a.dtype) for n, a in pair.items()}
    exchanged = exchanged_sides(IDS) if change.flip else np.arange(6)
    for role in ("fixed", "moving"):
        grey = np.rint(done[role][..., 0] * 10).astype(int)
        pure = np.isclose(done[role][..., 0] * 10, grey, atol=1e-3)  # not blended with a neighbour, but by chance
        assert (exchanged[grey] == done[f"{role}_labels"])[pure].mean() > 0.998
    covered = done["mask"][..., 0] > 0
    assert (covered == (done["fixed_labels"] > 0)).mean() > 0.999
    same = np.array_equal(done["fixed"], done["moving"])
    assert same == ("affine" not in kinds)


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
        matrix = draw_augmentation(np.random.default_rng(seed), ("affine",), tuple(spacing)).fixed
        lengths = np.linalg.svd(matrix[:3, :3] * spacing[:, None] / spacing, compute_uv=False)
        assert (np.abs(lengths - 1) < 0.11).all()
        assert (np.abs(matrix[:3, 3] * spacing) <= 10).all()


def test_intensities_keep_background_and_range(pair):
    change = draw_augmentation(np.random.default_rng(1), ("intensity",), EVEN)
    done = augmented(pair, change, IDS)
    for role in ("fixed", "moving"):
        assert not done[role][pair[role] == 0].any()
        assert 0 <= done[role].min() <= done[role].max() <= 1
        assert np.abs(done[role] - pair[role]).max() > 0.01
    assert not np.array_equal(done["fixed"], done["moving"])
    np.testing.assert_array_equal(done["fixed_labels"], pair["fixed_labels"])


def test_a_kind_more_leaves_the_others():
    few, all_ = (
        draw_augmentation(np.random.default_rng(3), kinds, (2.0, 2.0)) for kinds in (("affine",), ("affine", "flip"))
    )
    np.testing.assert_array_equal(few.moving, all_.moving)
    assert few.seed == all_.seed
    turn = few.fixed[:2, :2]
    assert np.linalg.det(turn) == pytest.approx(1, abs=0.25)
    assert few.gamma == (1.0, 1.0)
