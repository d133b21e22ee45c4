"""A registration as BIDS derivatives: what lies where, and that a failure and a second run touch nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from r2reg.config import RegisterConfig
from r2reg.errors import ConfigError, OutputError
from r2reg.geometry.transforms import map_points
from r2reg.io.transforms import read_transforms
from r2reg.registration.run import plan, register_files

CONFIG = RegisterConfig(transform="affine", init="com")


@pytest.fixture
def inputs(phantom_pair, tmp_path):
    """moving and fixed under BIDS names, moving in a data set."""
    moving, fixed = tmp_path / "raw" / "sub-01" / "anat" / "sub-01_T1w.nii.gz", tmp_path / "tpl-Atlas_T1w.nii.gz"
    moving.parent.mkdir(parents=True)
    (tmp_path / "raw" / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.9.0"}')
    shutil.copy(phantom_pair.moving, moving)
    shutil.copy(phantom_pair.fixed, fixed)
    return moving, fixed


def test_a_data_set(inputs, phantom_pair, tmp_path):
    optional = {"moving_labels": phantom_pair.moving_labels}
    register_files(*inputs, tmp_path / "out", CONFIG, optional=optional, bids=True)
    found = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    forward, inverse = (
        f"sub-01/anat/sub-01_from-{a}_to-{b}_mode-image_xfm" for a, b in (("T1w", "Atlas"), ("Atlas", "T1w"))
    )
    image = "sub-01/anat/sub-01_space-Atlas_desc"
    assert found == sorted(
        [
            "README", ".bidsignore", "dataset_description.json", f"{forward}.h5", f"{forward}.json", f"{forward}.html",
            f"{inverse}.h5", f"{inverse}.json", f"{image}-moved_T1w.nii.gz", f"{image}-moved_T1w.json",
            f"{image}-moved_dseg.nii.gz", f"{image}-moved_dseg.json", f"{image}-jacobian_T1w.nii.gz",
            f"{image}-jacobian_T1w.json",
        ]
    )  # fmt: skip
    described = json.loads((tmp_path / "out" / "dataset_description.json").read_text(encoding="utf-8"))
    assert described["DatasetType"] == "derivative"
    sidecar = json.loads((tmp_path / "out" / f"{forward}.json").read_text(encoding="utf-8"))
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz", "tpl-Atlas_T1w.nii.gz"]
    assert described["DatasetLinks"] == {"raw": (tmp_path / "raw").as_uri()}
    assert sidecar["similarity"]["after"]["lncc"] > 0
    validator = Path(sys.executable).parent / "bids-validator-deno"
    checked = subprocess.run(
        [validator, tmp_path / "out", "--json"], capture_output=True, encoding="utf-8", check=False
    )
    issues = json.loads(checked.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    there, back = (read_transforms(tmp_path / "out" / f"{name}.h5") for name in (forward, inverse))
    points = np.array([[3.0, -20.0, 11.0], [0.0, 0.0, 0.0]])
    # The files hold float32: a few 1e-6 of 100 mm.
    assert np.allclose(map_points(back, map_points(there, points)), points, atol=1e-3)


def test_a_second_run_and_a_failure(inputs, tmp_path):
    moving, fixed = inputs
    register_files(moving, fixed, tmp_path / "out", CONFIG, bids=True, report=False)
    with pytest.raises(OutputError, match="--overwrite"):
        register_files(moving, fixed, tmp_path / "out", CONFIG, bids=True)
    with pytest.raises(OutputError, match="--overwrite"):
        plan(moving, fixed, tmp_path / "out", CONFIG, bids=True)
    other = tmp_path / "sub-02_T1w.nii.gz"
    other.write_bytes(fixed.read_bytes())
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="--guide labels needs"):
        register_files(
            other, fixed, tmp_path / "out", RegisterConfig(transform="affine", init="com", guide=("labels",)), bids=True
        )
    left = set((tmp_path / "out").rglob("*")) - before.keys()
    assert [path.name for path in left if path.is_file()] == ["sub-02_from-T1w_to-Atlas_mode-image_xfm.html"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_names_are_checked_first(phantom_pair, tmp_path):
    with pytest.raises(ConfigError, match="no BIDS name"):
        register_files(phantom_pair.moving, phantom_pair.fixed, tmp_path / "out", CONFIG, bids=True)
    assert not (tmp_path / "out").exists()
