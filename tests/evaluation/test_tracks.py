"""Tracks of voxels: closed forms of straight and turning flows, what networks compute, and the files."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from keras import ops

from r2reg.cli.inspect import inspect, track_lines
from r2reg.config import NetworkConfig, RegisterConfig, TrainConfig
from r2reg.errors import ModelError, OutputError, R2RegError, TrainingError
from r2reg.evaluation.tracks import (
    MOVED,
    Tracks,
    check_followed,
    foreground,
    inspect_tracks,
    integrated_states,
    measured,
    network_states,
    score_pair,
)
from r2reg.geometry.grid import Grid, identity_points
from r2reg.io.images import read_image
from r2reg.networks.build import build_network
from r2reg.networks.saving import SavedModel, save_model
from r2reg.registration.network import network_grid

SMALL = {"encoder": (4, 8), "decoder": (8, 8, 8, 4, 3), "up_filters": 4, "blocks": 3}
FLAT = SMALL | {"ndim": 2, "spacing": (2.0, 2.0)}
SHAPE = (33, 33)


def model_of(**settings):
    """A model's settings alone."""
    return SavedModel(Path("model"), NetworkConfig(**(FLAT | settings)), {})


def tracks_of(model, velocities):
    """(n + 1, *S, d): 0 and the states of an integration."""
    states = [ops.convert_to_numpy(state)[0] for state in integrated_states(model, velocities)]
    return np.stack([np.zeros_like(states[0]), *states])


def disk(radius):
    """Voxels of SHAPE within a radius of the middle, but for the middle."""
    away = np.linalg.norm(identity_points(SHAPE) - 16, axis=-1)
    return (away < radius) & (away > 1)


INTEGRATORS = [
    {"network": "nsvf-r2net", "integrator": "flow", "scheme": "rk4"},
    {"network": "nsvf-r2net", "integrator": "scaling_squaring"},
    {"network": "vm-diff", "velocity_size": "full"},  # one velocity, scaling and squaring
]


@pytest.mark.backends
@pytest.mark.parametrize("settings", INTEGRATORS, ids=lambda s: "-".join(s.values()))
def test_a_constant_velocity_goes_straight(settings):
    model = model_of(**settings, blocks=7)
    velocity = ops.ones((1, *SHAPE, 2)) * ops.convert_to_tensor([3.0, -2.0])
    states = tracks_of(model, [velocity] * (1 if model.network.network == "vm-diff" else 7))
    assert len(states) == 8
    found, scores = measured(states.reshape(8, -1, 2), identity_points(SHAPE).reshape(-1, 2))
    assert found["voxels"] == 33**2
    assert scores.min() >= 1 - 1e-12  # rounding of float64
    for name in ("lss_mean", "lss_p95", "lsr_mean", "lsr_p95"):
        assert found[name] == pytest.approx(1, abs=1e-9)  # the square of float32's rounding
    assert found["ots"] == 1


@pytest.mark.backends
@pytest.mark.parametrize("settings", INTEGRATORS, ids=lambda s: "-".join(s.values()))
def test_a_turn_is_a_polygon(settings):
    """n equal turns by a / n are chords of an arc: n sin(a / 2n) / sin(a / 2)."""
    steps, angle = 7, 2.0
    model = model_of(**settings, blocks=steps, substeps=4, squarings=10)
    spin = np.array([[0, -angle], [angle, 0]])
    velocity = ops.convert_to_tensor(((identity_points(SHAPE) - 16) @ spin.T)[None].astype("float32"))
    velocities = [velocity] * (1 if model.network.network == "vm-diff" else steps)
    inside = disk(11)  # none leaves the grid, where the edge's velocity would hold
    found, scores = measured(tracks_of(model, velocities)[:, inside], identity_points(SHAPE)[inside])
    expected = steps * np.sin(angle / 2 / steps) / np.sin(angle / 2)
    # An exponential begins with Euler's steps, which drive points outward: by angle^2 / 2^11 = 0.2 % at the end.
    for name in ("lss_mean", "lsr_mean", "lss_p95", "lsr_p95"):
        assert found[name] == pytest.approx(expected, abs=1e-3)
    assert scores.min() > 1.1
    assert found["ots"] < 0.5  # half a turn of a disk is no optimal transport


