"""Similarities against numpy's own and window by window."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from r2reg.errors import ImageError
from r2reg.metrics import similarity
from r2reg.metrics.similarity import image_similarities, image_similarity, lncc, mse, ncc


def images(shape, seed=0):
    rng = np.random.default_rng(seed)
    pair = [gaussian_filter(rng.random(shape), 0.7).astype(np.float32) for _ in range(2)]
    return pair[0], (0.5 * pair[0] + 0.5 * pair[1])


def windowed(fixed, moved, radius):
    """Mean squared correlation of the windows, edges repeated, with numpy's corrcoef."""
    padded = [np.pad(i.astype(float), radius, mode="edge") for i in (fixed, moved)]
    values = []
    for index in itertools.product(*[range(n) for n in fixed.shape]):
        box = tuple(slice(i, i + 2 * radius + 1) for i in index)
        values.append(np.corrcoef(padded[0][box].ravel(), padded[1][box].ravel())[0, 1] ** 2)
    return np.mean(values)


@pytest.mark.parametrize("shape", [(12, 9), (8, 7, 6)])
@pytest.mark.parametrize("radius", [1, 2])
def test_lncc_equals_corrcoef_of_each_window(shape, radius):
    fixed, moved = images(shape)
    # Variances are differences of float32 means near 0.25: 1e-7 of it against variances near 1e-2.
    assert lncc(fixed, moved, radius=radius) == pytest.approx(windowed(fixed, moved, radius), abs=1e-4)


def test_mse_and_ncc_equal_numpy_within_a_mask():
    fixed, moved = images((9, 8, 7))
    mask = np.random.default_rng(3).random(fixed.shape) > 0.5
    assert mse(fixed, moved, mask) == pytest.approx(np.mean((fixed[mask] - moved[mask]) ** 2), rel=1e-5)
    assert ncc(fixed, moved, mask) == pytest.approx(np.corrcoef(fixed[mask], moved[mask])[0, 1], rel=1e-5)


def test_identical_images_and_linear_contrast():
    fixed, _ = images((16, 16, 16))
    fixed[:, :6] = 0  # background must not lower it
    assert image_similarity(fixed, fixed) == pytest.approx({"mse": 0, "ncc": 1, "lncc": 1}, abs=1e-5)
    # 1e-3: where the dimmed image's variance falls below the floor its windows count for less.
    assert lncc(fixed, 1 - 0.5 * fixed) == pytest.approx(1, abs=1e-3)


def test_flat_and_unrelated_images_score_low():
    fixed, _ = images((16, 16, 16))
    noise = np.random.default_rng(9).random(fixed.shape).astype(np.float32)
    assert lncc(fixed, np.full_like(fixed, 0.5)) < 1e-3
    # The expected squared correlation of 125 independent samples is 1/124; smoothing leaves fewer.
    assert lncc(fixed, noise) < 0.03
    assert ncc(fixed, np.full_like(fixed, 0.5)) == 0


def test_mask_restricts_the_windows_centres():
    fixed, moved = images((12, 12, 12))
    moved[6:] = 1 - fixed[6:]
    mask = np.zeros(fixed.shape, bool)
    mask[9:] = True
    assert lncc(fixed, moved, mask) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ImageError, match="empty"):
        lncc(fixed, moved, np.zeros_like(mask))
    with pytest.raises(ImageError, match="shape"):
        mse(fixed, moved, mask[1:])


@pytest.mark.parametrize("masked", [False, True])
def test_several_images_score_as_each_alone_in_any_slabs(masked, monkeypatch):
    fixed, moved = images((13, 12, 11))
    mask = np.random.default_rng(3).random(fixed.shape) > 0.5 if masked else None
    several = [moved, 1 - fixed, fixed**2]
    whole = image_similarities(fixed, several, mask)
    monkeypatch.setattr(similarity, "SLAB_VOXELS", 300)
    for image, found in zip(several, whole, strict=True):
        # Sums in another order, of float64.
        assert image_similarity(fixed, image, mask) == pytest.approx(found, rel=1e-12)
