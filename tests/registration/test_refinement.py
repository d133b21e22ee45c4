"""Refinement steps on small images with a known answer."""

import numpy as np
import pytest
from keras import ops

from r2reg.errors import RegistrationError
from r2reg.flow import reference
from r2reg.flow.diffeomorphism import Diffeomorphism
from r2reg.flow.smooth import gaussian
from r2reg.flow.warp import warp
from r2reg.geometry.grid import Grid, identity_points
from r2reg.losses.steering import steering
from r2reg.registration.refinement import (
    PLATEAU_STEPS,
    PRESETS,
    STEP,
    Driver,
    Level,
    LevelImages,
    MapOnGrid,
    Term,
    carry_displacement,
    level_grid,
    levels_for,
    on_plateau,
    refine,
    step_velocity,
)


def blob(shape, center, width=4.0):
    places = identity_points(shape)
    image = np.exp(-np.sum((places - np.array(center)) ** 2, axis=-1) / (2 * width**2))
    return ops.convert_to_tensor(image[None, ..., None].astype("float32"))


def grid_of(shape, spacing=1.0):
    affine = np.diag([spacing] * len(shape) + [1.0])
    return Grid(shape, affine)


def term(similarity, *images, mask=None, moving_mask=None):
    return Term(steering(similarity), lambda grid: LevelImages(grid, *images, mask, moving_mask))


@pytest.mark.backends
@pytest.mark.parametrize("similarity", ["mse", "lncc", "ngf", "mind"])
@pytest.mark.parametrize("shape", [(24, 24), (20, 20, 20)])
def test_a_shifted_blob_is_found(shape, similarity):
    middle = np.array(shape) / 2
    fixed, moving = blob(shape, middle), blob(shape, middle + 2)
    found = refine([term(similarity, fixed, moving)], grid_of(shape), (Level(1, 40),))
    displacement = ops.convert_to_numpy(found.phi.displacement)[0]
    there = displacement[tuple(middle.astype(int))]
    np.testing.assert_allclose(there, 2, atol=0.7)  # steps of 0.4 voxels do not end on the spot
    driver = Driver(term(similarity, fixed, moving), found.grid, found.grid)
    before, after = (driver.direction(u)[0] for u in (ops.zeros_like(found.phi.displacement), found.phi.displacement))
    best = Driver(term(similarity, fixed, fixed), found.grid, found.grid).direction(0 * found.phi.displacement)[0]
    assert after - best < 0.5 * (before - best)
    assert reference.jacobian_determinant(displacement).min() > 0
    assert found.phi.certificate.holds


@pytest.mark.backends
def test_the_inverse_comes_along():
    """phi^-1(phi(x)) = x to a part of a voxel on average after 30 steps, before any polishing."""
    shape = (24, 24, 24)
    fixed, moving = blob(shape, (12, 12, 12)), blob(shape, (14, 13, 10))
    phi = refine([term("mse", fixed, moving)], grid_of(shape), (Level(1, 30),)).phi
    there = ops.convert_to_numpy(phi.displacement)[0]
    back = ops.convert_to_numpy(warp(phi.inverse, phi.displacement))[0]
    inside = (slice(4, -4),) * 3  # at the border the edge's value holds
    assert np.abs(there).max() > 1
    assert np.abs(there + back)[inside].mean() < 0.1


@pytest.mark.backends
def test_the_step_goes_downhill():
    shape = (20, 20)
    grid = grid_of(shape)
    driver = Driver(term("mse", blob(shape, (10, 10)), blob(shape, (12, 9))), grid, grid)
    value, direction = driver.direction(ops.zeros((1, *shape, 2)))
    later, _ = driver.direction(0.1 * direction / ops.max(ops.abs(direction)))
    assert later < value


@pytest.mark.backends
def test_every_driver_has_the_same_say_in_a_step():
    still = ops.zeros((1, 8, 8, 2))
    along = [ops.convert_to_tensor(np.full((1, 8, 8, 2), axis, np.float32)) for axis in ((1e-3, 0), (0, 1e3))]
    velocity = ops.convert_to_numpy(step_velocity(still, along, ops.convert_to_tensor(0.5), drivers=2))
    np.testing.assert_allclose(velocity, 0.5 * STEP / 2, rtol=1e-5)


