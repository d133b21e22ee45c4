"""Opening digital folds, and what the inverse cannot follow."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow import reference
from r2reg.flow.certificate import Certificate
from r2reg.flow.inverse import invert, spread_interpolation_error
from r2reg.flow.warp import compose
from r2reg.registration import unfolding
from r2reg.registration.unfolding import LARGEST_MISS, relax_near, unfold, unfold_with_inverse

pytestmark = pytest.mark.backends


def pinched(places):
    """Noise in which two planes of a few voxels swap places."""
    field = (0.1 * np.random.default_rng(0).normal(size=(1, 64, 24, 24, 3))).astype("float32")
    for x in places:
        field[0, x : x + 2, 10:14, 10:14, 0] += np.array([0.8, -0.8], "float32")[:, None, None]
    return field


def test_unfolding_is_local():
    """What lies far from the folds keeps its displacement; the steps are bounded."""
    field = pinched([8])
    assert reference.folded_voxels(field[0]).any()
    opened, certificate = unfold(ops.convert_to_tensor(field), Certificate(3, 0.5))
    opened = ops.convert_to_numpy(opened)
    assert not reference.folded_voxels(opened[0]).any()
    # PyTorch samples at places scaled to [-1, 1] and back: off by a float32 rounding.
    np.testing.assert_allclose(opened[0, 24:], field[0, 24:], atol=5e-6)
    assert certificate.holds
    assert certificate.steps > 3


def test_two_groups_of_folds():
    opened, _ = unfold(ops.convert_to_tensor(pinched([8, 48])), Certificate())
    assert not reference.folded_voxels(ops.convert_to_numpy(opened)[0]).any()


def test_a_map_without_folds_is_left_alone():
    field = pinched([])
    opened, certificate = unfold(ops.convert_to_tensor(field), Certificate())
    np.testing.assert_array_equal(ops.convert_to_numpy(opened), field)
    assert certificate == Certificate()


def miss(forth, back):
    """Largest |back(forth(x)) - x|, voxels; no point leaves these fields."""
    return np.linalg.norm(ops.convert_to_numpy(compose(back, forth)), axis=-1).max()


def squeezed():
    """Three voxels pressed into one: one-to-one, yet the inverse jumps between two voxels."""
    x = np.arange(48, dtype="float32")
    pressed = np.interp(x, [0, 20, 23, 47], [0, 21.1, 21.6, 47]) - x
    field = np.zeros((1, 48, 24, 24, 3), "float32")
    field[0, ..., 0] = pressed[:, None, None] * np.exp(-((np.arange(24) - 11.5) ** 2) / 18)[None, :, None]
    return ops.convert_to_tensor(field)


def test_the_inverse_of_a_strong_compression_is_brought_within_reach():
    field = squeezed()
    assert not reference.folded_voxels(ops.convert_to_numpy(field)[0]).any()
    alone = spread_interpolation_error(invert(field)[0])
    assert miss(field, alone) > LARGEST_MISS
    relaxed, inverse, certificate = unfold_with_inverse(field, -field, Certificate(3, 0.5))
    assert max(miss(relaxed, inverse), miss(inverse, relaxed)) <= LARGEST_MISS
    assert certificate.holds
    assert certificate.steps > 3
    assert not reference.folded_voxels(ops.convert_to_numpy(relaxed)[0]).any()


def test_what_folds_while_the_inverse_is_mended_is_opened_too(monkeypatch):
    """Relaxing has been seen to fold a voxel beyond the surroundings that it watches."""
    folding = []

    def relax_and_fold(displacement, certificate, places, steps=0):
        displacement, certificate = relax_near(displacement, certificate, places, steps)
        if steps:
            field = ops.convert_to_numpy(displacement).copy()
            field[0, 40:42, 2:6, 2:6, 0] += np.array([0.8, -0.8], "float32")[:, None, None]
            folding.append(reference.folded_voxels(field[0]).sum())
            displacement = ops.convert_to_tensor(field)
        return displacement, certificate

    monkeypatch.setattr(unfolding, "relax_near", relax_and_fold)
    field = squeezed()
    relaxed, inverse, _ = unfold_with_inverse(field, -field, Certificate())
    assert folding[0] > 0
    assert not reference.folded_voxels(ops.convert_to_numpy(relaxed)[0]).any()
    assert max(miss(relaxed, inverse), miss(inverse, relaxed)) <= LARGEST_MISS


def test_relaxing_takes_as_many_steps_as_asked_for():
    field = ops.convert_to_tensor(pinched([]))
    places = np.zeros(field.shape[1:-1], bool)
    places[30, 12, 12] = True
    relaxed, certificate = relax_near(field, Certificate(), places, 4)
    assert certificate.steps == 4
    before, after = (ops.convert_to_numpy(f)[0, 28:33, 10:15, 10:15].std() for f in (field, relaxed))
    assert after < 0.8 * before


def test_neighbours_in_one_box_are_relaxed_each_in_its_own():
    """Steps confined to places 10 voxels from a box's faces leave no jump at them."""
    field = (0.1 * np.random.default_rng(0).normal(size=(1, 64, 32, 32, 3))).astype("float32")
    places = np.zeros(field.shape[1:-1], bool)
    places[[12, 22, 33, 41], 16, 16] = True
    relaxed, certificate = relax_near(ops.convert_to_tensor(field), Certificate(), places, 3)
    assert certificate.steps == 2 * 3  # two boxes, a pair of places in each
    change = np.linalg.norm(ops.convert_to_numpy(relaxed) - field, axis=-1)[0]
    far = np.ones(places.shape, bool)
    far[2:52, 6:27, 6:27] = False
    assert change[far].max() < 5e-6
    assert change[places].min() > 0.01
    # Near a place the change falls off smoothly along the volume, also where a box ends.
    assert np.abs(np.diff(change.max(axis=(1, 2)))).max() < 0.5 * change.max()


def test_a_map_that_folds_everywhere_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(unfolding, "MOST_BOXES", 1)
    field = pinched([8, 48])
    opened, certificate = unfold(ops.convert_to_tensor(field), Certificate())
    np.testing.assert_array_equal(ops.convert_to_numpy(opened), field)
    assert certificate == Certificate()
