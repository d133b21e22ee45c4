"""invert, compose, convert and jacobian, as a user calls them."""

import json

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from r2reg.cli.main import main
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, map_points
from r2reg.io.fields import write_displacement
from r2reg.io.images import Volume, write_image
from r2reg.io.transforms import read_transforms, write_affine

GRID = Grid((20, 18, 16), np.array([[-1.5, 0, 0, 9], [0, 0, 2.0, -11], [0, -1.0, 0, 7], [0, 0, 0, 1]]))
MOVING = Grid((24, 20, 22), np.array([[1.5, 0, 0, -24], [0, 1.5, 0, -8], [0, 0, 1.5, -26], [0, 0, 0, 1.0]]))
MATRIX = np.array([[1.02, -0.1, 0, 1], [0.1, 0.97, 0.05, -2], [0, 0, 1.03, 0.5], [0, 0, 0, 1]])


@pytest.fixture
def files(tmp_path):
    """Folder with warp, affine and the two images."""
    noise = np.random.default_rng(0).standard_normal((*GRID.shape, 3))
    vectors = 40 * gaussian_filter(noise, (4, 4, 4, 0)).astype(np.float32)
    write_displacement(tmp_path / "warp.nii.gz", Displacement(GRID, vectors))
    write_affine(tmp_path / "affine.mat", Affine(MATRIX))
    for name, grid in (("fixed", GRID), ("moving", MOVING)):
        write_image(tmp_path / f"{name}.nii.gz", np.ones(grid.shape, np.float32), Volume(np.ones(grid.shape), grid))
    return tmp_path


def run(folder, *words, code=0):
    names = {"warp": "warp.nii.gz", "affine": "affine.mat", "fixed": "fixed.nii.gz", "moving": "moving.nii.gz"}
    found = CliRunner().invoke(main, [str(folder / names.get(w, w)) if w in names or "." in w else w for w in words])
    assert found.exit_code == code, found.output
    return found.output


def inner(grid):
    index = np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)[5:-5, 5:-5, 5:-5]
    return grid.index_to_ras(index).reshape(-1, 3)


def both(folder):
    return [*read_transforms(folder / "warp.nii.gz"), *read_transforms(folder / "affine.mat")]


def test_compose_and_invert(files):
    run(files, "compose", "-t", "warp", "-t", "affine", "-o", "whole.nii.gz")
    whole, points = read_transforms(files / "whole.nii.gz"), inner(GRID)
    assert len(whole) == 1
    np.testing.assert_allclose(map_points(whole, points), map_points(both(files), points), atol=1e-4)
    told = run(files, "invert", "-t", "warp", "-t", "affine", "--moving", "moving", "-o", "back.nii.gz", "--json")
    residual = json.loads(told[told.index("{") :])["residual_mm"]
    assert residual["mean"] < 0.1  # moving's view reaches beyond the warp's, at whose end it jumps
    back = read_transforms(files / "back.nii.gz")
    assert back[0].grid == MOVING
    points = inner(MOVING)
    there = map_points(back, points)
    index = GRID.ras_to_index(there)
    seen = ((index > 0) & (index < np.array(GRID.shape) - 1)).all(axis=-1)
    assert seen.mean() > 0.4
    np.testing.assert_allclose(map_points(both(files), there)[seen], points[seen], atol=1e-3)


def test_affines_stay_affines(files):
    run(files, "invert", "-t", "affine", "-o", "inverse.mat")
    run(files, "compose", "-t", "affine", "-t", "inverse.mat", "-o", "none.tfm")
    np.testing.assert_allclose(read_transforms(files / "none.tfm")[0].matrix, np.eye(4), atol=1e-9)
    assert "holds an affine alone" in run(files, "convert", "warp", "warp.mat", code=1)
    assert "give --reference" in run(files, "convert", "affine", "field.nii.gz", code=1)
    run(files, "convert", "affine", "field.nii.gz", "--reference", "fixed")
    points = inner(GRID)
    expected = Affine(MATRIX).map_points(points)
    np.testing.assert_allclose(map_points(read_transforms(files / "field.nii.gz"), points), expected, atol=1e-4)


def test_a_fold_has_no_inverse_and_says_where(files):
    vectors = np.zeros((*GRID.shape, 3), np.float32)
    vectors[10, 9, 8] = (0, 30, 0)
    write_displacement(files / "folded.nii.gz", Displacement(GRID, vectors))
    told = run(files, "invert", "-t", "folded.nii.gz", "-o", "back.nii.gz")
    assert "the field folds at " in told
    assert "several inverses there" in told


def test_convert_there_and_back(files):
    run(files, "convert", "warp", "warp.x5")
    run(files, "convert", "warp.x5", "again.nii.gz")
    assert (files / "again.nii.gz").read_bytes() == (files / "warp.nii.gz").read_bytes()
    grids = ("--reference", "fixed", "--moving", "moving")
    run(files, "convert", "warp", "fsl.nii.gz", "--format", "fsl", *grids)
    assert nibabel.load(files / "fsl.nii.gz").header["intent_code"] == 2006
    run(files, "convert", "fsl.nii.gz", "warp2.h5", *grids)
    points = inner(GRID)
    there, back = (map_points(read_transforms(files / name), points) for name in ("warp.nii.gz", "warp2.h5"))
    np.testing.assert_allclose(back, there, atol=1e-4)
    assert "exists already; give --overwrite" in run(files, "convert", "warp", "warp.x5", code=1)
    assert "no transform is written as .jpg" in run(files, "convert", "warp", "warp.jpg", code=1)


