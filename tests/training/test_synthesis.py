"""Images painted from label maps."""

import numpy as np
import pytest

from r2reg.errors import TrainingError
from r2reg.training.synthesis import (
    Paint,
    class_shares,
    compact,
    draw,
    is_freesurfer,
    main_class,
    paint,
    paint_classes,
    strip_skull,
    tissue,
    unknown_ids,
)

BRAIN = [2, 3, 4, 24, 41, 42, 43]


def blocks(ids, side=8):
    """A map of cubes, one per id, with two voxels of background around all."""
    return np.pad(np.repeat(np.array(ids, np.int16), side)[:, None, None].repeat(side, 1).repeat(side, 2), 2)


def test_paint_is_a_function_of_labels_and_recipe():
    labels = blocks(BRAIN)
    recipe = draw(np.random.default_rng(1), BRAIN)
    assert recipe == draw(np.random.default_rng(1), BRAIN)
    np.testing.assert_array_equal(paint(labels, recipe), paint(labels, recipe))
    assert not np.array_equal(paint(labels, recipe), paint(labels, draw(np.random.default_rng(2), BRAIN)))


def test_paint_is_normalised_and_dark_outside():
    labels = blocks(BRAIN)
    image = paint(labels, draw(np.random.default_rng(0), BRAIN))
    assert image.dtype == np.float32
    assert (float(image.min()), float(image.max())) == (0.0, 1.0)
    # The corner is two voxels from any class, farther than the smoothing (3 sd of 0.9) leaves 1 %.
    assert float(image[0, 0, 0]) < 0.01


def test_t1_contrast_orders_the_tissues_and_both_sides_are_alike():
    for seed in range(5):
        means = draw(np.random.default_rng(seed), BRAIN, "t1").means
        assert means[24] < means[3] < means[2]
        assert (means[2], means[3], means[4]) == (means[41], means[42], means[43])


def test_random_contrast_varies_and_can_be_shared():
    first, second = (draw(np.random.default_rng(s), BRAIN, "random") for s in (0, 1))
    assert first.means != second.means
    assert second.with_contrast_of(first).means == first.means
    assert second.with_contrast_of(first).seed == second.seed


def test_other_ids_stand_for_themselves():
    means = draw(np.random.default_rng(0), [1, 2, 3, 600]).means
    assert sorted(means) == [1, 2, 3, 600]
    assert len(set(means.values())) == 4


def test_skull_is_stripped_from_freesurfer_maps_only():
    whole_head = blocks([*BRAIN, 502, 530, 1001])
    assert np.unique(strip_skull(whole_head)).tolist() == [0, *BRAIN, 1001]
    assert strip_skull(whole_head).dtype == whole_head.dtype
    organs = blocks([1, 2, 510])
    assert strip_skull(organs) is organs


def test_names_of_tissues():
    assert is_freesurfer(BRAIN)
    assert not is_freesurfer([2, 3])
    assert [tissue(i) for i in (41, 2, 1015, 2015, 3015, 77, 253)] == [2, 2, 3, 3, 2, 77, 2]
    assert unknown_ids([*BRAIN, 85, 163, 255, 502, 1015, 600, 9999]) == (600, 9999)
    assert unknown_ids([1, 2, 9999]) == ()  # no map of FreeSurfer's


def test_compact_ids():
    labels = np.array([[0, 4, 9], [2**30, 5, 4]])
    np.testing.assert_array_equal(compact(labels, [4, 9, 2**30]), [[0, 1, 2], [3, 0, 1]])
    np.testing.assert_array_equal(compact(labels, []), np.zeros((2, 3)))


def test_mixed_contrast_is_now_t1_now_random():
    drawn = [draw(np.random.default_rng(seed), BRAIN, "mixed").means for seed in range(20)]
    like_t1 = [abs(means[2] - 0.85) < 0.12 and abs(means[24] - 0.15) < 0.12 for means in drawn]
    assert 4 < sum(like_t1) < 16


def test_shares_of_classes():
    index = np.array([[0, 1, 2, 2], [1, 1, 2, 3]])
    shares = class_shares(index, np.array([0, 2, 0, 1]), (1, 2))
    np.testing.assert_array_equal(shares, [[[0, 191], [63, 0]]])  # of 255; class 2 of the index is not counted
    np.testing.assert_array_equal(main_class(shares), [[2, 0]])
    solid = np.random.default_rng(0).integers(0, 4, (4, 6, 8))
    found = class_shares(solid, np.array([0, 2, 0, 1]), (2, 2, 8))
    for place, number in ((3, 1), (1, 2)):
        counted = (solid == place).reshape(2, 2, 2, 3, 8).sum(axis=(1, 3))
        np.testing.assert_array_equal(found[..., number - 1], counted * 255 // 6)
    whole = class_shares(index, np.arange(4), index.shape)
    np.testing.assert_array_equal(main_class(whole), index)
    assert whole.max() == 255


def test_a_voxel_of_two_classes_has_a_grey_between_them():
    index = np.zeros((16, 8, 8), np.int32)
    index[3:9] = 1  # half of a voxel of the image at both ends
    index[9:15] = 2
    recipe = Paint(means={4: 0.8, 7: 0.4}, sds={4: 0, 7: 0}, blur=0.0, noise=0.0, seed=0)
    image = paint_classes(index, [4, 7], recipe, (8, 4, 4))
    np.testing.assert_allclose(image[:, 2, 2], [0, 0.5, 1, 1, 0.75, 0.5, 0.5, 0.25], atol=1e-6)
    only = paint_classes(index, [4, 7], recipe.without([7]), (8, 4, 4))
    assert not only[5:].any()


def test_nothing_to_paint():
    with pytest.raises(TrainingError, match="no class to paint"):
        paint(np.zeros((4, 4, 4), np.int16), draw(np.random.default_rng(0), BRAIN))


def test_a_recipe_works_in_two_dimensions():
    assert paint(blocks([1, 2])[:, 5], draw(np.random.default_rng(0), [1, 2])).shape == (20, 12)
