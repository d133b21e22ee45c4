"""Refinement steps on small images with a known answer."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow import reference
from r2reg.flow.warp import warp
from r2reg.geometry.grid import Grid
from r2reg.losses.similarity import SIMILARITIES
from r2reg.registration import refinement
from r2reg.registration.refinement import (
    PRESETS,
    Level,
    LevelImages,
    carry_displacement,
    descent,
    level_grid,
    levels_for,
    refine,
    unfold,
)


def blob(shape, center, width=4.0):
    places = reference.identity_points(shape)
    image = np.exp(-np.sum((places - np.array(center)) ** 2, axis=-1) / (2 * width**2))
    return ops.convert_to_tensor(image[None, ..., None].astype("float32"))


def grid_of(shape, spacing=1.0):
    affine = np.diag([spacing] * len(shape) + [1.0])
    return Grid(shape, affine)


@pytest.mark.backends
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
@pytest.mark.parametrize("shape", [(24, 24), (20, 20, 20)])
def test_a_shifted_blob_is_found(shape, similarity):
    middle = np.array(shape) / 2
    fixed, moving = blob(shape, middle), blob(shape, middle + 2)
    images = LevelImages(grid_of(shape), fixed, moving, None)
    result = refine(lambda _: images, images.grid, (Level(1, 40),), similarity, None)
    displacement = ops.convert_to_numpy(result.displacement)[0]
    there = displacement[tuple(middle.astype(int))]
    np.testing.assert_allclose(there, 2, atol=0.6)  # the smoothed field lags behind by a fraction of a voxel
    moved = warp(moving, result.displacement)
    loss = SIMILARITIES[similarity]
    assert float(loss(fixed, moved)) < 0.5 * float(loss(fixed, moving)) + 0.5 * float(loss(fixed, fixed))
    assert reference.jacobian_determinant(displacement).min() > 0


@pytest.mark.backends
def test_the_step_goes_downhill():
    """The loss falls along the direction found, by about what its slope promises."""
    shape = (20, 20)
    fixed, moving = blob(shape, (10, 10)), blob(shape, (12, 9))
    still = ops.zeros((1, *shape, 2))
    velocity = descent(still, fixed, moving, None, "mse")
    velocity = velocity * (0.1 / float(ops.max(ops.abs(velocity))))
    assert float(SIMILARITIES["mse"](fixed, warp(moving, velocity))) < float(SIMILARITIES["mse"](fixed, moving))


@pytest.mark.backends
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_slabs_give_the_whole_volumes_gradient(similarity, monkeypatch):
    rng = np.random.default_rng(0)
    fixed, moved, mask = (ops.convert_to_tensor(a) for a in rng.uniform(size=(3, 1, 30, 7, 8, 1)).astype("float32"))
    whole = ops.convert_to_numpy(refinement.intensity_gradient(fixed, moved, mask, similarity))
    monkeypatch.setattr(refinement, "SLAB_VOXELS", 7 * 8 * 9)
    slabs = ops.convert_to_numpy(refinement.intensity_gradient(fixed, moved, mask, similarity))
    np.testing.assert_allclose(slabs, whole, atol=1e-4 * np.abs(whole).max())  # float32 window sums


@pytest.mark.backends
def test_identical_images_do_not_move():
    shape = (16, 16)
    image = blob(shape, (8, 8))
    images = LevelImages(grid_of(shape), image, image, None)
    result = refine(lambda _: images, images.grid, (Level(1, 3),), "mse", None)
    assert float(ops.max(ops.abs(result.displacement))) == 0


def test_mask_restricts_the_similarity():
    """Outside the mask the images differ, inside they are alike: nothing is to be done."""
    shape = (24, 24)
    fixed = blob(shape, (6, 6), 2.0)
    moving = fixed + blob(shape, (18, 18), 2.0)
    mask = np.zeros((1, *shape, 1), "float32")
    mask[:, :12, :12] = 1
    still = ops.zeros((1, *shape, 2))
    free = float(ops.max(ops.abs(descent(still, fixed, moving, None, "mse"))))
    masked = float(ops.max(ops.abs(descent(still, fixed, moving, ops.convert_to_tensor(mask), "mse"))))
    assert masked < 1e-3 * free


def test_carrying_to_another_grid_keeps_the_world_displacement():
    """A linear field in mm, on two grids of different orientation and spacing."""
    source = Grid((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    target = Grid((8, 7, 6), [[0, -3, 0, 30], [3, 0, 0, 8], [0, 0, 4, 7], [0, 0, 0, 1]])
    slope = np.array([[0.1, 0.05, 0], [0, -0.1, 0.02], [0.03, 0, 0.1]])

    def in_voxels(grid):
        ras = grid.index_to_ras(reference.identity_points(grid.shape))
        return (ras @ slope.T @ np.linalg.inv(grid.affine[:3, :3]).T)[None].astype("float32")

    carried = carry_displacement(ops.convert_to_tensor(in_voxels(source)), source, target)
    np.testing.assert_allclose(ops.convert_to_numpy(carried), in_voxels(target), atol=1e-4)  # float32


def test_levels():
    assert levels_for("none") == ()
    assert levels_for(0) == ()
    assert levels_for(7)[-1] == Level(1, 7)
    assert levels_for("fast") == PRESETS["fast"]
    thick = Grid((64, 64, 20), np.diag([1.0, 1, 5, 1]))
    assert level_grid(thick, 4).spacing.tolist() == [4, 4, 5]
    short = Grid((24, 24, 8), np.eye(4))
    assert level_grid(short, 4).shape == (8, 8, 8)


@pytest.mark.backends
def test_no_steps_keep_the_start_exactly():
    """A displacement too fine for the coarse level is not lost by passing through it."""
    grid = grid_of((32, 32))
    wave = np.sin(2 * np.pi * np.arange(32) / 8)[None, :, None, None] * np.ones((1, 32, 32, 2))
    start = ops.convert_to_tensor(wave.astype("float32"))
    image = blob((32, 32), (16, 16))
    levels = (Level(4, 0), Level(1, 0))
    result = refine(lambda g: LevelImages(g, image, image, None), grid, levels, "mse", (start, grid))
    np.testing.assert_allclose(ops.convert_to_numpy(result.displacement), wave, atol=1e-5)  # float32
    small = refine(lambda g: LevelImages(g, image, image, None), grid, levels[:1], "mse", (start, grid))
    np.testing.assert_allclose(ops.convert_to_numpy(small.displacement), wave, atol=1e-5)


@pytest.mark.backends
def test_unfolding_is_local():
    """A pinch that swaps voxels is opened; what lies far from it keeps its displacement."""
    rng = np.random.default_rng(0)
    field = (0.1 * rng.normal(size=(1, 48, 24, 24, 3))).astype("float32")
    field[0, 8:10, 10:14, 10:14, 0] += np.array([1.6, -1.6], "float32")[:, None, None]
    assert reference.folded_voxels(field[0]).any()
    opened = ops.convert_to_numpy(unfold(ops.convert_to_tensor(field)))
    assert not reference.folded_voxels(opened[0]).any()
    np.testing.assert_array_equal(opened[0, 24:], field[0, 24:])
