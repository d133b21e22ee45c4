"""Each transform format against the tool that owns it, on grids of every kind."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from r2reg.errors import OutputError, TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, map_points
from r2reg.io.transforms import read_transform_list, read_transforms, write_transforms

ORIENTATIONS = {
    "RAS": np.eye(3),
    "LAS": np.diag([-1.0, 1.0, 1.0]),
    "LIA": np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "oblique": np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]),
}
MM = 1e-3


def grid_of(orientation, shape, spacing):
    affine = np.eye(4)
    affine[:3, :3] = ORIENTATIONS[orientation] * spacing
    affine[:3, 3] = np.array([4.0, -9.0, 13.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


@pytest.fixture(params=itertools.product(ORIENTATIONS, ["same", "other"]), ids="-".join)
def case(request):
    """fixed grid, moving grid, warp on fixed, affine."""
    orientation, second = request.param
    fixed = grid_of(orientation, (18, 14, 16), (1.0, 1.5, 2.5))
    moving = fixed if second == "same" else grid_of("LAS", (16, 20, 15), (2.0, 1.0, 1.5))
    noise = np.random.default_rng(3).standard_normal((*fixed.shape, 3))
    vectors = 30 * gaussian_filter(noise, (3, 3, 3, 0)).astype(np.float32)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0.98, -0.2, 0.05], [0.17, 1.02, 0.1], [0.0, -0.1, 0.95]])
    matrix[:3, 3] = (2.0, -1.0, 3.0)
    return fixed, moving, Displacement(fixed, vectors), Affine(matrix)


def centres(grid):
    return grid.index_to_ras(np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)).reshape(-1, 3)


def image_of(grid):
    return nibabel.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine)


@pytest.mark.parametrize("name", ["a.mat", "a.tfm", "a.txt", "a.lta", "a.x5", "a.h5", "flirt.mat"])
def test_affines_come_back(case, name, tmp_path):
    fixed, moving, _, affine = case
    tool = "fsl" if name == "flirt.mat" else "itk"
    write_transforms(tmp_path / name, [affine], tool=tool, fixed=fixed, moving=moving)
    (back,) = read_transforms(tmp_path / name, fixed=fixed, moving=moving)
    np.testing.assert_allclose(back.matrix, affine.matrix, atol=1e-5)


@pytest.mark.parametrize("name", ["w.nii.gz", "w.h5", "w.x5", "w.npz", "fsl.nii.gz", "afni.nii.gz"])
def test_fields_come_back(case, name, tmp_path):
    fixed, moving, warp, affine = case
    tool = name[:-7] if name[:-7] in ("fsl", "afni") else "itk"
    if tool == "afni" and np.abs(ORIENTATIONS["oblique"] - fixed.directions).max() < 1e-9:
        with pytest.raises(TransformError, match="oblique"):
            write_transforms(tmp_path / name, [warp], tool=tool)
        assert not list(tmp_path.iterdir())
        return
    for transforms in ([warp], [warp, affine]):
        write_transforms(tmp_path / name, transforms, tool=tool, fixed=fixed, moving=moving)
        back = read_transforms(tmp_path / name, fixed=fixed, moving=moving)
        points = centres(fixed)
        np.testing.assert_allclose(map_points(back, points), map_points(transforms, points), atol=1e-4)


def test_flirt_and_fnirt_as_fsl_reads_them(case, tmp_path, caplog):
    flirt, fnirt = pytest.importorskip("fsl.transform.flirt"), pytest.importorskip("fsl.transform.fnirt")
    from fsl.data.image import Image

    fixed, moving, warp, affine = case
    source, reference = Image(image_of(moving)), Image(image_of(fixed))
    write_transforms(tmp_path / "a.mat", [affine], tool="fsl", fixed=fixed, moving=moving)
    world = flirt.fromFlirt(flirt.readFlirt(str(tmp_path / "a.mat")), source, reference, from_="world", to="world")
    np.testing.assert_allclose(np.linalg.inv(world), affine.matrix, atol=1e-5)
    write_transforms(tmp_path / "w.nii.gz", [warp, affine], tool="fsl", fixed=fixed, moving=moving)
    told = caplog.text
    guessed = fnirt.readFnirt(str(tmp_path / "w.nii.gz"), source, reference).deformationType
    assert (guessed == "absolute") == ("give --rel to applywarp" in told)
    field = fnirt.readFnirt(str(tmp_path / "w.nii.gz"), source, reference, defType="relative")
    points = centres(fixed)
    theirs = field.transform(points, from_="world", to="world")
    np.testing.assert_allclose(theirs, map_points([warp, affine], points), atol=MM)
    # And what FSL's tools wrote: places in place of displacements.
    from fsl.transform.nonlinear import convertDeformationType

    absolute = np.asarray(convertDeformationType(field, "absolute"), np.float32)
    image = nibabel.Nifti1Image(absolute, fixed.affine)
    image.header["intent_code"] = 2006
    nibabel.save(image, tmp_path / "abs.nii.gz")
    if fnirt.readFnirt(str(tmp_path / "abs.nii.gz"), source, reference).deformationType == "absolute":
        back = read_transforms(tmp_path / "abs.nii.gz", moving=moving)
        np.testing.assert_allclose(map_points(back, points), map_points([warp, affine], points), atol=MM)


def test_x5_and_lta_as_nitransforms_reads_them(case, tmp_path):
    from nitransforms.linear import Affine as TheirAffine
    from nitransforms.manip import TransformChain

    fixed, moving, warp, affine = case
    write_transforms(tmp_path / "chain.x5", [warp, affine], fixed=fixed)
    chain = TransformChain.from_filename(tmp_path / "chain.x5")
    points = centres(fixed)
    np.testing.assert_allclose(chain.map(points), map_points([warp, affine], points), atol=MM)
    write_transforms(tmp_path / "a.lta", [affine], fixed=fixed, moving=moving)
    theirs = TheirAffine.from_filename(tmp_path / "a.lta", fmt="fs")
    np.testing.assert_allclose(theirs.matrix, affine.matrix, atol=1e-5)
    text = (tmp_path / "a.lta").read_text(encoding="ascii")
    source = text[text.index("src volume info") : text.index("dst volume info")]
    assert f"volume = {moving.shape[0]} {moving.shape[1]} {moving.shape[2]}" in source


def test_an_lta_of_voxels(case, tmp_path):
    """As FreeSurfer writes type 0: src's voxels to dst's."""
    fixed, moving, _, affine = case
    write_transforms(tmp_path / "a.lta", [affine], fixed=fixed, moving=moving)
    text = (tmp_path / "a.lta").read_text(encoding="ascii").splitlines()
    voxels = np.linalg.inv(fixed.affine) @ np.linalg.inv(affine.matrix) @ moving.affine
    start = text.index("1 4 4") + 1
    text[start : start + 4] = [" ".join(f"{v:.15e}" for v in row) for row in voxels]
    text[[line.startswith("type") for line in text].index(True)] = "type      = 0 # LINEAR_VOX_TO_VOX"
    (tmp_path / "v.lta").write_text("\n".join(text) + "\n", encoding="ascii")
    (back,) = read_transforms(tmp_path / "v.lta")
    np.testing.assert_allclose(back.matrix, affine.matrix, atol=1e-4)


def test_a_composite_as_itk_reads_it(case, tmp_path):
    fixed, _, warp, affine = case
    write_transforms(tmp_path / "c.h5", [warp, affine])
    theirs = sitk.ReadTransform(str(tmp_path / "c.h5"))
    lps = np.array([-1.0, -1.0, 1.0])
    points = centres(fixed)[::50]
    mapped = np.array([theirs.TransformPoint((p * lps).tolist()) for p in points]) * lps
    np.testing.assert_allclose(mapped, map_points([warp, affine], points), atol=1e-4)


def test_npz_moves_voxels_as_learn2reg_scores_it(case, tmp_path):
    fixed, moving, warp, _ = case
    write_transforms(tmp_path / "d.npz", [warp], moving=moving)
    with np.load(tmp_path / "d.npz") as file:
        displacement = file["arr_0"]
    assert displacement.shape == (3, *fixed.shape)
    there = np.indices(fixed.shape) + displacement
    expected = moving.ras_to_index(map_points([warp], centres(fixed)))
    np.testing.assert_allclose(np.moveaxis(there, 0, -1).reshape(-1, 3), expected, atol=1e-3)


def test_fsl_stands_alone(case, tmp_path):
    """In a list nobody knows which images it joins."""
    fixed, moving, warp, affine = case
    write_transforms(tmp_path / "w.nii.gz", [warp], tool="fsl", fixed=fixed, moving=moving)
    write_transforms(tmp_path / "a.mat", [affine], tool="fsl", fixed=fixed, moving=moving)
    write_transforms(tmp_path / "d.npz", [warp], moving=moving)
    grids = {"fixed": fixed, "moving": moving}
    for name in ("w.nii.gz", "a.mat", "d.npz"):
        assert len(read_transform_list([str(tmp_path / name)], **grids)) == 1
        with pytest.raises(TransformError, match=f"{name}: depends on the grids of its own two images"):
            read_transform_list([str(tmp_path / name), str(tmp_path / "a.mat")], **grids)
    (tmp_path / "flat.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n", encoding="ascii")
    with pytest.raises(TransformError, match=r"flat.mat: the affine transform is singular"):
        read_transforms(tmp_path / "flat.mat", **grids)


def test_what_a_format_cannot_hold(case, tmp_path):
    fixed, _, warp, affine = case
    for name, transforms, options, message in (
        ("a.mat", [warp], {}, "holds an affine alone"),
        ("a.lta", [affine, warp], {}, "holds an affine alone"),
        ("a.lta", [affine], {"fixed": fixed}, "names the grids of both images"),
        ("w.nii.gz", [affine], {}, "give --reference FIXED"),
        ("w.npz", [affine], {}, "give --reference FIXED"),
        ("w.npz", [warp], {}, "counts in voxels of both images"),
        ("w.nii.gz", [warp], {"tool": "fsl"}, "depend on the grids of both images"),
        ("a.mat", [affine], {"tool": "fsl", "fixed": fixed}, "depend on the grids of both images"),
        ("w.nii.gz", [Affine(np.eye(3))], {"fixed": fixed}, "2-D transforms and a 3-D reference"),
    ):
        with pytest.raises(TransformError, match=message):
            write_transforms(tmp_path / name, transforms, **options)
    for name, options in (("a.jpg", {}), ("a.h5", {"tool": "fsl"}), ("a.mat", {"tool": "afni"})):
        with pytest.raises(OutputError, match=r"change the ending|end in|write a field"):
            write_transforms(tmp_path / name, [affine], **options)
    flat = Affine(np.eye(3))
    for name in ("a.lta", "a.x5"):
        with pytest.raises(TransformError, match="3-D"):
            write_transforms(tmp_path / name, [flat])
    assert not list(tmp_path.iterdir())


def test_npz_is_not_read_without_both_grids(case, tmp_path):
    fixed, moving, warp, _ = case
    write_transforms(tmp_path / "d.npz", [warp], moving=moving)
    for known in ({}, {"fixed": fixed}, {"moving": moving}):
        with pytest.raises(TransformError, match="name both"):
            read_transforms(tmp_path / "d.npz", **known)


def test_a_composite_of_nothing(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteTransform(sitk.CompositeTransform(3), str(tmp_path / "empty.h5"))
    with pytest.raises(TransformError, match=r"empty\.h5: holds no transform"):
        read_transforms(tmp_path / "empty.h5")


@pytest.mark.parametrize("name", ["t.x5", "t.lta", "t.npz", "t.h5"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + b"\0" * 100], ids=["empty", "text", "cut"])
def test_a_broken_file_is_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TransformError) as caught:
        read_transforms(tmp_path / name, **dict.fromkeys(("fixed", "moving"), grid_of("RAS", (4, 4, 4), (1, 1, 1))))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
