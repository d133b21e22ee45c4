"""What drives the refinement, and what is said of its result."""

import itertools

import numpy as np
import pytest

from r2reg.config import RegisterConfig
from r2reg.errors import ConfigError, RegistrationError
from r2reg.flow import backend
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume, write_image
from r2reg.metrics.overlap import dice
from r2reg.registration import refinement, unfolding
from r2reg.registration.aligned import Aligned, guiding_labels
from r2reg.registration.clock import Clock
from r2reg.registration.deformation import find_deformation, rehearsals
from r2reg.registration.pair import Pair, read_pair
from r2reg.registration.run import register_files
from r2reg.resampling import resample


def square_pair(shift, ids=(1, 2)):
    """Two squares that no intensity shows, `shift` voxels apart; the images are the same noise."""
    grid = Grid((40, 40), np.eye(3))
    image = np.random.default_rng(0).uniform(size=grid.shape).astype("float32") * 0.01
    image[20, 20] = 1
    labels = np.zeros((2, *grid.shape), np.uint8)
    for map_, offset in zip(labels, (0, shift), strict=True):
        map_[10 + offset : 20 + offset, 12:28] = ids[0]
        map_[20 + offset : 30 + offset, 12:28] = ids[1]
    fixed, moving = (Volume(a, grid) for a in labels)
    return Pair(moving=Volume(image, grid), fixed=Volume(image, grid), fixed_labels=fixed, moving_labels=moving)


def deform(pair, **settings):
    config = RegisterConfig(similarity="mse", **settings)
    images = (np.asarray(v.array, "float32") for v in (pair.moving, pair.fixed))
    found = find_deformation(Aligned(pair, *images, Affine(np.eye(3))), None, config, Clock())
    moved = resample(pair.moving_labels, pair.fixed.grid, [found.warp], "nearest", 0)
    return found, dice(pair.fixed_labels.array, moved)["mean"]


def test_labels_steer_only_when_asked():
    pair = square_pair(3)
    unasked, before = deform(pair)
    found, after = deform(pair, guide=("labels",))
    assert np.abs(unasked.warp.vectors).max() == 0  # the images are alike
    assert before < 0.8
    assert after > 0.9
    assert found.certificate.holds


def test_a_guide_needs_labels():
    pair = square_pair(3)
    with pytest.raises(ConfigError, match="--fixed-labels"):
        guiding_labels(Pair(moving=pair.moving, fixed=pair.fixed, moving_labels=pair.moving_labels))
    strangers = square_pair(3, ids=(7, 9)).fixed_labels
    with pytest.raises(RegistrationError, match="share no label"):
        Pair(moving=pair.moving, fixed=pair.fixed, moving_labels=pair.moving_labels, fixed_labels=strangers)
    with pytest.raises(ConfigError, match="guide"):
        RegisterConfig(guide=("masks",))


@pytest.mark.parametrize(("shape", "cut"), [((40, 40), False), ((40, 30), True)])
def test_a_cut_view_is_noticed(shape, cut):
    """Fixed's content reaches to row 33; the lower corner of a turned background matters to nobody."""
    image = np.zeros((40, 40), np.float32)
    image[8:33, 8:33] = 1
    fixed, moving = Volume(image, Grid(image.shape, np.eye(3))), Volume(image[:, : shape[1]], Grid(shape, np.eye(3)))
    turn = np.array([[0.95, -0.3, 0], [0.3, 0.95, 0], [0, 0, 1]]) if not cut else np.eye(3)
    turn[:2, 2] = 19.5 - turn[:2, :2] @ [19.5, 19.5]
    aligned = Aligned(Pair(moving=moving, fixed=fixed), moving.array, fixed.array, Affine(turn))
    assert aligned.cut == cut
    assert (aligned.images_on(fixed.grid).view is not None) == cut


def test_rehearsing_changes_nothing():
    pair = square_pair(3)
    before, _ = deform(pair, guide=("labels",))
    for task in itertools.chain(*rehearsals(pair.fixed.grid, RegisterConfig(similarity="mse"))):
        task()
    after, _ = deform(pair, guide=("labels",))
    np.testing.assert_array_equal(before.warp.vectors, after.warp.vectors)


def test_rehearsals_are_on_the_grids_that_will_be_used(monkeypatch):
    """The levels lie along the world's axes, the written fields along fixed's."""
    shapes = []
    monkeypatch.setattr(backend, "compiles", lambda: True)
    monkeypatch.setattr(unfolding, "rehearse", lambda still: shapes.append(tuple(still.shape[1:-1])))
    monkeypatch.setattr(refinement, "_run_level", lambda start, *_: (shapes.append(start.grid.shape) or start.phi, 0))
    grid = Grid((8, 16, 32), np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
    for task in itertools.chain(*rehearsals(grid, RegisterConfig(refine="default"))):
        task()
    assert shapes[1::2][-1] == (32, 8, 16)  # full size, canonical
    assert shapes[-1] == grid.shape
    assert rehearsals(grid, RegisterConfig(transform="affine")) == ([], [])


def test_masks_that_do_not_meet_after_the_affine(phantom_pair, tmp_path, left_only_a_report):
    pair = read_pair(phantom_pair.moving, phantom_pair.fixed)
    for role, volume, part in (("moving", pair.moving, slice(0, 8)), ("fixed", pair.fixed, slice(0, 8))):
        mask = np.zeros(volume.grid.shape, np.uint8)
        mask[part] = 1
        if role == "fixed":
            corner = volume.grid.ras_to_index(pair.moving.grid.index_to_ras(np.array([30.0, 16, 16])))
            mask[:] = 0
            mask[tuple(slice(max(int(c) - 2, 0), int(c) + 3) for c in corner)] = 1
        write_image(tmp_path / f"{role}.nii.gz", mask, volume)
    optional = {"moving_mask": tmp_path / "moving.nii.gz", "fixed_mask": tmp_path / "fixed.nii.gz"}
    config = RegisterConfig(init="none", refine=1)
    with pytest.raises(RegistrationError, match="overlap"):
        register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", config, optional=optional)
    left_only_a_report(tmp_path / "out")


@pytest.mark.parametrize("similarity", ["ngf", "mi", "mind"])
def test_every_similarity_registers(phantom_pair, tmp_path, similarity):
    config = RegisterConfig(init=str(phantom_pair.true_affine), refine=5, similarity=similarity)
    optional = {f"{role}_labels": getattr(phantom_pair, f"{role}_labels") for role in ("moving", "fixed")}
    metrics = register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", config, optional=optional)
    assert metrics["dice"]["after"]["mean"] > metrics["dice"]["affine"]["mean"] + 0.01
    assert metrics["deformation"]["certified"]
    assert metrics["deformation"]["certificate"]["failure"] is None
