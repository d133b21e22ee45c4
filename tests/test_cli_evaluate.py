"""r2reg evaluate: the scores of a registration's folder, and of what is given alone."""

import json

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.main import main
from r2reg.geometry.transforms import Affine
from r2reg.io.transforms import write_affine

AFFINE = np.diag([2.0, 1.0, 1.5, 1.0])


def call(*words, code=0):
    done = CliRunner().invoke(main, ["evaluate", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def files(tmp_path):
    """Two blocks, one voxel apart along the first axis: 2 mm."""
    fixed = np.zeros((12, 12, 12), np.uint8)
    fixed[3:8, 3:8, 3:8] = 4
    moving = np.roll(fixed, 1, 0)
    for name, array in (("fixed", fixed), ("moving", moving)):
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / f"{name}_labels.nii.gz")
        nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), AFFINE), tmp_path / f"{name}.nii.gz")
    (tmp_path / "fixed.csv").write_text("x,y,z\n0,0,0\n1,1,1\n2,2,2\n", encoding="utf-8")
    (tmp_path / "moving.csv").write_text("x,y,z\n-2,0,0\n-1,1,1\n0,2,5\n", encoding="utf-8")
    matrix = np.eye(4)
    matrix[0, 3] = 2
    write_affine(tmp_path / "shift.mat", Affine(matrix))
    return tmp_path


def test_as_it_lies(files):
    found = json.loads(
        call(
            "--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", files / "moving_labels.nii.gz", "--json"
        )
    )
    assert found["dice"] == {"mean": pytest.approx(0.8), "per_label": {"4": pytest.approx(0.8)}}
    assert found["hd95_mm"]["mean"] == pytest.approx(2.0)
    # By hand: 2, 2 and sqrt(4 + 9) mm.
    found = json.loads(call("--fixed-points", files / "fixed.csv", "--moving-points", files / "moving.csv", "--json"))
    assert found["tre_mm"]["mean"] == pytest.approx((4 + 13**0.5) / 3)
    assert found["tre_mm"]["max"] == pytest.approx(13**0.5)


def test_after_a_transform(files):
    words = ["-t", files / "shift.mat", "--fixed", files / "fixed.nii.gz", "--moving", files / "moving.nii.gz"]
    words += ["--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", files / "moving_labels.nii.gz"]
    words += ["--fixed-points", files / "fixed.csv", "--moving-points", files / "moving.csv"]
    found = json.loads(call(*words, "--json"))
    assert found["dice"]["mean"] == 1
    assert found["mse"] == pytest.approx(0, abs=1e-9)
    assert found["tre_mm"]["median"] == pytest.approx(0, abs=1e-9)
    assert "folds" not in found
    told = call(*words)
    assert "mean Dice" in told
    assert "1.0000" in told


def test_of_a_field_alone(files):
    from r2reg.geometry.grid import Grid
    from r2reg.geometry.transforms import Displacement
    from r2reg.io.fields import write_displacement

    vectors = np.zeros((6, 6, 6, 3), np.float32)
    vectors[3, 3, 3, 0] = 4
    write_displacement(files / "w.nii.gz", Displacement(Grid((6, 6, 6), np.eye(4)), vectors))
    found = json.loads(call("-t", files / "w.nii.gz", "--json"))
    assert found["folds"] > 0
    assert found["jacobian_min"] < 0


def test_maps_lie_where_their_headers_say(files):
    labels = nibabel.load(files / "fixed_labels.nii.gz")
    away = AFFINE.copy()
    away[0, 3] = 8
    nibabel.save(nibabel.Nifti1Image(np.asarray(labels.dataobj), away), files / "away.nii.gz")
    same = ("--fixed-labels", files / "away.nii.gz", "--moving-labels", files / "away.nii.gz", "--json")
    images = ("--fixed", files / "fixed.nii.gz", "--moving", files / "moving.nii.gz")
    assert json.loads(call(*images, *same))["dice"]["mean"] == 1
    # A mask on another grid is carried onto the images' and the field's.
    plain, masked = (
        json.loads(call(*images, *more, "--json")) for more in ((), ("--fixed-mask", files / "away.nii.gz"))
    )
    assert plain["mse"] != masked["mse"]
    away[0, 3] = 800
    nibabel.save(nibabel.Nifti1Image(np.asarray(labels.dataobj), away), files / "far.nii.gz")
    assert "does not overlap" in call(*images, "--fixed-mask", files / "far.nii.gz", code=1)


def test_points_in_a_plane(tmp_path):
    for name, shift in (("a", 0), ("b", 3)):
        (tmp_path / f"{name}.csv").write_text(f"x,y\n{shift},0\n{1 + shift},1\n", encoding="utf-8")
    words = ("--fixed-points", tmp_path / "a.csv", "--moving-points", tmp_path / "b.csv", "--json")
    assert json.loads(call(*words))["tre_mm"]["mean"] == pytest.approx(3)


def test_what_cannot_be_scored(files):
    assert "nothing to score: an affine needs" in call("-t", files / "shift.mat", code=2)
    maps = ("--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", files / "moving_labels.nii.gz")
    assert "none of those asked for is there" in call(*maps, "--labels", "99")
    assert "nothing to score" in call(code=2)
    assert "--fixed-labels and --moving-labels go together" in call("--fixed-labels", files / "fixed.csv", code=2)
    assert "no such file" in call("-t", files / "none.mat", code=1)
    words = ("--fixed-points", files / "fixed.csv", "--moving-points", files / "two.csv")
    (files / "two.csv").write_text("x,y,z\n0,0,0\n1,1,1\n", encoding="utf-8")
    assert "points" in call(*words, code=1)


def test_it_starts_no_backend():
    import subprocess
    import sys

    code = "import sys; import r2reg.cli.evaluate, r2reg.evaluation.scoring; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
