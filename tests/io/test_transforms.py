"""Transform files: what is written is read back, by us and by ITK; bad files are one line."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2reg.errors import OutputError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io import itk
from r2reg.io.transforms import (
    read_affine,
    read_transform_list,
    read_transforms,
    write_affine,
    write_displacement,
)

TURN = Affine(np.array([[0.9, -0.3, 0, 5], [0.3, 1.1, 0, -4], [0, 0.1, 1, 3], [0, 0, 0, 1]]))


def field(ndim=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (5, 6, 7)[:ndim]
    axes, _ = np.linalg.qr(rng.standard_normal((ndim, ndim)))
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = axes * rng.uniform(0.5, 3, ndim)
    affine[:-1, -1] = rng.uniform(-50, 50, ndim)
    return Displacement(Grid(shape, affine), rng.standard_normal((*shape, ndim)).astype(np.float32))


@pytest.mark.parametrize("ending", ["mat", "tfm", "txt"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_affines_there_and_back(tmp_path, ending, seed, ndim):
    rng = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1] += rng.uniform(-0.2, 0.2, (ndim, ndim + 1)) * ([1] * ndim + [500])
    write_affine(tmp_path / f"a.{ending}", Affine(matrix))
    np.testing.assert_allclose(read_affine(tmp_path / f"a.{ending}").matrix, matrix, atol=1e-9)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), ndim=st.sampled_from([2, 3]))
def test_fields_there_and_back_and_as_itk_reads_them(tmp_path, seed, ndim):
    ours = field(ndim, seed)
    write_displacement(tmp_path / "w.nii.gz", ours)
    (back,) = read_transforms(tmp_path / "w.nii.gz")
    assert back.grid == ours.grid
    np.testing.assert_array_equal(back.vectors, ours.vectors)
    theirs = itk.displacement_from_sitk(sitk.ReadImage(str(tmp_path / "w.nii.gz")))
    assert theirs.grid == ours.grid
    np.testing.assert_array_equal(theirs.vectors, ours.vectors)


def test_the_header_of_a_field(tmp_path):
    for ndim, shape in ((3, (5, 6, 7, 1, 3)), (2, (5, 6, 1, 1, 2))):
        write_displacement(tmp_path / "w.nii.gz", field(ndim))
        header = nibabel.load(tmp_path / "w.nii.gz").header
        assert header.get_data_shape() == shape
        assert header.get_data_dtype() == np.float32
        assert int(header["intent_code"]) == 1007
        assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
        np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-5)


@pytest.mark.parametrize("ending", ["mha", "nrrd", "nii.gz"])
def test_fields_that_itk_wrote(tmp_path, ending):
    ours = field()
    image = sitk.DisplacementFieldTransform(itk.to_sitk_transform([ours], 3)).GetDisplacementField()
    sitk.WriteImage(image, str(tmp_path / f"w.{ending}"))
    (back,) = read_transforms(tmp_path / f"w.{ending}")
    assert back.grid == ours.grid
    np.testing.assert_allclose(back.vectors, ours.vectors, atol=1e-6)


def test_the_displacement_intent_holds_ras_for_itk(tmp_path):
    ours = field()
    write_displacement(tmp_path / "w.nii.gz", ours)
    image = nibabel.load(tmp_path / "w.nii.gz")
    image.header.set_intent(1006)
    image.to_filename(tmp_path / "v.nii.gz")
    (back,) = read_transforms(tmp_path / "v.nii.gz")
    theirs = itk.displacement_from_sitk(sitk.ReadImage(str(tmp_path / "v.nii.gz")))
    np.testing.assert_array_equal(back.vectors, theirs.vectors)


def test_composites_come_first_acting_first(tmp_path):
    warp = field()
    sitk.WriteTransform(itk.to_sitk_transform([warp, TURN], 3), str(tmp_path / "c.h5"))
    first, second = read_transforms(tmp_path / "c.h5")
    np.testing.assert_allclose(first.vectors, warp.vectors, atol=1e-6)
    np.testing.assert_allclose(second.matrix, TURN.matrix, atol=1e-9)
    sitk.WriteTransform(itk.to_sitk_transform([TURN, TURN], 3), str(tmp_path / "a.tfm"))
    np.testing.assert_allclose(read_affine(tmp_path / "a.tfm").matrix, TURN.matrix @ TURN.matrix, atol=1e-9)


def test_brackets_invert_one_affine(tmp_path):
    write_affine(tmp_path / "a.mat", TURN)
    plain, inverse, again = read_transform_list(
        [f"{tmp_path}/a.mat", f"[{tmp_path}/a.mat,1]", f"[ {tmp_path}/a.mat , 0 ]"]
    )
    np.testing.assert_allclose(inverse.matrix @ plain.matrix, np.eye(4), atol=1e-9)
    np.testing.assert_array_equal(again.matrix, plain.matrix)


def written(name, ours):
    def make(folder):
        (write_affine if isinstance(ours, Affine) else write_displacement)(folder / name, ours)
        return folder / name

    return make


def truncated(name, ours, keep):
    def make(folder):
        path = written(name, ours)(folder)
        path.write_bytes(path.read_bytes()[:keep])
        return path

    return make


def content(name, text):
    def make(folder):
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return make


def vectors(array, intent=1007):
    def make(folder):
        image = nibabel.Nifti1Image(array, np.eye(4))
        image.header.set_intent(intent)
        image.to_filename(folder / "w.nii.gz")
        return folder / "w.nii.gz"

    return make


def itk_transform(name, transform):
    def make(folder):
        sitk.WriteTransform(transform, str(folder / name))
        return folder / name

    return make


def truncated_composite(folder):
    path = itk_transform("c.h5", itk.to_sitk_transform([field(), TURN], 3))(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return path


def nan_affine(folder):
    transform = sitk.AffineTransform(3)
    transform.SetTranslation((np.nan, 0, 0))
    return itk_transform("a.mat", transform)(folder)


BAD = {
    "missing": (lambda folder: folder / "no.mat", "no such file; check the path"),
    "missing field": (lambda folder: folder / "no.nii.gz", "no such file; check the path"),
    "truncated mat": (truncated("a.mat", TURN, 60), "is not a transform"),
    "truncated txt": (truncated("a.txt", TURN, 40), "is not a transform"),
    "truncated field": (truncated("w.nii.gz", field(), -50), "cannot be read"),
    "truncated composite": (truncated_composite, "is not a transform"),
    "FSL matrix": (content("a.mat", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"), "depend on the grids of both images"),
    "unknown ending": (content("a.xyz", "hello"), "is not a transform"),
    "NaN affine": (nan_affine, "NaN"),
    "singular affine": (itk_transform("a.tfm", sitk.ScaleTransform(3, (1, 0, 1))), "singular"),
    "NaN field": (vectors(np.full((3, 4, 5, 1, 3), np.nan, "f4")), "NaN"),
    "scalar image": (vectors(np.ones((3, 4, 5), "f4"), 0), "is no displacement field"),
    "FSL warp": (vectors(np.ones((3, 4, 5, 3), "f4"), 2006), "depend on the grids of both images"),
    "FSL coefficients": (vectors(np.ones((3, 4, 5, 3), "f4"), 2007), "FNIRT's spline coefficients"),
    "vectors without intent": (vectors(np.ones((3, 4, 5, 3), "f4"), 0), "is no displacement field"),
    "vectors with another intent": (vectors(np.ones((3, 4, 5, 1, 3), "f4"), 1002), "is no displacement field"),
    "two components in 3-D": (vectors(np.ones((3, 4, 5, 1, 2), "f4")), "is no displacement field"),
    "B-spline": (itk_transform("b.tfm", sitk.BSplineTransform(3)), "holds a BSplineTransform"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_transforms_are_one_line(tmp_path, capfd, make, message):
    path = make(tmp_path)
    with pytest.raises(TransformError) as caught:
        read_transforms(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text
    out, err = capfd.readouterr()
    assert out + err == ""


def test_scalar_mha_is_no_field(tmp_path):
    sitk.WriteImage(sitk.Image([3, 4, 5], sitk.sitkFloat32), str(tmp_path / "a.mha"))
    with pytest.raises(TransformError, match="3-D image of 1 values per voxel; a displacement field has one per"):
        read_transforms(tmp_path / "a.mha")


def test_an_affine_is_wanted(tmp_path):
    write_displacement(tmp_path / "w.nii.gz", field())
    with pytest.raises(TransformError, match="holds a displacement field; give an affine"):
        read_affine(tmp_path / "w.nii.gz")
    with pytest.raises(TransformError, match="holds a displacement field; give an affine"):
        read_transform_list([f"[{tmp_path}/w.nii.gz,1]"])


def test_dimensions_do_not_mix(tmp_path):
    write_displacement(tmp_path / "w.nii.gz", field(2))
    write_affine(tmp_path / "a.mat", TURN)
    with pytest.raises(TransformError, match="2-D and 3-D transforms cannot be chained"):
        read_transform_list([str(tmp_path / "w.nii.gz"), str(tmp_path / "a.mat")])


def test_outputs_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"written as \.mat, \.tfm, \.txt"):
        write_affine(tmp_path / "a.nii.gz", TURN)
    with pytest.raises(OutputError, match=r"written as .nii.gz or .nii"):
        write_displacement(tmp_path / "w.mha", field())
    with pytest.raises(OutputError, match="does not exist"):
        write_affine(tmp_path / "no" / "a.mat", TURN)
    assert list(tmp_path.iterdir()) == []
