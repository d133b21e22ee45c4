"""`r2reg register` as a user calls it: outputs, and one clear line for bad input."""

import gzip
import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from r2reg.geometry.transforms import map_points
from r2reg.io.images import read_reference
from r2reg.io.transforms import read_transform_list, read_transforms

FAST = ["--init", "none", "--refine", "none", "--transform", "affine", "-q"]


def run(*arguments, **environment):
    """r2reg in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "r2reg.cli", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def pair(tmp_path, write_nifti):
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("moving", "fixed"):
        write_nifti(folder / f"{name}.nii.gz", rng.uniform(size=(12, 13, 14)).astype("float32"))
    return folder


def fails(process, *words):
    """Exit code 1 and one line on stderr that holds the words."""
    assert process.returncode == 1, process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1, process.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_json_equals_the_file(pair, tmp_path):
    out = tmp_path / "out"
    process = run("register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", out, "--json", *FAST)
    assert process.returncode == 0, process.stderr
    printed = json.loads(process.stdout)
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert printed["similarity"] == written["similarity"]
    assert sorted(path.name for path in out.iterdir()) == [
        "affine.mat",
        "forward.h5",
        "inverse.h5",
        "inverse_warp.nii.gz",
        "jacobian.nii.gz",
        "metrics.json",
        "moved.nii.gz",
        "report.html",
        "warp.nii.gz",
    ]


def test_a_doubtful_result_is_said(pair, tmp_path):
    """Two images of noise: the file and standard error tell what the page tells."""
    out = tmp_path / "out"
    process = run("register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", out, *FAST[:-1])
    assert process.returncode == 0, process.stderr
    assert "look here: The images are still little alike" in process.stderr
    verdict = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["verdict"]
    assert verdict["level"] == "look here"
    assert any("still little alike" in reason for reason in verdict["reasons"])


def test_every_format_says_the_same(pair, tmp_path):
    out, images = tmp_path / "out", (pair / "moving.nii.gz", pair / "fixed.nii.gz")
    process = run("register", *images, "-o", out, "--formats", "itk,h5,x5,fsl", *FAST)
    assert process.returncode == 0, process.stderr
    moving, fixed = (read_reference(path).grid for path in images)
    points = np.random.default_rng(0).uniform(0.2, 0.8, (50, 3)) * (np.array(fixed.shape) - 1)
    ras = fixed.index_to_ras(np.rint(points))
    expected = map_points(read_transform_list([str(out / "warp.nii.gz"), str(out / "affine.mat")]), ras)
    for name in ("forward.h5", "forward.x5", "forward_fsl.nii.gz"):
        found = map_points(read_transforms(out / name, fixed=fixed, moving=moving), ras)
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=name)
    lists = [f"[{out / 'affine.mat'},1]", str(out / "inverse_warp.nii.gz")]
    ras = moving.index_to_ras(np.rint(points * (np.array(moving.shape) - 1) / (np.array(fixed.shape) - 1)))
    expected = map_points(read_transform_list(lists), ras)
    for name in ("inverse.h5", "inverse.x5", "inverse_fsl.nii.gz"):
        found = map_points(read_transforms(out / name, fixed=moving, moving=fixed), ras)
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=name)
    refused = run("register", *images, "-o", tmp_path / "no", "--formats", "itk,spm", *FAST)
    fails(refused, "formats", "spm")


def test_affine_only_needs_no_backend(pair, tmp_path):
    code = (
        "import sys; from r2reg.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'keras' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    arguments = ["register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", tmp_path / "out", *FAST]
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, encoding="utf-8", check=False
    )
    assert process.returncode == 0, process.stderr


def truncated(path, write_nifti):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def four_dimensional(path, write_nifti):
    write_nifti(path, np.random.default_rng(0).uniform(size=(6, 6, 6, 4)).astype("float32"))


def with_nan(path, write_nifti):
    array = np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32")
    array[2, 3, 4] = np.nan
    write_nifti(path, array)


def constant(path, write_nifti):
    write_nifti(path, np.full((8, 8, 8), 7, "float32"))


def zero_affine(path, write_nifti):
    image = nibabel.load(path)
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = 0, 0, 0
    raw = bytearray(image.header.binaryblock)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[: len(raw)] = raw
    path.write_bytes(gzip.compress(bytes(content)))


def nan_affine(path, write_nifti):
    image = nibabel.load(path)
    image.header["srow_x"] = np.nan
    raw = bytearray(image.header.binaryblock)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[: len(raw)] = raw
    path.write_bytes(gzip.compress(bytes(content)))


def colours(path, write_nifti):
    array = np.zeros((6, 6, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path, _: path.unlink(), ["no such file"]),
        (truncated, ["truncated"]),
        (four_dimensional, ["4", "dimension"]),
        (with_nan, ["NaN"]),
        (constant, ["7"]),
        (zero_affine, ["singular"]),
        (nan_affine, ["NaN"]),
        (colours, ["colour"]),
    ],
    ids=["missing", "truncated", "4-D", "NaN", "constant", "zero-affine", "nan-affine", "rgb"],
)
def test_bad_images(pair, tmp_path, write_nifti, spoil, words, left_only_a_report):
    spoil(pair / "moving.nii.gz", write_nifti)
    process = run("register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", tmp_path / "out", *FAST)
    fails(process, "moving.nii.gz", *words)
    left_only_a_report(tmp_path / "out")


def test_labels_that_are_not_whole(pair, tmp_path, left_only_a_report):
    inputs = [pair / "moving.nii.gz", pair / "fixed.nii.gz"]
    process = run("register", *inputs, "-o", tmp_path / "out", "--moving-labels", inputs[0], *FAST)
    fails(process, "moving.nii.gz", "whole")
    left_only_a_report(tmp_path / "out")


def test_no_overlap(pair, tmp_path, write_nifti, left_only_a_report):
    far = np.eye(4)
    far[:3, 3] = 900
    write_nifti(pair / "moving.nii.gz", np.random.default_rng(0).uniform(size=(8, 8, 8)).astype("float32"), far)
    process = run("register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", tmp_path / "out", *FAST)
    fails(process, "overlap", "--init com")
    left_only_a_report(tmp_path / "out")


def test_existing_result_and_unusable_folders(pair, tmp_path):
    inputs = [pair / "moving.nii.gz", pair / "fixed.nii.gz"]
    out = tmp_path / "out"
    assert run("register", *inputs, "-o", out, *FAST).returncode == 0
    fails(run("register", *inputs, "-o", out, *FAST), "--overwrite")
    assert run("register", *inputs, "-o", out, "--overwrite", *FAST).returncode == 0
    fails(run("register", *inputs, "-o", pair / "fixed.nii.gz" / "out", *FAST), "cannot be written")


def test_full_disk_leaves_nothing(pair, tmp_path):
    """A limit on file sizes stands in for a full disk: writing the field fails half way."""
    code = (
        "import resource, signal, sys; from r2reg.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); main(sys.argv[1:])"
    )
    out = tmp_path / "out"
    arguments = ["register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", out, *FAST]
    process = subprocess.run(
        [sys.executable, "-B", "-c", code, *map(str, arguments)], capture_output=True, encoding="utf-8", check=False
    )
    fails(process, f"{out}/", "cannot be written")
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(pair, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    fails(run("register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", locked, *FAST), "cannot be written")


def test_usage_errors_exit_with_2(pair, tmp_path):
    inputs = [pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", tmp_path / "out"]
    assert run("register", *inputs, "--refine", "fastest").returncode == 2
    assert run("register", *inputs, "--similarity", "ssd").returncode == 2
    assert run("register", inputs[0]).returncode == 2
    fails(run("register", *inputs, "--init", "sideways"), "sideways", "affine")


def test_dry_run_writes_nothing(pair, tmp_path):
    process = run("register", pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", tmp_path / "out", "--dry-run")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["fixed"]["shape"] == [12, 13, 14]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_model_of_another_dimension_and_corrupt_weights(pair, tmp_path, left_only_a_report):
    from r2reg.config import NetworkConfig
    from r2reg.networks.build import build_network
    from r2reg.networks.saving import save_model

    small = {"encoder": (4, 4), "decoder": (4, 4, 4, 4, 3), "up_filters": 2}
    config = NetworkConfig(ndim=2, spacing=(1.0, 1.0), **small)
    model = tmp_path / "model"
    save_model(model, build_network(config, (16, 16)), config, {})
    inputs = [pair / "moving.nii.gz", pair / "fixed.nii.gz", "-o", tmp_path / "out", "--model", model]
    common = ["--init", "none", "--refine", "none", "-q"]
    fails(run("register", *inputs, *common), "2-D", "3-D")
    config = NetworkConfig(spacing=(1.0, 1.0, 1.0), **small)
    save_model(model, build_network(config, (16, 16, 16)), config, {})
    weights = model / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-3000])
    fails(run("register", *inputs, *common), "model.weights.h5", "corrupt")
    left_only_a_report(tmp_path / "out")
