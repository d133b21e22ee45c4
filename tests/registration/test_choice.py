"""The model that suits the images, and what happens where its map does not."""

import logging

import numpy as np
import pytest

from r2reg import released
from r2reg.cli.register import summary
from r2reg.config import NetworkConfig, RegisterConfig
from r2reg.geometry.grid import Grid
from r2reg.io.files import sha256
from r2reg.io.images import Volume
from r2reg.registration import choice, network
from r2reg.registration.choice import extent_mm, has_brain_size, suitable_model
from r2reg.registration.pair import Pair
from r2reg.registration.refinement import PRESETS
from r2reg.registration.run import plan, register_files

SMALL = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2, "spacing": (6.0,) * 3}


def ellipsoid(sizes_mm, spacing=(4.0, 5.0, 6.0), turned=False):
    """Bright in a box of sizes along the body's axes, noise around it; `turned`: array axes from back, up and left."""
    order = [1, 2, 0] if turned else [0, 1, 2]
    affine = np.eye(4)
    for axis, (row, step) in enumerate(zip(order, spacing, strict=True)):
        affine[:3, axis] = np.eye(3)[row] * step * (-1 if turned else 1)
    shape = [int(1.3 * sizes_mm[row] / step) for row, step in zip(order, spacing, strict=True)]
    grid = Grid(tuple(shape), affine)
    points = grid.index_to_ras(np.argwhere(np.ones(shape)).astype(float))
    centred = (points - points.mean(axis=0)) / (np.array(sizes_mm) / 2)
    inside = ((centred**2).sum(axis=1) <= 1).reshape(shape)
    noise = np.random.default_rng(0).uniform(0, 0.1, shape)
    return Volume((inside + noise).astype("float32"), grid)


@pytest.mark.parametrize("turned", [False, True])
def test_size_of_what_is_bright(turned):
    sizes = (140.0, 180.0, 220.0)
    image = ellipsoid(sizes, turned=turned)
    assert extent_mm(image.array, image.grid) == pytest.approx(sizes, rel=0.15)
    assert extent_mm(np.full((4, 4, 4), 3.0), Grid((4, 4, 4), np.eye(4))) is None


@pytest.mark.parametrize(
    ("sizes", "brain"),
    [
        ((135, 170, 130), True),
        ((160, 200, 250), True),
        ((160, 220, 340), False),  # lungs
        ((40, 60, 40), False),
    ],
)
def test_what_has_the_size_of_a_brain(sizes, brain):
    assert has_brain_size(ellipsoid(sizes)) is brain


def test_both_images_decide(monkeypatch):
    monkeypatch.setattr(choice, "COARSEST_MM", 6.0)
    brain, lung, flat = (
        ellipsoid((135, 170, 130)),
        ellipsoid((160, 220, 340)),
        Volume(np.eye(9), Grid((9, 9), np.eye(3))),
    )
    monkeypatch.setattr(choice, "names", lambda: ["anatomy", "brain"])
    small = ellipsoid((40, 60, 40))
    assert suitable_model(Pair(moving=brain, fixed=brain)) == "brain"
    assert suitable_model(Pair(moving=lung, fixed=brain)) == "anatomy"
    assert suitable_model(Pair(moving=brain, fixed=lung)) is None  # too wide a view, 440 mm
    assert suitable_model(Pair(moving=brain, fixed=small)) is None
    assert suitable_model(Pair(moving=small, fixed=brain)) is None
    assert suitable_model(Pair(moving=flat, fixed=flat)) is None
    with monkeypatch.context() as patch:
        patch.setattr(choice, "COARSEST_MM", 5.9)
        assert suitable_model(Pair(moving=lung, fixed=brain)) is None
    monkeypatch.setattr(choice, "names", list)
    assert suitable_model(Pair(moving=brain, fixed=brain)) is None
    monkeypatch.setattr(choice, "names", lambda: ["brain"])
    assert suitable_model(Pair(moving=lung, fixed=brain)) is None
    monkeypatch.setattr(choice, "COARSEST_MM", 5.9)
    assert suitable_model(Pair(moving=brain, fixed=brain)) is None


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A brain ships that has learnt nothing but to pull things about."""
    from r2reg.networks.build import build_network
    from r2reg.networks.saving import save_model

    config = NetworkConfig(integrator="flow", **SMALL)
    untrained = build_network(config, (16, 16, 16))
    rng = np.random.default_rng(0)
    for weight in untrained.trainable_weights:  # all of them: so it pulls the same way each time
        weight.assign(rng.normal(scale=0.25, size=weight.shape))
    folder = tmp_path / "shipped"
    save_model(folder / "brain", untrained, config, {})
    sums = [f"{sha256(path)}  {path.relative_to(folder)}" for path in sorted((folder / "brain").iterdir())]
    (folder / released.CHECKSUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")
    monkeypatch.setattr(released, "shipped_folder", lambda: folder)
    monkeypatch.setattr(choice, "COARSEST_MM", 6.0)


def test_a_map_that_makes_things_worse_is_left_out_of_our_choice(shipped, phantom_pair, tmp_path, caplog):
    def run(model):
        config = RegisterConfig(model=model, refine="none", init="com")
        with caplog.at_level(logging.WARNING, "r2reg"):
            caplog.clear()
            return register_files(
                phantom_pair.moving, phantom_pair.fixed, tmp_path / model, config, overwrite=True, report=False
            )

    chosen, without, given = run("auto"), run("none"), run("brain")
    assert "its map is used" in caplog.text
    assert chosen["similarity"]["after"] == without["similarity"]["after"]
    assert given["similarity"]["after"] != without["similarity"]["after"]
    assert (chosen["model"]["name"], chosen["model"]["used"], given["model"]["used"]) == ("brain", False, True)
    assert chosen["model"]["lncc"]["network"] < chosen["model"]["lncc"]["affine"]
    assert without["model"] is None
    run("auto")
    assert "going on without it" in caplog.text
    assert "model brain: LNCC" in summary(given, tmp_path)
    assert "left out" in summary(chosen, tmp_path)
    assert "model" not in summary(without, tmp_path)


@pytest.mark.parametrize(("after", "used"), [(0.29, False), (0.32, False), (0.34, True)])
def test_a_map_of_our_choice_must_gain_something(shipped, phantom_pair, tmp_path, monkeypatch, caplog, after, used):
    monkeypatch.setattr(network, "likeness", lambda _, found=None: 0.3 if found is None else after)
    config = RegisterConfig(model="auto", refine="none", init="com")
    with caplog.at_level(logging.WARNING, "r2reg"):
        found = register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", config, report=False)
    assert found["model"]["used"] is used
    assert ("less alike" in caplog.text) is (after < 0.3)


def test_the_plan_names_the_model_that_ships(shipped, phantom_pair, tmp_path, monkeypatch):
    (tmp_path / "here" / "brain").mkdir(parents=True)
    (tmp_path / "here" / "brain" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    planned = plan(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", RegisterConfig(model="auto"))
    assert planned["stages"][1]["model"] == "brain"


def test_the_plan_has_the_levels_that_a_pyramids_map_leaves(phantom_pair, tmp_path):
    planned = plan(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", RegisterConfig(model="brain"))
    assert [stage["steps"] for stage in planned["stages"][2:]] == [level.steps for level in PRESETS["default"][1:]]
