"""Maps of few parameters, fitted to a pair: the gradient, known maps found again, files of a registration."""

import json
import logging

import numpy as np
import pytest
from keras import ops
from scipy.ndimage import gaussian_filter

import r2reg
from r2reg.config import RegisterConfig
from r2reg.errors import ConfigError
from r2reg.flow.families import make_family, voxel_shares
from r2reg.flow.warp import affine_coordinates, sample, warp
from r2reg.geometry.grid import Grid, index_map
from r2reg.geometry.transforms import map_points
from r2reg.losses.steering import steering
from r2reg.registration.parametric import Objective, _stiffness, fit
from r2reg.registration.refinement import Driver, LevelImages, Term
from r2reg.registration.run import register_files

SHAPE = (40, 48)
GRID = Grid(SHAPE, np.array([[0.0, 1.5, 3], [-1.2, 0, 7], [0, 0, 1]]))  # turned by 90 degrees, anisotropic


def noise(shape, seed=0):
    image = gaussian_filter(np.random.default_rng(seed).random(shape), 3)
    image = (image - image.min()) / np.ptp(image)
    return ops.convert_to_tensor(image[None, ..., None].astype("float32"))


def pair(name, shape=SHAPE, size=0.06, seed=1):
    """fixed = moving carried by a known map; the images and its displacement."""
    family = make_family(name, len(shape), 3)
    theta = np.random.default_rng(seed).normal(0, size, (1, family.parameters)).astype("float32")
    shares = voxel_shares(shape)[None]
    there = ops.convert_to_numpy(family.map(ops.convert_to_tensor(theta), ops.convert_to_tensor(shares)))
    displacement = ((there - shares) * np.array(shape, "float32")).reshape(1, *shape, len(shape))
    moving = noise(shape)
    return warp(moving, ops.convert_to_tensor(displacement)), moving, displacement[0]


@pytest.mark.parametrize("similarity", ["mse", "mi"])
@pytest.mark.parametrize("name", ["affine-diff", "cpab", "affine-cpab"])
def test_the_objective_s_gradient(name, similarity):
    fixed, moving, _ = pair(name)
    images = Term(steering(similarity), lambda grid: LevelImages(grid, fixed, moving))
    family = make_family(name, 2, 2)
    objective = Objective(family, [Driver(images, GRID, GRID)], GRID, _stiffness(family), np.zeros(family.parameters))
    rng = np.random.default_rng(3)
    theta, step = rng.normal(0, 0.02, family.parameters), rng.normal(size=family.parameters)
    _, slope = objective(theta)
    small = 2e-3
    ends = [objective(theta + sign * small * step)[0] for sign in (1, -1)]
    assert slope @ step == pytest.approx((ends[0] - ends[1]) / (2 * small), rel=0.03, abs=1e-3 * np.abs(slope).sum())


@pytest.mark.backends
@pytest.mark.parametrize("name", ["affine-diff", "cpab", "affine-cpab"])
def test_a_known_map_is_found(name):
    """On a grid that is turned: what is found is displacements along its axes and an affine in the world."""
    fixed, moving, expected = pair(name)
    images = Term(steering("mse"), lambda grid: _at(grid, fixed, moving))
    found, affine, known = fit([images], GRID, name, 3)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    warped = index if found is None else index + ops.convert_to_numpy(found.phi.displacement)[0]
    there = GRID.ras_to_index(map_points([affine], GRID.index_to_ras(warped.reshape(-1, 2)))).reshape(*SHAPE, 2)
    error = np.linalg.norm(there - index - expected, axis=-1)[4:-4, 4:-4]
    assert np.linalg.norm(expected, axis=-1).mean() > 1
    assert error.mean() < 0.25
    assert (found is None) == (known is None)
    if found is None:
        return
    assert found.phi.certificate.holds
    known = json.loads(json.dumps(known))
    assert Grid(tuple(known["grid"]["shape"]), np.array(known["grid"]["affine"])) == GRID
    family = make_family("cpab", 2, known["boxes"], known["boundary"])
    theta = ops.convert_to_tensor(np.array([known["theta"]], np.float32))
    shares = ops.convert_to_tensor(voxel_shares(SHAPE)[None])
    moved = family.map(theta, shares)
    displacement = ops.convert_to_numpy(moved - shares).reshape(1, *SHAPE, 2) * SHAPE
    np.testing.assert_allclose(displacement, ops.convert_to_numpy(found.phi.displacement), atol=1e-3)
    np.testing.assert_allclose(ops.convert_to_numpy(family.inverse(theta, moved) - shares), 0, atol=1e-5)


def _at(grid, fixed, moving):
    """What a level works on, sampled from the finest."""
    where = affine_coordinates(index_map(grid, GRID), grid.shape)
    return LevelImages(grid, sample(fixed, where), sample(moving, where))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["affine-diff", "cpab", "affine-cpab"])
def test_a_registration(name, phantom_pair, tmp_path):
    """Better than the affine that it began with, one-to-one, undone exactly; files as of every other result."""
    given = {"moving_labels": phantom_pair.moving_labels, "fixed_labels": phantom_pair.fixed_labels}
    config = RegisterConfig(transform=name, boxes=3)
    metrics = register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", config, optional=given)
    similarity, deformation = metrics["similarity"], metrics["deformation"]
    assert similarity["after"]["lncc"] > similarity["before"]["lncc"]
    assert metrics["dice"]["after"]["mean"] > metrics["dice"]["before"]["mean"]
    assert deformation["ndv_percent"] == 0
    assert deformation["certified"]
    assert metrics["model"] is None
    assert ("cpab" in deformation) == (name != "affine-diff")
    assert (tmp_path / "out" / "forward.h5").exists()


def test_a_model_is_left_out(caplog):
    caplog.set_level(logging.WARNING, "r2reg")
    flat = np.random.default_rng(0).random((20, 24), dtype=np.float32)
    image = (flat, np.eye(3))
    found = r2reg.register(image, image, transform="affine", model="no-such-model", init="none")
    assert found.metrics["model"] is None
    assert "a registration of affine uses no network; model no-such-model is left out" in caplog.text


def test_bad_input():
    with pytest.raises(ConfigError, match="boxes must be a whole number of at least 1"):
        RegisterConfig(transform="cpab", boxes=0)
    flat = np.random.default_rng(0).random((20, 24), dtype=np.float32)
    with pytest.raises(ConfigError, match="give fewer boxes"):
        r2reg.register((flat, np.eye(3)), (flat, np.eye(3)), transform="cpab", boxes=100, init="none")
