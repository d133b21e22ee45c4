"""Reading and writing images: what ITK makes of the same file, and headers, types, round trips."""

import logging
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2reg.errors import ImageError, OutputError
from r2reg.geometry.grid import Grid
from r2reg.io import itk
from r2reg.io.images import (
    Volume,
    read_image,
    read_labels,
    read_mask,
    read_reference,
    read_stored,
    write_image,
)


def rotated(angles, spacing=(2.0, 3.0, 1.5), origin=(10.0, 20.0, 30.0)):
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def ramp(shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def itk_grid(path):
    return itk.grid_from_sitk(sitk.ReadImage(str(path)))


ANGLES = {
    "straight": (0, 0, 0),
    "in plane": (0, 0, 0.5),
    "flipped": (np.pi, 0, 0),
    "oblique": (0.3, 0.2, 0.4),
}


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1)])
@pytest.mark.parametrize("unit", [2, 3])  # mm, micron
def test_nifti_lies_where_itk_puts_it(tmp_path, write_nifti, angles, codes, unit, caplog):
    path = tmp_path / "a.nii.gz"
    affine = rotated(angles)
    write_nifti(path, ramp((5, 6, 7)), affine, *codes, xyzt_units=unit, pixdim=[1, 2, 3, 1.5, 1, 1, 1, 1])
    volume = read_image(path)
    scale = {2: 1, 3: 1e-3}[unit]
    np.testing.assert_allclose(volume.grid.affine[:3], scale * affine[:3], atol=2e-5 * scale)
    assert volume.grid == itk_grid(path)
    assert not caplog.records
    np.testing.assert_array_equal(volume.array, ramp((5, 6, 7)))
    np.testing.assert_array_equal(itk.from_sitk_image(sitk.ReadImage(str(path))), volume.array)


@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (0, 0)])
def test_headers_that_itk_reads_otherwise_are_told(tmp_path, codes, caplog):
    image = nibabel.Nifti1Image(ramp((5, 6, 7)), None)
    image.set_sform(rotated((0, 0, 0)), codes[0])
    image.set_qform(rotated((0, 0, 0.1)), codes[1])
    image.header["sform_code"], image.header["qform_code"] = codes
    image.to_filename(tmp_path / "a.nii")
    with caplog.at_level(logging.WARNING, "r2reg.io"):
        grid = read_image(tmp_path / "a.nii").grid
    np.testing.assert_allclose(grid.affine, nibabel.load(tmp_path / "a.nii").affine, atol=1e-6)
    assert [r.name for r in caplog.records] == (["r2reg.io"] if grid != itk_grid(tmp_path / "a.nii") else [])
    assert bool(caplog.records) == (codes != (1, 2))  # ITK takes a `scanner` sform before any qform


@pytest.mark.parametrize("angles", [(0, 0, 0), (0, 0, 0.5), (np.pi, 0, 0), (0.3, 0, 0)])
def test_2d_nifti_lies_where_itk_puts_it(tmp_path, write_nifti, angles):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, ramp((5, 6)), rotated(angles))
    volume = read_image(path)
    assert volume.grid.ndim == 2
    assert volume.grid == itk_grid(path)


@pytest.mark.parametrize("ending", ["nii.gz", "mha"])
@pytest.mark.parametrize("angles", [(np.pi, 0, 0.0), (0, 0, 0.5), (np.pi / 2, 0, 0)])
def test_one_slice_of_a_3d_header_lies_where_ants_puts_it_in_2d(tmp_path, write_nifti, angles, ending, caplog):
    import ants

    path = tmp_path / f"a.{ending}"
    write_nifti(tmp_path / "a.nii.gz", ramp((5, 6, 1)), rotated(angles))
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(path))
    volume = read_image(path)
    theirs = ants.image_read(str(path), dimension=2)
    assert volume.array.shape == theirs.shape == (5, 6)
    affine = np.eye(3)
    affine[:2, :2] = -theirs.direction * theirs.spacing
    affine[:2, 2] = -np.array(theirs.origin)
    assert volume.grid == Grid((5, 6), affine)
    assert ["single slice" in r.message for r in caplog.records] == [True]
    solid = read_image(path, ndim=3)
    assert solid.array.shape == (5, 6, 1)
    assert solid.grid == itk_grid(path)


def test_no_word_about_an_axial_slice_along_l_and_p(tmp_path, write_nifti, caplog):
    write_nifti(tmp_path / "a.nii.gz", ramp((5, 6, 1)), np.diag([-2.0, -3, 1, 1]))
    assert read_image(tmp_path / "a.nii.gz").grid == Grid((5, 6), np.diag([-2.0, -3, 1]))
    assert not caplog.records