def test_fsl_is_inverted_with_its_own_images(files):
    grids = ("--reference", "fixed", "--moving", "moving")
    run(files, "convert", "affine", "flirt.mat", "--format", "fsl", *grids)
    run(files, "invert", "-t", "flirt.mat", *grids, "-o", "back.mat")
    np.testing.assert_allclose(read_transforms(files / "back.mat")[0].matrix, np.linalg.inv(MATRIX), atol=1e-6)
    assert "name both, by --reference FIXED and --moving MOVING" in run(
        files, "invert", "-t", "flirt.mat", "-o", "x.mat", code=1
    )
    for name, options in (("x.lta", ()), ("x.mat", ("--format", "fsl"))):
        told = run(files, "convert", "affine", name, *options, code=1)
        assert "name both, by --reference FIXED and --moving MOVING" in told
    (files / "q.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    run(files, "points", "-t", "flirt.mat", *grids, "-i", "q.csv", "-o", "by_fsl.csv")
    run(files, "points", "-t", "affine", "-i", "q.csv", "-o", "by_itk.csv")
    found = [np.loadtxt(files / name, delimiter=",", skiprows=1) for name in ("by_fsl.csv", "by_itk.csv")]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_a_slice_for_2d_transforms(files):
    write_affine(files / "flat.mat", Affine(np.array([[1, 0, 2], [0, 1, 3], [0, 0, 1.0]])))
    image = nibabel.Nifti1Image(np.ones((9, 8, 1), np.float32), np.diag([-1.0, -1.0, 1, 1]))
    nibabel.save(image, files / "slice.nii.gz")
    run(files, "convert", "flat.mat", "flat.nii.gz", "--reference", "slice.nii.gz")
    (field,) = read_transforms(files / "flat.nii.gz")
    np.testing.assert_allclose(field.vectors[4, 4], (2, 3), atol=1e-6)
    for command in ("jacobian", "compose", "invert"):
        words = (command, "-t", "flat.nii.gz", "--moving" if command == "invert" else "--reference", "fixed")
        assert "2-D transforms" in run(files, *words, "-o", "no.nii.gz", code=1)


def test_apply_takes_fsl_fields_and_npz(files):
    """They need the images' grids, which apply knows."""
    rng = np.random.default_rng(1)
    image = gaussian_filter(rng.random(MOVING.shape), 2).astype(np.float32)
    write_image(files / "moving.nii.gz", image, Volume(image, MOVING))
    grids = ("--reference", "fixed", "--moving", "moving")
    run(files, "convert", "warp", "fsl.nii.gz", "--format", "fsl", *grids)
    run(files, "convert", "warp", "voxels.npz", *grids)
    moved = []
    for name in ("warp.nii.gz", "fsl.nii.gz", "voxels.npz"):
        run(files, "apply", "-t", name, "--reference", "fixed", "-i", "moving", "-o", f"of_{name}.nii.gz")
        moved.append(nibabel.load(files / f"of_{name}.nii.gz").get_fdata())
    np.testing.assert_allclose(moved[1], moved[0], atol=1e-4)
    np.testing.assert_allclose(moved[2], moved[0], atol=1e-4)


def test_a_field_that_misses_the_image_is_told(files):
    image = nibabel.load(files / "warp.nii.gz")
    affine = image.affine.copy()
    affine[:3, 3] += 1000
    nibabel.Nifti1Image(np.asarray(image.dataobj), affine, image.header).to_filename(files / "away.nii.gz")
    told = "lies wholly beside the image and moves nothing"
    for words in (
        ("apply", "-t", "away.nii.gz", "--reference", "fixed", "-i", "moving", "-o", "a.nii.gz"),
        ("jacobian", "-t", "away.nii.gz", "--reference", "fixed", "-o", "b.nii.gz"),
        ("invert", "-t", "away.nii.gz", "--moving", "moving", "-o", "c.nii.gz"),
        ("convert", "away.nii.gz", "d.nii.gz", "--reference", "fixed"),
    ):
        assert told in run(files, *words)
        assert told not in run(files, *[w.replace("away.nii.gz", "warp") for w in words], "--overwrite")


def test_the_inverse_of_an_affine_as_a_field_needs_moving(files):
    assert "give --moving MOVING" in run(files, "invert", "-t", "affine", "-o", "x.nii.gz", code=1)
    run(files, "invert", "-t", "affine", "--moving", "moving", "-o", "x.nii.gz")


def test_where_the_logarithm_is_missing(files):
    image = nibabel.load(files / "warp.nii.gz")
    vectors = np.asarray(image.dataobj).copy()
    vectors[3, 4, 2, 0, 0] += 50
    nibabel.Nifti1Image(vectors, image.affine, image.header).to_filename(files / "fold.nii.gz")
    told = run(files, "jacobian", "-t", "fold.nii.gz", "--measure", "log", "-o", "log.nii.gz")
    missing = int(np.isnan(nibabel.load(files / "log.nii.gz").get_fdata()).sum())
    assert missing > 0
    assert f"folds at {missing} voxels, the first at " in told


def test_jacobian(files):
    run(files, "jacobian", "-t", "affine", "--reference", "fixed", "-o", "det.nii.gz")
    image = nibabel.load(files / "det.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), np.linalg.det(MATRIX), rtol=1e-4)
    np.testing.assert_allclose(image.affine, GRID.affine, atol=1e-5)
    run(files, "jacobian", "-t", "warp", "--measure", "stretch", "-o", "stretch.nii.gz")
    stretch = nibabel.load(files / "stretch.nii.gz").get_fdata()
    assert stretch.shape == (*GRID.shape, 3)
    assert (np.diff(stretch, axis=-1) <= 1e-6).all()
    assert "give --reference" in run(files, "jacobian", "-t", "affine", "-o", "x.nii.gz", code=1)
