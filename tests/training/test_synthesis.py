"""Images painted from label maps."""

import numpy as np
import pytest

from r2reg.errors import TrainingError
from r2reg.training.synthesis import compact, draw, is_freesurfer, paint, strip_skull, tissue

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
    assert [tissue(i) for i in (41, 2, 1015, 2015, 3015, 77)] == [2, 2, 3, 3, 2, 77]


def test_compact_ids():
    labels = np.array([[0, 4, 9], [2**30, 5, 4]])
    np.testing.assert_array_equal(compact(labels, [4, 9, 2**30]), [[0, 1, 2], [3, 0, 1]])
    np.testing.assert_array_equal(compact(labels, []), np.zeros((2, 3)))


def test_nothing_to_paint():
    with pytest.raises(TrainingError, match="no class to paint"):
        paint(np.zeros((4, 4, 4), np.int16), draw(np.random.default_rng(0), BRAIN))


def test_a_recipe_works_in_two_dimensions():
    assert paint(blocks([1, 2])[:, 5], draw(np.random.default_rng(0), [1, 2])).shape == (20, 12)
