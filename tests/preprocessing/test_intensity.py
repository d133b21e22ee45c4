"""Normalisation on the kinds of images it must serve."""

from __future__ import annotations

import numpy as np
import pytest

from r2reg.errors import ImageError
from r2reg.preprocessing.intensity import normalise


def test_clip_is_linear_between_its_bounds():
    scan = np.array([[-2048, -1000, -300, 400, 3000]], dtype=np.int16)
    found = normalise(scan, (-1000, 400))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0, 0.5, 1, 1]], atol=1e-6)  # float32


@pytest.mark.parametrize("zeros", [0, 60_000, 1_000_000])
def test_zero_background_does_not_move_the_bounds(zeros):
    """Foreground 1..1000: the upper bound is its 99.5th percentile however much background there is."""
    foreground = np.arange(1, 1001, dtype=np.float32)
    found = normalise(np.concatenate([np.zeros(zeros, np.float32), foreground]))
    low = 0 if zeros else np.percentile(foreground, 0.5)
    high = np.percentile(foreground[foreground > low], 99.5)
    np.testing.assert_allclose(found[zeros:], np.clip((foreground - low) / (high - low), 0, 1), atol=1e-6)
    assert (found[:zeros] == 0).all()


def test_a_hot_voxel_does_not_squeeze_the_rest():
    scan = np.random.default_rng(0).random((20, 20, 20))
    scan[3, 3, 3] = 1e6
    assert normalise(scan).mean() == pytest.approx(0.5, abs=0.02)  # mean of 8000 uniform samples, 0.3 % each


@pytest.mark.parametrize(
    "scan",
    [
        np.array([[0.0, 1.0]]),
        np.r_[np.zeros(10_000), 5.0],  # a few bright voxels
        np.r_[np.full(10_000, 7.0), 0.0],  # a few dark voxels
        np.r_[np.zeros(900), np.ones(100)] > 0.5,  # a mask taken as an image
    ],
)
def test_few_distinct_voxels_span_the_range(scan):
    found = normalise(scan)
    assert (found.min(), found.max()) == (0, 1)


def test_mask_decides_the_bounds_and_the_whole_image_is_scaled():
    scan = np.arange(1000.0).reshape(10, 100)
    mask = np.zeros(scan.shape, bool)
    mask[4:6] = True
    found = normalise(scan, mask=mask)
    inside = scan[mask]
    low = np.percentile(inside, 0.5)
    high = np.percentile(inside[inside > low], 99.5)
    np.testing.assert_allclose(found, np.clip((scan - low) / (high - low), 0, 1), atol=1e-6)


def test_input_is_not_changed():
    scan = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    before = scan.copy()
    normalise(scan)
    np.testing.assert_array_equal(scan, before)


@pytest.mark.parametrize(
    ("scan", "options", "message"),
    [
        (np.full((4, 4), 3.0), {}, "every voxel is 3"),
        (np.full((4, 4), 3.0), {"clip": (0, 10)}, "every voxel is 3"),
        (np.array([[0.0, np.nan]]), {}, "NaN"),
        (np.array([[0.0, 9.0]]), {"clip": (10, 20)}, "give another --clip"),
        (np.array([[0.0, 9.0]]), {"clip": (5, 5)}, "must rise"),
        (np.array([[0.0, 9.0]]), {"mask": np.zeros((1, 2))}, "mask is empty"),
        (np.array([[0.0, 9.0]]), {"mask": np.ones((2, 1))}, "mask has shape"),
    ],
)
def test_unusable_images_are_one_clear_line(scan, options, message):
    with pytest.raises(ImageError, match=message) as caught:
        normalise(scan, **options, name="scan.nii.gz")
    assert str(caught.value).startswith("scan.nii.gz: ")
    assert "\n" not in str(caught.value)