@pytest.mark.backends
def test_identical_images_do_not_move():
    shape = (16, 16)
    image = blob(shape, (8, 8))
    found = refine([term("mse", image, image)], grid_of(shape), (Level(1, 3),))
    assert float(ops.max(ops.abs(found.phi.displacement))) == 0


@pytest.mark.parametrize("role", ["mask", "moving_mask"])
def test_mask_restricts_the_similarity(role):
    """Outside the mask the images differ, inside they are alike: nothing is to be done."""
    shape = (24, 24)
    grid = grid_of(shape)
    fixed = blob(shape, (6, 6), 2.0)
    moving = fixed + blob(shape, (18, 18), 2.0)
    mask = np.zeros((1, *shape, 1), "float32")
    mask[:, :12, :12] = 1
    still = ops.zeros((1, *shape, 2))
    free, _ = Driver(term("mse", fixed, moving), grid, grid).direction(still)
    masks = {role: ops.convert_to_tensor(mask)}
    masked, _ = Driver(term("mse", fixed, moving, **masks), grid, grid).direction(still)
    assert masked < 1e-3 * free  # the blob's tail, 6 voxels = 3 sd away, squared


def test_masks_that_do_not_meet_are_refused():
    shape = (24, 24)
    image = blob(shape, (12, 12))
    upper, lower = np.zeros((2, 1, *shape, 1), "float32")
    upper[:, :10], lower[:, 14:] = 1, 1
    masks = {"mask": ops.convert_to_tensor(upper), "moving_mask": ops.convert_to_tensor(lower)}
    with pytest.raises(RegistrationError, match="do not overlap"):
        refine([term("mse", image, image, **masks)], grid_of(shape), (Level(1, 1),))


@pytest.mark.backends
@pytest.mark.parametrize("similarity", ["mse", "lncc", "ngf", "mind"])
def test_what_moving_does_not_show_pulls_nothing(similarity):
    """Moving is fixed itself, cut off: the true map is the identity. The view's mask says so, 0 beyond does not."""
    shape = (40, 40)
    rng = np.random.default_rng(0)
    image = ops.convert_to_numpy(gaussian(ops.convert_to_tensor(rng.random((1, *shape, 1), "float32")), sigma=1.5))
    image = (image - image.min()) / (image.max() - image.min())
    view = np.ones_like(image)
    view[:, :12] = 0
    fixed, moving, seen = (ops.convert_to_tensor(a) for a in (image, image * view, view))

    def largest(view):
        one = Term(steering(similarity), lambda grid: LevelImages(grid, fixed, moving, view=view))
        found = refine([one], grid_of(shape), (Level(1, 15),))
        return np.abs(ops.convert_to_numpy(found.phi.displacement)).max()

    assert largest(None) > 2
    assert largest(seen) < 0.4  # less than a step: some similarities of an image with itself are not quite flat


@pytest.mark.backends
def test_a_view_thinner_than_the_windows():
    shape = (24, 24)
    image = blob(shape, (12, 12))
    view = np.zeros((1, *shape, 1), "float32")
    view[:, 11:13] = 1
    images = LevelImages(grid_of(shape), image, image, view=ops.convert_to_tensor(view))
    driver = Driver(Term(steering("lncc"), lambda _: images), images.grid, images.grid)
    assert driver.reach == 0


