"""Two lines of Python, with images of every kind."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

import r2reg
from r2reg.errors import ConfigError, ImageError, OutputError
from r2reg.io.objects import as_volume

AFFINE = np.array([[-1.5, 0, 0, 20], [0, 0, 2.0, -15], [0, -1.0, 0, 11], [0, 0, 0, 1]])
QUICK = {"transform": "affine", "init": "none"}


def image(seed, shape=(18, 16, 14)):
    return gaussian_filter(np.random.default_rng(seed).random(shape), 2).astype(np.float32)


@pytest.fixture
def kinds(tmp_path):
    """One image as each kind of object."""
    nifti = nibabel.Nifti1Image(image(0), AFFINE)
    nibabel.save(nifti, tmp_path / "a.nii.gz")
    itk = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    ants = pytest.importorskip("ants").image_read(str(tmp_path / "a.nii.gz"))
    path = tmp_path / "a.nii.gz"
    return {"path": path, "text": str(path), "nibabel": nifti, "itk": itk, "ants": ants, "array": (image(0), AFFINE)}


def test_every_kind_is_the_same_image(kinds):
    expected = as_volume(kinds["path"])
    for name, given in kinds.items():
        found = as_volume(given)
        np.testing.assert_allclose(found.array, expected.array, err_msg=name)
        assert found.grid == expected.grid, name
        assert found.array.dtype == np.float32
    flat = (image(1, (9, 8)), np.diag([2.0, 3.0, 1.0]))
    assert as_volume(flat).grid.ndim == 2
    mgh = nibabel.MGHImage(image(0), AFFINE)
    assert as_volume(mgh).grid == expected.grid


def test_two_lines(kinds, tmp_path):
    moving = (np.roll(image(0), 1, axis=0), AFFINE)
    result = r2reg.register(moving, kinds["itk"], refine=5, init="none")
    after, before = (result.metrics["similarity"][stage]["lncc"] for stage in ("after", "before"))
    assert after > before
    assert result.moved.shape == (18, 16, 14)
    np.testing.assert_allclose(result.moved_image.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(result.apply(moving, fill=float(image(0).min())).get_fdata(), result.moved, atol=1e-5)
    result.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["similarity"]["after"]["lncc"]
    assert (tmp_path / "out" / "forward.h5").exists()
    with pytest.raises(OutputError, match="give --overwrite"):
        result.save(tmp_path / "out")
    result.save(tmp_path / "out", overwrite=True, formats=["itk"])
    assert not (tmp_path / "out" / "forward.h5").exists()


def test_labels_and_points_come_along(kinds):
    labels = np.zeros((18, 16, 14), np.uint8)
    labels[5:10, 5:10, 5:9] = 3
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 0.0, 2.0]])
    given = {"moving_labels": (labels, AFFINE), "fixed_labels": (labels, AFFINE)}
    result = r2reg.register(
        kinds["nibabel"], kinds["array"], **given, fixed_points=points, moving_points=points, **QUICK
    )
    assert result.metrics["dice"]["after"]["mean"] == 1
    assert result.metrics["tre_mm"]["after"]["max"] == pytest.approx(0, abs=1e-9)
    carried = result.apply((labels, AFFINE), "nearest")
    np.testing.assert_array_equal(np.asarray(carried.dataobj), labels)
    back = result.apply((labels, AFFINE), "label", invert=True)
    np.testing.assert_array_equal(np.asarray(back.dataobj), labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 4)), "moving: is ndarray; give a path, a nibabel"),
        (None, "moving: is NoneType; give a path"),
        (sitk.Image([4, 4, 4, 2], sitk.sitkFloat32), "moving: has 4 dimensions; give a volume"),
        ((image(0), np.zeros((4, 4))), "moving: the affine is singular"),
        ((image(0), np.eye(3)), "moving: a 3-D grid needs a 4x4 affine"),
        ((np.zeros((4, 5, 6)), AFFINE), "moving: all voxels are 0"),
        ((np.full((4, 5, 6), np.nan), AFFINE), "moving: 120 voxels are NaN"),
        ((np.array([["a", "b"], ["c", "d"]]), np.eye(3)), "moving: holds <U1"),
    ],
)
def test_what_is_no_image(kinds, given, message):
    with pytest.raises(ImageError, match=f"^{message}"):
        r2reg.register(given, kinds["array"], **QUICK)


def test_settings_are_named(kinds):
    with pytest.raises(ConfigError, match="register has no option smoothness; options are moving_labels"):
        r2reg.register(kinds["array"], kinds["array"], smoothness=3)
    with pytest.raises(ConfigError, match=r"points are \(n, 3\) finite numbers"):
        r2reg.register(kinds["array"], kinds["array"], fixed_points=np.zeros((2, 2)), **QUICK)
    with pytest.raises(ConfigError, match="refine"):
        r2reg.register(kinds["array"], kinds["array"], refine="finest")


def test_the_package_itself_is_light():
    code = "import sys, r2reg; assert 'numpy' not in sys.modules; assert callable(r2reg.register)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        r2reg.nothing  # noqa: B018
