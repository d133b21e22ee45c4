"""Registering the phantom pair: it gets better, and the files say the same as the result."""

import json
import subprocess
import sys

import numpy as np
import pytest

from r2reg.config import NetworkConfig, RegisterConfig
from r2reg.errors import ConfigError, ModelError, OutputError, RegistrationError
from r2reg.geometry.transforms import map_points
from r2reg.io.images import read_image, read_labels
from r2reg.io.points import read_points
from r2reg.io.transforms import read_affine, read_transforms
from r2reg.registration.pair import OPTIONAL, read_pair
from r2reg.registration.pipeline import register
from r2reg.registration.run import plan, register_files
from r2reg.resampling import resample


def optional(files):
    return {name: getattr(files, name) for name in OPTIONAL}


@pytest.fixture(scope="session")
def registered(phantom_pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    config = RegisterConfig(refine=10)
    metrics = register_files(phantom_pair.moving, phantom_pair.fixed, folder, config, optional=optional(phantom_pair))
    return folder, metrics


def test_every_score_improves(registered):
    _, metrics = registered
    assert metrics["hd95_mm"]["after"]["mean"] < metrics["hd95_mm"]["before"]["mean"]
    for kind, better in (("dice", 1), ("tre_mm", -1)):
        before, affine, after = (metrics[kind][stage]["mean"] for stage in ("before", "affine", "after"))
        assert better * (affine - before) > 0, kind
        assert better * (after - affine) > 0, kind
    assert metrics["similarity"]["after"]["lncc"] > metrics["similarity"]["affine"]["lncc"]
    assert metrics["deformation"]["folds"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what other systems count is their own")
def test_peak_memory_is_not_that_of_the_parent_process():
    large = np.ones(10**8)
    code = "from r2reg.registration.pipeline import peak_memory_bytes; print(peak_memory_bytes())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 1e7 < int(told.stdout) < large.nbytes


def test_metrics_file_has_the_promised_keys(registered):
    folder, _ = registered
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert {"mse", "ncc", "lncc"} == set(metrics["similarity"]["before"])
    assert {"mean", "per_label"} == set(metrics["dice"]["after"])
    assert {"mean", "median", "max"} == set(metrics["tre_mm"]["after"])
    promised = {
        "folds",
        "ndv_percent",
        "digital_folds",
        "jacobian_min",
        "jacobian_max",
        "sdlogj",
        "certified",
        "certificate",
    }
    assert promised | {"inverse_residual_mm"} == set(metrics["deformation"])
    assert {"mean", "p99", "max"} == set(metrics["deformation"]["inverse_residual_mm"])
    assert {"load", "affine", "network", "refine", "write", "total"} <= set(metrics["seconds"])
    assert metrics["seconds"]["total"] >= sum(metrics["seconds"][k] for k in ("load", "affine", "refine", "write"))
    assert len(metrics["inputs"]) == 8
    named = (
        "peak_memory_bytes",
        "model",
        "backend",
        "device",
        "threads",
        "versions",
        "seed",
        "schema_version",
    )
    for key in (*named, "command"):
        assert key in metrics
    assert set(metrics["verdict"]) == {"level", "reasons"}
    assert any("Better: mean Dice" in reason for reason in metrics["verdict"]["reasons"])


def test_files_reproduce_moved(registered, phantom_pair):
    folder, _ = registered
    transforms = [*read_transforms(folder / "warp.nii.gz"), read_affine(folder / "affine.mat")]
    fixed, moving = read_image(phantom_pair.fixed), read_image(phantom_pair.moving)
    moved = read_image(folder / "moved.nii.gz")
    again = resample(moving, fixed.grid, transforms)
    np.testing.assert_allclose(again, moved.array, atol=1e-3 * np.ptp(moving.array))  # the contract's bound
    assert moved.grid == fixed.grid
    labels = read_labels(folder / "moved_labels.nii.gz")
    assert labels.array.dtype == read_labels(phantom_pair.moving_labels).array.dtype
    points = read_points(folder / "moved_points.csv", 3)
    mapped = map_points(transforms, read_points(phantom_pair.fixed_points, 3).ras)
    np.testing.assert_allclose(points.ras, mapped, atol=1e-3)  # float32 field, printed decimals


def test_inverse_brings_points_back(registered, phantom_pair):
    folder, _ = registered
    forward = [*read_transforms(folder / "warp.nii.gz"), read_affine(folder / "affine.mat")]
    backward = [
        read_affine(folder / "affine.mat").inverse(),
        *read_transforms(folder / "inverse_warp.nii.gz"),
    ]
    points = read_points(phantom_pair.fixed_points, 3).ras
    back = map_points(backward, map_points(forward, points))
    assert np.percentile(np.linalg.norm(back - points, axis=1), 99) < 0.1 * 5  # a tenth of a 5 mm voxel


def test_jacobian_is_of_the_whole_map(registered, phantom_pair):
    """Against central differences of the mapped points of one voxel's neighbours, in mm."""
    folder, _ = registered
    transforms = [*read_transforms(folder / "warp.nii.gz"), read_affine(folder / "affine.mat")]
    grid = read_image(phantom_pair.fixed).grid
    center = np.array([16.0, 15.0, 17.0])
    columns = []
    for axis in np.eye(3):
        ends = grid.index_to_ras(np.array([center + axis, center - axis]))
        upper, lower = map_points(transforms, ends)
        columns.append((upper - lower) / 2)
    expected = np.linalg.det(np.array(columns).T) / np.linalg.det(grid.affine[:3, :3])
    jacobian = read_image(folder / "jacobian.nii.gz").array
    assert jacobian[16, 15, 17] == pytest.approx(expected, rel=1e-3)  # float32 field


def test_a_finished_result_is_not_overwritten_unasked(registered, phantom_pair):
    folder, _ = registered
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(OutputError, match="--overwrite"):
        register_files(phantom_pair.moving, phantom_pair.fixed, folder, RegisterConfig(refine="none"))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_overwriting_leaves_nothing_of_the_old_result(phantom_pair, tmp_path):
    affine_only = RegisterConfig(transform="affine", init="com")
    files = phantom_pair
    register_files(files.moving, files.fixed, tmp_path, affine_only, optional=optional(files))
    assert (tmp_path / "moved_labels.nii.gz").exists()
    register_files(files.moving, files.fixed, tmp_path, affine_only, overwrite=True)
    assert not (tmp_path / "moved_labels.nii.gz").exists()
    assert not list(tmp_path.glob(".*"))


def test_init_from_file_is_used_as_it_is(phantom_pair, tmp_path):
    config = RegisterConfig(init=str(phantom_pair.true_affine), transform="affine")
    register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", config)
    given, written = read_affine(phantom_pair.true_affine), read_affine(tmp_path / "out" / "affine.mat")
    np.testing.assert_allclose(written.matrix, given.matrix, atol=1e-9)


@pytest.mark.parametrize("integrator", ["flow", "residual"])
def test_network_stage(phantom_pair, tmp_path, integrator):
    """An untrained network is close to the identity; `flow` is certified, `residual` has no bound."""
    from r2reg.networks.build import build_network
    from r2reg.networks.saving import save_model

    small = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2, "spacing": (6.0,) * 3}
    config = NetworkConfig(integrator=integrator, **small)
    save_model(tmp_path / "model", build_network(config, (16, 16, 16)), config, {})
    metrics = register_files(
        phantom_pair.moving,
        phantom_pair.fixed,
        tmp_path / "out",
        RegisterConfig(model=str(tmp_path / "model"), refine="none", init="com"),
    )
    assert metrics["deformation"]["certified"] is (integrator == "flow")
    assert metrics["model"]["name"] == "model"
    assert len(metrics["model"]["sha256"]) == 64
    assert metrics["seconds"]["network"] > 0


def test_two_dimensional_images(tmp_path, write_nifti):
    from scipy.ndimage import gaussian_filter, shift

    image = gaussian_filter(np.random.default_rng(0).normal(size=(48, 40)), 3).astype("float32")
    write_nifti(tmp_path / "fixed.nii.gz", image)
    write_nifti(tmp_path / "moving.nii.gz", shift(image, (2.0, -1.0), mode="nearest").astype("float32"))
    config = RegisterConfig(init="none", refine=10)
    metrics = register_files(tmp_path / "moving.nii.gz", tmp_path / "fixed.nii.gz", tmp_path / "out", config)
    assert metrics["similarity"]["after"]["lncc"] > metrics["similarity"]["before"]["lncc"] + 0.2
    assert read_image(tmp_path / "out" / "moved.nii.gz").array.shape == (48, 40)


def test_plan_of_a_fit(phantom_pair, tmp_path):
    config = RegisterConfig(transform="affine-cpab")
    planned = plan(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", config)
    assert [stage["stage"] for stage in planned["stages"]][:2] == ["affine", "fit"]
    assert {stage["stage"] for stage in planned["stages"]} == {"affine", "fit"}


def test_plan(phantom_pair, tmp_path):
    planned = plan(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", RegisterConfig())
    assert not (tmp_path / "out").exists()
    assert planned["fixed"]["shape"] == [32, 32, 32]
    assert [stage["stage"] for stage in planned["stages"]] == ["affine", "refine", "refine", "refine"]
    assert planned["estimated_memory_bytes"] > 0


def test_wrong_pairs_are_named(phantom_pair, tmp_path, write_nifti, left_only_a_report):
    write_nifti(tmp_path / "flat.nii.gz", np.random.default_rng(0).uniform(size=(8, 8)).astype("float32"))
    with pytest.raises(RegistrationError, match="one dimension"):
        read_pair(tmp_path / "flat.nii.gz", phantom_pair.fixed)
    far = np.eye(4)
    far[:3, 3] = 5000
    write_nifti(tmp_path / "far.nii.gz", np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32"), far)
    config = RegisterConfig(init="none", refine="none")
    with pytest.raises(RegistrationError, match="--init com"):
        register_files(tmp_path / "far.nii.gz", phantom_pair.fixed, tmp_path / "out", config)
    left_only_a_report(tmp_path / "out")


def test_settings_name_what_is_wrong(phantom_pair, tmp_path, left_only_a_report):
    moving, fixed, out = phantom_pair.moving, phantom_pair.fixed, tmp_path / "out"
    with pytest.raises(ConfigError, match="no such file"):
        register_files(moving, fixed, out, RegisterConfig(init="absent.mat"))
    with pytest.raises(ModelError, match="is neither a folder nor a model that ships"):
        register_files(moving, fixed, out, RegisterConfig(model=str(tmp_path / "absent"), init="com"))
    left_only_a_report(tmp_path / "out")
    with pytest.raises(ConfigError, match="clip"):
        RegisterConfig(clip=(1.0, 0.0))
    with pytest.raises(ConfigError, match="refine"):
        RegisterConfig(refine="fastest")
    with pytest.raises(ConfigError, match="seed"):
        RegisterConfig(seed=2**40)
    with pytest.raises(ConfigError, match="fill"):
        RegisterConfig(fill=float("nan"))
    with pytest.raises(ConfigError, match="gpu:K"):
        RegisterConfig(device="gpu:first")


def test_a_strangers_file_is_not_replaced_unasked(phantom_pair, tmp_path):
    (tmp_path / "affine.mat").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"affine\.mat"):
        register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path, RegisterConfig(transform="affine"))
    assert (tmp_path / "affine.mat").read_text(encoding="utf-8") == "mine"


def test_thin_images_refine(tmp_path, write_nifti):
    """8 slices: the coarse levels keep them, and too few are refused in words."""
    rng = np.random.default_rng(0)
    for count in (8, 2):
        for name in ("moving", "fixed"):
            image = rng.uniform(size=(24, 24, count)).astype("float32")
            write_nifti(tmp_path / f"{name}{count}.nii.gz", image)
    config = RegisterConfig(init="none", refine=1)
    register_files(tmp_path / "moving8.nii.gz", tmp_path / "fixed8.nii.gz", tmp_path / "out8", config)
    with pytest.raises(RegistrationError, match=r"fixed2.nii.gz: has 24 x 24 x 2 voxels.*--refine none"):
        register_files(tmp_path / "moving2.nii.gz", tmp_path / "fixed2.nii.gz", tmp_path / "out2", config)
    with pytest.raises(RegistrationError, match="--refine none"):
        plan(tmp_path / "moving2.nii.gz", tmp_path / "fixed2.nii.gz", tmp_path / "out2", config)


def test_the_backends_start_fails_as_itself(phantom_pair):
    def start():
        raise ConfigError("--device gpu: none")

    with pytest.raises(ConfigError, match="--device gpu"):
        register(read_pair(phantom_pair.moving, phantom_pair.fixed), RegisterConfig(refine="none"), start=start)


def test_stages_add_up(registered):
    """The backend starts while the affine is searched for; its seconds count once."""
    _, metrics = registered
    seconds = dict(metrics["seconds"])
    total = seconds.pop("total")
    assert 0.8 * total <= sum(seconds.values()) <= total