@pytest.mark.backends
def test_the_force_is_the_same_in_millimetres():
    """A round blob in mm, shifted along both axes alike, on voxels of 1 x 3 mm: the first step is diagonal."""
    grid = Grid((60, 20), np.diag([1.0, 3.0, 1.0]))

    def round_blob(center):
        places = grid.index_to_ras(identity_points(grid.shape))
        image = np.exp(-np.sum((places - np.array(center)) ** 2, axis=-1) / (2 * 8.0**2))
        return ops.convert_to_tensor(image[None, ..., None].astype("float32"))

    driver = Driver(term("mse", round_blob((30, 30)), round_blob((32, 32))), grid, grid)
    _, direction = driver.direction(ops.zeros((1, *grid.shape, 2)))
    mean = ops.convert_to_numpy(ops.mean(direction, axis=(0, 1, 2))) * grid.spacing
    assert mean[1] / mean[0] == pytest.approx(1, abs=0.4)  # 9 by voxels


def test_a_plateau_ends_a_level():
    falling = [1.0 / (1 + k) for k in range(PLATEAU_STEPS + 1)]
    assert not on_plateau(falling[:-1])
    assert not on_plateau(falling)
    assert on_plateau([1.0, 0.1, *[0.0999] * PLATEAU_STEPS])
    assert on_plateau([1.0 + 0.1 * k for k in range(PLATEAU_STEPS + 1)])  # it only gets worse


@pytest.mark.backends
def test_a_coarser_term_drives_a_finer_level():
    """A term that is computed at half size alone finds the shift at full size."""
    shape = (32, 32)
    full = grid_of(shape)

    def images_on(grid):
        middle = np.array([16.0, 16.0]) / grid.spacing
        return LevelImages(grid, *(blob(grid.shape, middle + s / grid.spacing, 4 / grid.spacing[0]) for s in (0, 2)))

    found = refine([Term(steering("mse"), images_on, finest=2)], full, (Level(1, 40),))
    np.testing.assert_allclose(ops.convert_to_numpy(found.phi.displacement)[0, 16, 16], 2, atol=0.7)  # as above


def test_carrying_to_another_grid_keeps_the_world_displacement():
    """A linear field in mm, on two grids of different orientation and spacing."""
    source = Grid((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    target = Grid((8, 7, 6), [[0, -3, 0, 30], [3, 0, 0, 8], [0, 0, 4, 7], [0, 0, 0, 1]])
    slope = np.array([[0.1, 0.05, 0], [0, -0.1, 0.02], [0.03, 0, 0.1]])

    def in_voxels(grid):
        ras = grid.index_to_ras(identity_points(grid.shape))
        return (ras @ slope.T @ np.linalg.inv(grid.affine[:3, :3]).T)[None].astype("float32")

    carried = carry_displacement(ops.convert_to_tensor(in_voxels(source)), source, target)
    np.testing.assert_allclose(ops.convert_to_numpy(carried), in_voxels(target), atol=1e-4)  # float32


def test_levels():
    assert levels_for("none") == ()
    assert levels_for(0) == PRESETS["default"][:-1]
    assert levels_for(7)[-1] == Level(1, 7)
    assert levels_for("fast") == PRESETS["fast"]
    assert levels_for(PRESETS["default"][-1].steps) == PRESETS["default"]
    thick = Grid((64, 64, 20), np.diag([1.0, 1, 5, 1]))
    assert level_grid(thick, 4).spacing.tolist() == [4, 4, 5]
    short = Grid((24, 24, 8), np.eye(4))
    assert level_grid(short, 4).shape == (8, 8, 8)


@pytest.mark.backends
def test_no_steps_keep_the_start_exactly():
    """A displacement too fine for the coarse level is not lost by passing through it."""
    grid = grid_of((32, 32))
    wave = np.sin(2 * np.pi * np.arange(32) / 8)[None, :, None, None] * np.ones((1, 32, 32, 2))
    field = ops.convert_to_tensor(wave.astype("float32"))
    start = MapOnGrid(Diffeomorphism(field, -field), grid)
    terms = [Term(steering("mse"), lambda g: LevelImages(g, ops.zeros((1, *g.shape, 1)), ops.zeros((1, *g.shape, 1))))]
    for levels in ((Level(4, 0), Level(1, 0)), (Level(4, 0),)):
        found = refine(terms, grid, levels, start)
        np.testing.assert_allclose(ops.convert_to_numpy(found.phi.displacement), wave, atol=1e-5)  # float32