@pytest.mark.parametrize("angles", [(np.pi / 2, 0, 0), (0.3, 0.6, 0.4)])
def test_2d_nifti_out_of_plane_is_refused(tmp_path, write_nifti, angles):
    write_nifti(tmp_path / "a.nii.gz", ramp((5, 6)), rotated(angles))
    with pytest.raises(ImageError, match="does not lie in the R-A plane"):
        read_image(tmp_path / "a.nii.gz")


def test_shear_is_refused_and_rounding_is_not(tmp_path, write_nifti):
    affine = np.diag([2.0, 3, 1, 1])
    affine[0, 1] = 3 * 3e-4
    write_nifti(tmp_path / "a.nii.gz", ramp((5, 6, 7)), affine)
    grid = read_image(tmp_path / "a.nii.gz").grid
    np.testing.assert_allclose(grid.directions.T @ grid.directions, np.eye(3), atol=1e-9)
    assert grid == itk_grid(tmp_path / "a.nii.gz")
    affine[0, 1] = 0.3
    write_nifti(tmp_path / "b.nii.gz", ramp((5, 6, 7)), affine)
    with pytest.raises(ImageError, match=r"has shear .* set its sform_code to 0 to use the qform"):
        read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii", "nii.gz"])
@pytest.mark.parametrize("ndim", [2, 3])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float32", "uint8", "int16", "int32", "uint16"]))
def test_round_trip(tmp_path, ending, ndim, seed, dtype):
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((ndim, ndim)))
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = axes * rng.uniform(0.3, 5, ndim)
    affine[:-1, -1] = rng.uniform(-200, 200, ndim)
    shape = tuple(rng.integers(2, 9, ndim))
    array = (rng.random(shape) * 200).astype(dtype)
    path = tmp_path / f"a.{ending}"
    like = Volume(array, Grid(shape, affine))
    write_image(path, array, like)
    back = read_stored(path)
    assert back.grid == like.grid
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, array)


def test_the_header_of_a_nifti_model_is_kept(tmp_path, write_nifti):
    write_nifti(
        tmp_path / "like.nii.gz", ramp((5, 6, 7), np.int16), rotated((0.1, 0.2, 0.3)), 2, 1,
        descrip=b"scanner 7", xyzt_units=10, scl_slope=2.0, scl_inter=-1.0, cal_max=9, intent_code=1002,
    )  # fmt: skip
    like = read_image(tmp_path / "like.nii.gz")
    write_image(tmp_path / "out.nii.gz", ramp((5, 6, 7)) / 3, like)
    out, model = (nibabel.load(tmp_path / name) for name in ("out.nii.gz", "like.nii.gz"))
    for key in ("sform_code", "qform_code", "descrip", "xyzt_units", "srow_x", "quatern_b", "pixdim", "dim"):
        np.testing.assert_array_equal(out.header[key], model.header[key], err_msg=key)
    assert out.get_data_dtype() == np.float32
    assert int(out.header["intent_code"]) == 0
    assert np.isnan(out.header["scl_slope"])  # nibabel's way to say: no scaling
    np.testing.assert_allclose(out.get_fdata(), ramp((5, 6, 7)) / 3, rtol=1e-6)


def test_a_slice_is_written_as_its_model(tmp_path, write_nifti):
    write_nifti(tmp_path / "like.nii.gz", ramp((5, 6, 1)), rotated((0, 0, 0.5)))
    like = read_image(tmp_path / "like.nii.gz")
    write_image(tmp_path / "out.nii.gz", like.array + 1, like)
    assert nibabel.load(tmp_path / "out.nii.gz").shape == (5, 6, 1)
    assert read_image(tmp_path / "out.nii.gz").grid == like.grid


@pytest.mark.parametrize(
    ("dtype", "written"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("bool", "uint8"),
        ("int64", "int32"),
        ("uint16", "uint16"),
    ],
)
def test_written_types(tmp_path, dtype, written):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    write_image(tmp_path / "a.nii", array, Volume(array, Grid((2, 2), np.eye(3))))
    assert nibabel.load(tmp_path / "a.nii").get_data_dtype() == written


def test_labels_too_large_for_32_bits_are_kept(tmp_path):
    array = np.array([[0, 2**40], [1, 0]])
    write_image(tmp_path / "a.nii.gz", array, Volume(array, Grid((2, 2), np.eye(3))))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz").array, array)


def test_scl_slope_is_applied(tmp_path):
    image = nibabel.Nifti1Image(ramp((3, 4, 5), np.int16), np.eye(4))
    image.header.set_slope_inter(2, -10)
    image.to_filename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, 2 * ramp((3, 4, 5)) - 10)
    assert read_labels(tmp_path / "a.nii.gz").array.dtype == np.int16


