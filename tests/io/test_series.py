"""4-D series, a volume at a time."""

import tracemalloc

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from r2reg.cli.main import main
from r2reg.errors import ImageError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume, write_image
from r2reg.io.series import open_series
from r2reg.io.transforms import write_affine

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 0, 3.0, -15], [0, -2.0, 0, 18], [0, 0, 0, 1]])
FIXED = Grid(
    (14, 15, 16), np.diag([2.5, 2.0, 2.0, 1.0]) + np.array([[0, 0, 0, -16], [0, 0, 0, -14], [0, 0, 0, -14], [0] * 4])
)


def save(path, array, **header):
    image = nibabel.Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.2
    if header:
        image.header.set_slope_inter(**header)
    nibabel.save(image, path)


def smooth(count=5, dtype=np.float32):
    rng = np.random.default_rng(0)
    array = np.stack([gaussian_filter(rng.random((18, 17, 12)), 2) for _ in range(count)], -1)
    return (1000 * array).astype(dtype)


@pytest.fixture
def files(tmp_path):
    write_image(tmp_path / "fixed.nii.gz", np.ones(FIXED.shape, np.float32), Volume(np.ones(FIXED.shape), FIXED))
    matrix = np.eye(4)
    matrix[:3, 3] = (1.0, -2.0, 0.5)
    write_affine(tmp_path / "a.mat", Affine(matrix))
    return tmp_path


def apply(folder, image, out, *options, code=0):
    words = ["apply", "-t", str(folder / "a.mat"), "--reference", str(folder / "fixed.nii.gz")]
    found = CliRunner().invoke(main, [*words, "-i", str(folder / image), "-o", str(folder / out), *options])
    assert found.exit_code == code, found.output
    return found.output


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
@pytest.mark.parametrize("invert", [(), ("--invert",)])
def test_as_each_volume_alone(files, name, invert):
    save(files / name, smooth())
    apply(files, name, "out.nii.gz", *invert)
    out = nibabel.load(files / "out.nii.gz")
    assert out.shape == (*FIXED.shape, 5)
    assert out.get_data_dtype() == np.float32
    np.testing.assert_allclose(out.affine, FIXED.affine, atol=1e-5)
    assert out.header.get_zooms()[3] == pytest.approx(2.2)
    assert out.header.get_xyzt_units() == ("mm", "sec")
    for k in (0, 4):
        fill = ("--fill", str(float(smooth()[..., 0].min())))  # the first volume's minimum, for all
        apply(files, name, "one.nii.gz", "--volume", str(k), "--overwrite", *fill, *invert)
        np.testing.assert_array_equal(
            out.dataobj[..., k], nibabel.load(files / "one.nii.gz").get_fdata(dtype=np.float32)
        )


def test_integers_scaling_and_byte_order(files):
    counted = smooth(dtype=np.int16)
    save(files / "i.nii.gz", counted)
    apply(files, "i.nii.gz", "near.nii.gz", "--interpolation", "nearest")
    assert nibabel.load(files / "near.nii.gz").get_data_dtype() == np.int16
    big = nibabel.Nifti1Image(counted, AFFINE, nibabel.Nifti1Header(endianness=">"))
    big.header.set_slope_inter(0.5, 7)
    nibabel.save(big, files / "b.nii")
    expected = nibabel.load(files / "b.nii").get_fdata()
    found = np.stack([volume.array for volume in open_series(files / "b.nii")], -1)
    np.testing.assert_allclose(found, expected)


def test_the_references_unit_stays(files):
    image = nibabel.Nifti1Image(np.ones((6, 6, 6), np.float32), np.diag([2000.0, 1500, 3000, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, files / "fixed.nii.gz")
    save(files / "s.nii.gz", smooth())
    apply(files, "s.nii.gz", "out.nii.gz")
    header = nibabel.load(files / "out.nii.gz").header
    assert header.get_xyzt_units() == ("micron", "sec")
    np.testing.assert_allclose(header.get_zooms(), (2000, 1500, 3000, 2.2))


def test_what_is_no_series(files):
    save(files / "one.nii.gz", smooth(1))
    assert open_series(files / "one.nii.gz") is None
    assert open_series(files / "fixed.nii.gz") is None
    assert open_series(files / "nothing.nii.gz") is None
    (files / "bad.nii.gz").write_bytes(b"\x1f\x8bno")
    assert open_series(files / "bad.nii.gz") is None


def test_a_truncated_series_leaves_nothing(files):
    save(files / "s.nii.gz", smooth())
    content = (files / "s.nii.gz").read_bytes()
    (files / "s.nii.gz").write_bytes(content[: len(content) // 2])
    told = apply(files, "s.nii.gz", "out.nii.gz", code=1)
    assert "the file is truncated" in told
    assert not [path for path in files.iterdir() if "out" in path.name]
    save(files / "s.nii.gz", smooth())
    content = (files / "s.nii.gz").read_bytes()
    for cut in (content[:-6], content[:-8] + bytes(4) + content[-4:]):  # no checksum, a wrong one
        (files / "s.nii.gz").write_bytes(cut)
        assert "cannot be read" in apply(files, "s.nii.gz", "out.nii.gz", code=1)
    save(files / "t.nii", smooth())
    content = (files / "t.nii").read_bytes()
    (files / "t.nii").write_bytes(content[:-100])
    with pytest.raises(ImageError, match="fewer voxels than the header says"):
        list(open_series(files / "t.nii"))
    assert "are written as NIfTI" in apply(files, "t.nii", "out.mha", code=1)


def test_memory_does_not_grow_with_the_number(files):
    peaks = []
    for count in (4, 40):
        save(files / "s.nii.gz", smooth(count))
        tracemalloc.start()
        apply(files, "s.nii.gz", "out.nii.gz", "--overwrite")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5
