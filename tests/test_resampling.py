"""Resampling in closed form; tests/test_agreement_transforms.py compares it with ANTs and ITK."""

import numpy as np
import pytest

from r2reg.errors import ConfigError, ImageError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, map_points
from r2reg.io.images import Volume
from r2reg.resampling import Resampler, invert_onto, resample

GRID = Grid((8, 9, 10), [[-2, 0, 0, 10], [0, 0, 3, 20], [0, 1, 0, 30], [0, 0, 0, 1]])
SHIFT = Affine(np.array([[1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))  # one voxel to lower i


def ramp(dtype=np.float32):
    return Volume(np.arange(720).reshape(GRID.shape).astype(dtype), GRID)


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "label", "bspline"])
def test_no_transform_gives_the_same_voxels(interpolation):
    out = resample(ramp(np.int16), GRID, [], interpolation)
    np.testing.assert_allclose(out, ramp().array, atol=1e-3)  # B-spline coefficients are found by iteration
    assert out.dtype == (np.int16 if interpolation in ("nearest", "label") else np.float32)


def test_a_shift_by_one_voxel_and_the_fill():
    out = resample(Volume(ramp().array + 5, GRID), GRID, [SHIFT])
    np.testing.assert_allclose(out[1:], ramp().array[:-1] + 5)
    assert (out[0] == 5).all()  # the minimum
    assert (resample(ramp(), GRID, [SHIFT], fill=-3.5)[0] == -3.5).all()
    assert (resample(Volume(ramp(np.int16).array + 5, GRID), GRID, [SHIFT], "nearest")[0] == 0).all()


def test_a_linear_image_stays_exact_under_a_displacement():
    rng = np.random.default_rng(0)
    coarse = Grid((5, 5, 5), [[0, 4, 0, -8], [4, 0, 0, 22], [0, 0, 3, 31], [0, 0, 0, 1]])
    field = Displacement(coarse, rng.uniform(-0.5, 0.5, (5, 5, 5, 3)).astype(np.float32))
    axes = np.stack(np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij"), -1)
    ras = GRID.index_to_ras(axes)
    linear = Volume((ras @ [1.0, 2, 3]).astype(np.float32), GRID)
    out = resample(linear, GRID, [field, SHIFT])
    expected = map_points([field, SHIFT], ras) @ [1.0, 2, 3]
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(out[inner], expected[inner], atol=1e-3)  # float32 of values near 250


def test_labels_are_never_mixed():
    labels = np.zeros(GRID.shape, np.uint8)
    labels[2:6, 2:7, 3:8] = 7
    labels[4:6] *= 5
    half = Affine(np.array([[1.0, 0, 0, 0.7], [0, 1, 0, 0.3], [0, 0, 1, 0.4], [0, 0, 0, 1]]))
    for interpolation in ("nearest", "label"):
        out = resample(Volume(labels, GRID), GRID, [half], interpolation)
        assert set(np.unique(out)) == {0, 7, 35}
        assert out.dtype == np.uint8


def test_masks_stay_masks():
    mask = Volume(np.ones(GRID.shape, bool), GRID)
    out = resample(mask, GRID, [SHIFT], "nearest")
    assert out.dtype == bool
    assert out[1:].all()
    assert not out[0].any()


def test_affine_lists_invert_exactly_and_fields_at_the_voxels():
    inverse, residual = invert_onto([SHIFT, SHIFT], GRID)
    np.testing.assert_allclose(map_points(inverse, np.zeros(3)), [-4, 0, 0])
    assert (residual == 0).all()
    field = Displacement(GRID, np.full((*GRID.shape, 3), 0.5, np.float32))
    inverse, residual = invert_onto([field, SHIFT], GRID)
    inner = GRID.index_to_ras([[4, 4, 4], [5, 6, 7]])
    np.testing.assert_allclose(map_points([field, SHIFT], map_points(inverse, inner)), inner, atol=1e-4)
    assert residual.shape == GRID.shape


def test_what_cannot_be_resampled():
    flat = Volume(np.zeros((4, 4), np.float32), Grid((4, 4), np.eye(3)))
    with pytest.raises(TransformError, match="image 3-D, reference 3-D, transform 1 2-D"):
        resample(ramp(), GRID, [Affine(np.eye(3))])
    with pytest.raises(TransformError, match="image 2-D, reference 3-D"):
        resample(flat, GRID, [])
    with pytest.raises(ImageError, match="label interpolation needs integers, not float32"):
        resample(ramp(), GRID, [], "label")
    with pytest.raises(ImageError, match="uint8 cannot hold the fill value -1"):
        resample(ramp(np.uint8), GRID, [], "nearest", fill=-1)
    with pytest.raises(ConfigError, match="interpolation must be one of linear, nearest"):
        resample(ramp(), GRID, [], "cubic")


def test_a_resampler_carries_any_number_of_volumes():
    rng = np.random.default_rng(0)
    field = Displacement(GRID, rng.uniform(-1, 1, (*GRID.shape, 3)).astype(np.float32))
    carry = Resampler(GRID, [field, SHIFT])
    for volume, interpolation in ((ramp(), "linear"), (ramp(np.int16), "nearest"), (ramp(), "bspline")):
        expected = resample(volume, GRID, [field, SHIFT], interpolation)
        np.testing.assert_array_equal(carry(volume, interpolation), expected)