BACKENDS = pytest.mark.backends
NETWORKS = [
    {"network": "nsvf-r2net"},
    pytest.param({"network": "svf-r2net"}, marks=BACKENDS),
    pytest.param({"network": "nsvf-r2net", "integrator": "flow"}, marks=BACKENDS),
    {"network": "svf-r2net", "integrator": "flow", "scheme": "rk4"},
    {"network": "svf-r2net", "integrator": "flow", "blocks": 1},
    {"network": "nsvf-r2net", "integrator": "scaling_squaring"},
    {"network": "vm-diff", "velocity_size": "full"},
    {"network": "ms-vm-diff"},
    {"network": "ms-nsvf-r2net"},
    {"network": "ms-svf-r2net"},
]


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda s: "-".join(map(str, s.values())))
def test_the_last_state_is_the_networks_displacement(settings):
    model = model_of(**settings)
    network = build_network(model.network, (18, 22))
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:
        weight.assign(rng.normal(0, 0.3, weight.shape).astype("float32"))
    inputs = [rng.normal(0, 1, (1, *tensor.shape[1:])).astype("float32") for tensor in network.inputs]
    expected = np.asarray(network.predict_on_batch(inputs)["displacement"])
    assert np.abs(expected).max() > 0.1
    stages = network_states(model, network, inputs)
    residual = model.network.integrator == "residual"
    blocks = model.network.blocks
    assert {name: len(states) for name, states in stages.items()} == (
        {"network": blocks + 2, "blocks": blocks + 1} if residual else {"network": blocks + 1}
    )
    for states in stages.values():
        np.testing.assert_allclose(ops.convert_to_numpy(states[-1]), expected, atol=1e-4)  # float32, other graphs
    assert not ops.convert_to_numpy(stages["network"][0]).any()
    middle = ops.convert_to_numpy(stages["network"][-2])
    assert np.abs(middle - expected).max() > 1e-3 or blocks == 1  # and it was on its way before


def test_only_what_moves_is_measured():
    points = identity_points((4, 5)).reshape(-1, 2)
    still = np.zeros((3, 20, 2), np.float32)
    found, scores = measured(still, points)
    assert found["voxels"] == 0
    assert np.isnan([found["lss_mean"], found["lsr_p95"], found["ots"]]).all()
    assert not scores.any()
    moving = still.copy()
    moving[1, 7], moving[2, 7] = (3, 0), (3, 4)
    moving[1:, 3] = 0.9 * MOVED / np.sqrt(2)
    moving[1, 4] = (5, 5)  # and back again: its ends tell of no way
    found, scores = measured(moving, points)
    assert found["voxels"] == 1
    np.testing.assert_allclose([found["lss_mean"], found["lsr_mean"]], [np.sqrt(2), 7 / 5])
    assert np.flatnonzero(scores).tolist() == [7]


def test_the_map_lies_where_the_voxels_are():
    where = np.zeros((4, 5), bool)
    where[1, 2] = where[3, 4] = True
    states = np.array([[[0, 0], [0, 0]], [[1, 0], [1, 0]], [[2, 0], [1, 1]]], np.float32)
    rows, maps = score_pair(Tracks(Grid((4, 5), np.eye(3)), np.zeros((4, 5)), where, {"network": states}))
    assert rows["network"]["steps"] == 2
    assert maps["network"][1, 2] == pytest.approx(1)
    assert maps["network"][3, 4] == pytest.approx(np.sqrt(2))
    assert np.count_nonzero(maps["network"]) == 2


def test_foreground():
    image = np.zeros((4, 4))
    image[1:3, 1:3] = 1
    assert foreground(image).sum() == 4
    assert foreground(image, image < 1).sum() == 12
    assert foreground(np.ones((4, 4))).all()


@pytest.fixture
def trained(tmp_path):
    """A run folder of a network that moves voxels, with one validation pair in its cache."""
    config = NetworkConfig(**SMALL, network="nsvf-r2net", spacing=(4.0, 4.0, 4.0))
    shape = (12, 16, 12)
    network = build_network(config, shape)
    rng = np.random.default_rng(1)
    for weight in network.trainable_variables:
        weight.assign(rng.normal(0, 0.2, weight.shape).astype("float32"))
    run = tmp_path / "run"
    (run / "cache").mkdir(parents=True)
    for name in ("a", "b"):
        np.save(run / "cache" / f"{name}.npy", rng.random(shape, np.float32))
    pair = {
        role: {"image": f"{name}.npy", "labels": None, "mask": None} for role, name in (("moving", "a"), ("fixed", "b"))
    }
    training = {key: value for key, value in TrainConfig(model=config).to_dict().items() if key != "model"}
    details = {
        "training": training,
        "data": {"validation": [pair, pair], "shape": shape, "spacing": config.spacing, "labels": []},
    }
    save_model(run, network, config, details)
    return run


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tracks_of_the_validation_pairs(trained, tmp_path):
    out = tmp_path / "new" / "out"
    found = inspect_tracks(trained, folder=out)
    assert found["pairs"] == 2
    rows = table(out / "tracks.csv")
    assert [(row["stage"], row["steps"]) for row in rows] == [("network", "4"), ("blocks", "3")]
    assert float(rows[0]["lss_mean"]) == pytest.approx(found["stages"]["network"]["lss_mean"], rel=1e-5)
    assert {path.name for path in out.iterdir()} == {"tracks.csv", "lss.nii.gz", "figures"}
    image = nibabel.load(out / "lss.nii.gz")
    np.testing.assert_allclose(image.affine, np.diag([4, 4, 4, 1]))
    assert image.shape == (12, 16, 12)
    assert (out / "figures" / "lss.png").stat().st_size > 5000
    assert len(track_lines(found)) == 4