def test_labels_keep_their_type_and_whole_floats_get_the_smallest(tmp_path, write_nifti):
    write_nifti(tmp_path / "a.nii.gz", ramp((3, 4, 5), np.uint16))
    assert read_labels(tmp_path / "a.nii.gz").array.dtype == np.uint16
    for high, dtype in ((59, np.uint8), (530, np.int16), (40_000, np.uint16), (100_000, np.int32)):
        array = ramp((3, 4, 5))
        array[0, 0, 0] = high
        write_nifti(tmp_path / "a.nii.gz", array)
        assert read_labels(tmp_path / "a.nii.gz").array.dtype == dtype


def test_mask_is_true_above_one_half(tmp_path, write_nifti):
    write_nifti(tmp_path / "a.nii.gz", np.array([[[0.0, 0.4, 0.6, 1.0, 3.0]]], np.float32))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.nii.gz").array[0, 0], [False, False, True, True, True])


def test_a_volume_of_a_4d_image(tmp_path, write_nifti):
    array = ramp((3, 4, 5, 2))
    write_nifti(tmp_path / "a.nii.gz", array)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz", volume=1).array, array[..., 1])
    assert read_reference(tmp_path / "a.nii.gz").grid.shape == (3, 4, 5)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.mha", volume=1).array, array[..., 1])
    write_nifti(tmp_path / "b.nii.gz", array[..., :1])
    assert read_image(tmp_path / "b.nii.gz").array.shape == (3, 4, 5)


def test_a_plain_nifti_under_a_compressed_name_is_read_as_itk_does(tmp_path, write_nifti):
    write_nifti(tmp_path / "a.nii", ramp((3, 4, 5)))
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, ramp((3, 4, 5)))


def write_dicom(folder, series, positions=range(4)):
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for n in positions:
        image = sitk.GetImageFromArray(ramp((6, 5), np.int16)[None] + 100 * n)
        image.SetSpacing((2.0, 3.0, 1.5))
        tags = {"0008|0060": "CT", "0020|000e": f"1.2.3.{series}", "0020|000d": "1.2.3", "0020|0013": str(n)}
        tags |= {
            "0020|0032": f"0\\0\\{1.5 * n}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0008|0018": f"1.2.{series}.{n}",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{n}.dcm"))
        writer.Execute(image)


def test_a_dicom_folder_is_one_volume(tmp_path):
    write_dicom(tmp_path / "dicom", 1)
    volume = read_image(tmp_path / "dicom")
    assert volume.array.shape == (5, 6, 4)
    np.testing.assert_array_equal(volume.array[:, :, 2], ramp((6, 5)).T + 200)
    np.testing.assert_allclose(volume.grid.affine, np.diag([-2, -3, 1.5, 1]), atol=1e-6)


def test_several_dicom_series_are_named(tmp_path):
    write_dicom(tmp_path / "dicom", 1)
    write_dicom(tmp_path / "dicom", 2)
    with pytest.raises(ImageError, match=r"holds 2 DICOM series \(1\.2\.3\.1\S*, 1\.2\.3\.2\S*\); move one"):
        read_image(tmp_path / "dicom")


def test_outputs_that_cannot_be_written(tmp_path):
    volume = Volume(ramp((3, 4, 5)), Grid((3, 4, 5), np.eye(4)))
    for name, message in (
        ("a.foo", "end the name in .nii.gz"),
        ("a.mhd", "two files"),
        ("no/a.nii", "does not exist"),
    ):
        with pytest.raises(OutputError, match=message):
            write_image(tmp_path / name, volume.array, volume)
    assert list(tmp_path.iterdir()) == []


def test_packed_files_are_plain_gzip_without_time_or_name(tmp_path):
    """One gzip member (some readers stop after the first), the same bytes whenever it is written."""
    image = Volume(ramp((9, 8, 7)), Grid((9, 8, 7), np.eye(4)))
    write_image(tmp_path / "a.nii.gz", image.array, image)
    write_image(tmp_path / "b.nii.gz", image.array, image)
    packed = (tmp_path / "a.nii.gz").read_bytes()
    assert packed == (tmp_path / "b.nii.gz").read_bytes()
    assert packed[:8] == b"\x1f\x8b\x08\x00" + bytes(4)  # no name among the flags, no time
    member = zlib.decompressobj(wbits=31)
    content = member.decompress(packed)
    assert member.eof
    assert member.unused_data == b""
    write_image(tmp_path / "a.nii", image.array, image)
    assert content == (tmp_path / "a.nii").read_bytes()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).T, image.array)
