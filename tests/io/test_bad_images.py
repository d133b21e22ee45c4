"""Bad images: one line that names the path, what is wrong and the way out."""

import gzip
import logging

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from r2reg.errors import ImageError
from r2reg.io.images import read_image, read_labels, read_mask

SHAPE = (6, 7, 8)
PIXDIM_X, QUATERN_B, SROW_X = 80, 256, 280  # byte positions in a NIfTI-1 header


def noise(shape=SHAPE):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def whole_file(folder, write):
    write(folder / "whole.nii.gz", noise())
    return folder / "whole.nii.gz"


def truncated(folder, write, keep):
    path = folder / "a.nii.gz"
    path.write_bytes(whole_file(folder, write).read_bytes()[:keep])
    return path


def damaged(folder, write, position):
    raw = bytearray(whole_file(folder, write).read_bytes())
    raw[position] ^= 0xFF
    (folder / "a.nii.gz").write_bytes(raw)
    return folder / "a.nii.gz"


def truncated_plain(folder, write):
    (folder / "a.nii").write_bytes(gzip.decompress(whole_file(folder, write).read_bytes())[:-100])
    return folder / "a.nii"


def with_bytes(name, content):
    def make(folder, write):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def nifti(array, **fields):
    def make(folder, write):
        write(folder / "a.nii.gz", array, **fields)
        return folder / "a.nii.gz"

    return make


def header_bytes(position, content, **codes):
    """A good file with other bytes in its header, which nibabel would not write."""

    def make(folder, write):
        write(folder / "a.nii", noise(), **codes)
        raw = bytearray((folder / "a.nii").read_bytes())
        raw[position : position + len(content)] = content
        (folder / "a.nii").write_bytes(raw)
        return folder / "a.nii"

    return make


def itk_image(name, image):
    def make(folder, write):
        sitk.WriteImage(image, str(folder / name))
        return folder / name

    return make


def colours(folder, write):
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(folder / "a.nii.gz")
    return folder / "a.nii.gz"


def empty_folder(folder, write):
    (folder / "dicom").mkdir()
    return folder / "dicom"


def truncated_mha(folder, write):
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(folder / "w.mha"))
    (folder / "a.mha").write_bytes((folder / "w.mha").read_bytes()[:-200])
    return folder / "a.mha"


def edited(value, index=(2, 3, 4)):
    array = noise()
    array[index] = value
    return array


BAD = {
    "missing": (lambda folder, write: folder / "no.nii.gz", "no such file; check the path"),
    "missing mha": (lambda folder, write: folder / "no.mha", "no such file; check the path"),
    "truncated header": (lambda f, w: truncated(f, w, 100), "cannot be read"),
    "truncated data": (lambda f, w: truncated(f, w, 900), "cannot be read"),
    "truncated checksum": (lambda f, w: truncated(f, w, -4), "cannot be read"),
    "flipped byte": (lambda f, w: damaged(f, w, 700), "cannot be read"),
    "wrong checksum": (lambda f, w: damaged(f, w, -6), "cannot be read"),
    "truncated plain": (truncated_plain, "cannot be read"),
    "empty file": (with_bytes("a.nii.gz", b""), "cannot be read"),
    "text as nifti": (with_bytes("a.nii", b"hello " * 100), "cannot be read"),
    "text as mha": (with_bytes("a.mha", b"hello"), "cannot be read"),
    "truncated mha": (truncated_mha, "cannot be read"),
    "unknown type": (with_bytes("a.xyz", b"hello"), "give NIfTI, .mha, .mhd, .nrrd or a DICOM folder"),
    "empty folder": (empty_folder, "folder without DICOM images"),
    "1-D": (nifti(noise((8,))), "has one dimension"),
    "4-D": (
        nifti(noise((4, 5, 6, 3))),
        "has 4 dimensions (4, 5, 6, 3); r2reg registers 3-D volumes. Take one",
    ),
    "4-D mha": (
        itk_image("a.mha", sitk.Image([4, 5, 6, 3], sitk.sitkFloat32)),
        "has 4 dimensions (4, 5, 6, 3)",
    ),
    "5-D": (nifti(noise((4, 5, 6, 1, 3)), intent_code=1007), "is a vector or tensor image"),
    "zero affine": (header_bytes(SROW_X, bytes(48)), "affine is singular"),
    "NaN affine": (header_bytes(SROW_X, np.full(12, np.nan, "<f4").tobytes()), "affine holds NaN"),
    "NaN qform": (header_bytes(QUATERN_B, np.full(6, np.nan, "<f4").tobytes(), sform=0), "affine"),
    "zero voxel size": (
        header_bytes(PIXDIM_X, bytes(4), sform=0, qform=0),
        "voxel size [0.0, 1.0, 1.0] holds",
    ),
    "NaN voxel": (nifti(edited(np.nan)), "1 voxels are NaN or infinite; replace"),
    "infinite voxel": (nifti(edited(np.inf)), "1 voxels are NaN or infinite; replace"),
    "constant": (nifti(np.full(SHAPE, 3, np.float32)), "all voxels are 3; choose an image with contrast"),
    "RGB": (colours, "RGB colours; convert it"),
    "RGB mha": (
        itk_image("a.mha", sitk.Image([4, 5, 6], sitk.sitkVectorUInt8, 3)),
        "holds 3 values per voxel",
    ),
    "complex": (nifti(noise().astype(np.complex64)), "complex numbers"),
    "complex nrrd": (itk_image("a.nrrd", sitk.Image([4, 5, 6], sitk.sitkComplexFloat32)), "complex"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_images_are_one_line(tmp_path, write_nifti, capfd, make, message):
    logging.basicConfig(level=logging.WARNING, force=True)  # as on the command line
    path = make(tmp_path, write_nifti)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text
    out, err = capfd.readouterr()
    assert out + err == ""  # nothing printed past the exception by nibabel or ITK


@pytest.mark.parametrize(
    ("read", "array", "message"),
    [
        (read_labels, noise(), "336 values that are not whole numbers, e.g. "),
        (read_labels, np.zeros(SHAPE, np.int16), "holds only 0"),
        (read_labels, edited(np.nan), "NaN"),
        (read_labels, np.full(SHAPE, 1e30, np.float32), "do not fit 64 bits"),
        (read_mask, np.zeros(SHAPE, np.uint8), "mask is empty"),
        (read_mask, edited(np.nan), "NaN"),
    ],
)
def test_bad_labels_and_masks_are_one_line(tmp_path, write_nifti, read, array, message):
    write_nifti(tmp_path / "a.nii.gz", array)
    with pytest.raises(ImageError) as caught:
        read(tmp_path / "a.nii.gz")
    assert str(caught.value).startswith(f"{tmp_path / 'a.nii.gz'}: ")
    assert message in str(caught.value)


def test_a_volume_that_is_not_there(tmp_path, write_nifti):
    write_nifti(tmp_path / "a.nii.gz", noise((4, 5, 6, 3)))
    with pytest.raises(ImageError, match="has no volume 3; its volumes are 0 to 2"):
        read_image(tmp_path / "a.nii.gz", volume=3)