@pytest.mark.slow
def test_tracks_of_a_pair(trained, pairs, tmp_path):
    """On an oblique grid, through the network and a few steps of refinement after it."""
    moving, fixed = (pairs.parent / f"image{k}.nii.gz" for k in (0, 1))
    config, out = RegisterConfig(init="none", refine="fast", similarity="mse"), tmp_path / "out"
    found = inspect_tracks(trained, (moving, fixed), config, out)
    assert found["pairs"] == 1
    rows = table(out / "tracks.csv")
    assert [row["stage"] for row in rows] == ["network", "blocks", "refinement"]
    assert 10 < int(rows[2]["steps"]) <= 46  # of `fast`
    for name in ("lss.nii.gz", "lss_refinement.nii.gz"):
        image = nibabel.load(out / name)
        model = SavedModel(trained, NetworkConfig(**SMALL, spacing=(4.0, 4.0, 4.0)), {})
        grid = network_grid(model, read_image(fixed).grid)
        assert image.shape == grid.shape
        np.testing.assert_allclose(image.affine, grid.affine, atol=1e-4)  # float32 of the header
        values = np.asarray(image.dataobj)
        assert values[values > 0].min() >= 1 - 1e-6  # float32
        # Fixed's outer ellipsoid is brighter than the mean, and nothing else is.
        assert 0.02 < (values > 0).mean() < 0.5
    with pytest.raises(OutputError, match=r"holds tracks\.csv; give --overwrite"):
        inspect_tracks(trained, (moving, fixed), config, out)
    inspect_tracks(trained, (moving, fixed), RegisterConfig(init="none", refine="none"), out, overwrite=True)
    assert [row["stage"] for row in table(out / "tracks.csv")] == ["network", "blocks"]
    assert not (out / "lss_refinement.nii.gz").exists()


def test_the_refinement_ends_where_it_is_said_to(trained, pairs):
    """The last state is the warp that the refinement gives back, on the network's grid."""
    from r2reg.flow.warp import compose
    from r2reg.networks.saving import load_model
    from r2reg.registration import refinement
    from r2reg.registration.deformation import terms
    from r2reg.registration.network import Estimator
    from r2reg.registration.pair import read_pair
    from r2reg.registration.pipeline import align_pair

    config, model = RegisterConfig(init="none", similarity="mse"), load_model(trained)
    aligned = align_pair(read_pair(*(pairs.parent / f"image{k}.nii.gz" for k in (0, 1))), config)
    images = aligned.images_on(network_grid(model, aligned.pair.fixed.grid))
    start = Estimator(model, images.grid)(images)
    full, levels = aligned.pair.fixed.grid.canonical(), (refinement.Level(2, 3), refinement.Level(1, 4))
    seen = []
    found = refinement.refine(terms([aligned], config), full, levels, start, observe=seen.append)
    assert [step.grid.shape for step in seen] == [refinement.level_grid(full, 2).shape] * 3 + [full.shape] * 4
    last = compose(start.on(found.grid).phi.displacement, seen[-1].on(found.grid).phi.displacement)
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (last, found.phi.displacement)), atol=1e-5)  # float32


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"network": "vm-diff"}, "integrates at half size"), ({"network": "affine-cpab"}, "has no blocks")],
)
def test_what_has_no_tracks(settings, words):
    with pytest.raises(ModelError, match=words) as error:
        check_followed(model_of(**settings))
    assert "\n" not in str(error.value)


def test_errors_are_one_line(trained, tmp_path):
    with pytest.raises(R2RegError, match="no such file") as error:
        inspect_tracks(trained, (tmp_path / "none.nii.gz", tmp_path / "none.nii.gz"))
    assert "\n" not in str(error.value)
    (trained / "cache" / "a.npy").unlink()
    with pytest.raises(TrainingError, match="images that it was validated on are gone; give --moving and --fixed"):
        inspect_tracks(trained, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tracks", "--moving", "a.nii.gz"], "give both --moving and --fixed"),
        (["-o", "out"], "belong to --tracks"),
        (["--tracks", "--refine", "fast"], "--refine and --init register a pair"),
    ],
)
def test_options_that_do_not_fit(arguments, words):
    done = CliRunner().invoke(inspect, ["model", *arguments])
    assert done.exit_code == 2
    assert words in done.output
