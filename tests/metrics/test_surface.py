"""Surface distances against brute force and SimpleITK's Hausdorff filter."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from r2reg.metrics.surface import hausdorff, hd95_mm


def blob(shape, seed):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return noise > np.quantile(noise, 0.8)


def brute_force(a, b, spacing, percentile):
    surfaces = [np.argwhere(m & ~binary_erosion(m)) * spacing for m in (a, b)]
    gaps = cdist(*surfaces)
    return max(np.percentile(gaps.min(axis=1), percentile), np.percentile(gaps.min(axis=0), percentile))


@pytest.mark.parametrize(("shape", "spacing"), [((24, 20), (0.7, 2.0)), ((14, 12, 10), (1.0, 1.5, 3.0))])
@pytest.mark.parametrize("percentile", [95, 100])
def test_equals_brute_force_over_surface_voxels(shape, spacing, percentile):
    a, b = blob(shape, 0), blob(shape, 1)
    expected = brute_force(a, b, np.array(spacing), percentile)
    # ITK's distance maps are float32.
    assert hausdorff(a, b, spacing, percentile) == pytest.approx(expected, rel=1e-5)


def test_hausdorff_of_balls_equals_simpleitk():
    points = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), -1)
    a = np.linalg.norm(points - [8, 9, 9], axis=-1) < 5
    b = np.linalg.norm(points - [12, 9, 9], axis=-1) < 6
    hausdorff_filter = sitk.HausdorffDistanceImageFilter()
    hausdorff_filter.Execute(*[sitk.GetImageFromArray(m.astype(np.uint8)) for m in (a, b)])
    assert hausdorff(a, b, (1, 1, 1), 100) == pytest.approx(hausdorff_filter.GetHausdorffDistance(), rel=1e-5)


def test_shifted_boxes_are_as_far_apart_as_the_shift_in_mm():
    fixed, moved = np.zeros((30, 12, 12), np.int16), np.zeros((30, 12, 12), np.int16)
    fixed[5:10, 3:8, 3:8] = 17
    moved[9:14, 3:8, 3:8] = 17
    fixed[20, 5, 5] = moved[20, 5, 5] = -3
    fixed[0, 0, 0], moved[29, 0, 0] = 40, 41
    found = hd95_mm(fixed, moved, (0.5, 1, 1))
    assert found["per_label"] == {"-3": 0, "17": pytest.approx(2.0), "40": None, "41": None}
    assert found["mean"] == pytest.approx(1.0)


def test_no_common_label_has_no_mean():
    labels = np.zeros((4, 4), int)
    assert hd95_mm(labels, labels, (1, 1)) == {"mean": None, "per_label": {}}
    assert hd95_mm(labels + 1, labels + 2, (1, 1), labels=[1]) == {"mean": None, "per_label": {"1": None}}
