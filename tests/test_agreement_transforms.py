"""`r2reg apply` and `r2reg points` against ANTs and SimpleITK on the same written files."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from grids import AXES, SPACINGS, general_affine, grid_pair, smooth_noise, smooth_warp, voxel_centres

from r2reg.cli.main import main
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import inverse_points, map_points
from r2reg.io.fields import write_displacement
from r2reg.io.images import Volume, read_image, write_image
from r2reg.io.transforms import write_affine

ants = pytest.importorskip("ants")
pandas = pytest.importorskip("pandas")

INTENSITY = 1e-3  # of the intensity range: the acceptance bound; float32 fields and images stay far below
POINT_MM = 1e-3


class Case:
    """Files of one registration, and what they hold."""

    def __init__(self, folder, fixed: Grid, moving: Grid):
        self.folder, self.fixed, self.moving = folder, fixed, moving
        self.transforms = [smooth_warp(fixed, 10), general_affine(fixed)]
        self.paths = {name: str(folder / f"{name}.nii.gz") for name in ("fixed", "moving", "warp")}
        self.paths["affine"] = str(folder / "affine.mat")
        for name, grid, seed in (("fixed", fixed, 1), ("moving", moving, 2)):
            array = 1000 * smooth_noise(grid.shape, seed)
            write_image(self.paths[name], array, Volume(array, grid))
        write_displacement(self.paths["warp"], self.transforms[0])
        write_affine(self.paths["affine"], self.transforms[1])

    @property
    def list(self) -> list[str]:
        return [self.paths["warp"], self.paths["affine"]]

    def inside(self) -> np.ndarray:
        """Voxels of fixed that are carried to at least one voxel inside moving."""
        index = self.moving.ras_to_index(map_points(self.transforms, voxel_centres(self.fixed)))
        return ((index >= 1) & (index <= np.array(self.moving.shape) - 2)).all(-1)


def run(*arguments: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output


def apply(case: Case, *options: str, image: str = "moving", reference: str = "fixed", transforms=None) -> np.ndarray:
    out = str(case.folder / "out.nii.gz")
    steps = [part for t in transforms or case.list for part in ("-t", t)]
    run(
        "apply",
        *steps,
        "--reference",
        case.paths[reference],
        "-i",
        case.paths[image],
        "-o",
        out,
        "--overwrite",
        *options,
    )
    return read_image(out, allow_constant=True).array


def ants_apply(
    case: Case, interpolator: str = "linear", image: str = "moving", transforms=None, **options
) -> np.ndarray:
    fixed, moving = (ants.image_read(case.paths[name]) for name in ("fixed", image))
    return ants.apply_transforms(fixed, moving, transforms or case.list, interpolator=interpolator, **options).numpy()


def sitk_transform(case: Case) -> sitk.Transform:
    d = case.fixed.ndim
    field = sitk.ReadImage(case.paths["warp"], sitk.sitkVectorFloat64)
    composite = sitk.CompositeTransform(d)
    composite.AddTransform(sitk.ReadTransform(case.paths["affine"]))
    composite.AddTransform(sitk.DisplacementFieldTransform(field))
    return composite


def sitk_apply(case: Case) -> np.ndarray:
    fixed, moving = (sitk.ReadImage(case.paths[name], sitk.sitkFloat32) for name in ("fixed", "moving"))
    return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk_transform(case), sitk.sitkLinear, 0.0)).T


def points(case: Case, *options: str, name: str = "in") -> np.ndarray:
    source, out = (str(case.folder / f"{stem}.csv") for stem in (name, "out"))
    steps = ["-t", case.paths["warp"], "-t", case.paths["affine"]]
    run("points", *steps, "-i", source, "-o", out, "--overwrite", *options)
    return pandas.read_csv(out)[list("xyz")[: case.fixed.ndim]].to_numpy()


def check_images(case: Case) -> None:
    inside = case.inside()
    assert inside.mean() > 0.4  # the comparison is over a real part of the image
    ours = apply(case)
    span = np.ptp(read_image(case.paths["moving"]).array)
    np.testing.assert_allclose(ours[inside], ants_apply(case)[inside], rtol=0, atol=INTENSITY * span)
    np.testing.assert_allclose(ours[inside], sitk_apply(case)[inside], rtol=0, atol=INTENSITY * span)


def check_points(case: Case) -> None:
    """Points anywhere in fixed's view and some way outside, where the warp is zero."""
    d = case.fixed.ndim
    shape = np.array(case.fixed.shape)
    index = np.random.default_rng(3).uniform(-0.2 * shape, 1.2 * shape, (60, d))
    lps = case.fixed.index_to_ras(index) * [-1, -1, 1][:d]
    table = pandas.DataFrame(lps, columns=list("xyz")[:d])
    table.to_csv(case.folder / "in.csv", index=False)
    ours = points(case)
    theirs = ants.apply_transforms_to_points(d, table, case.list)[list("xyz")[:d]].to_numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=POINT_MM)
    transform = sitk_transform(case)
    np.testing.assert_allclose(ours, [transform.TransformPoint(p) for p in lps.tolist()], rtol=0, atol=POINT_MM)


def make_case(folder, orientation: str, spacing: str, grids: str, ndim: int = 3) -> Case:
    return Case(folder, *grid_pair(orientation, spacing, grids, ndim))


@pytest.mark.parametrize(
    ("orientation", "spacing", "grids"), list(itertools.product(AXES, SPACINGS, ["same", "different"]))
)
def test_3d(tmp_path, orientation, spacing, grids):
    case = make_case(tmp_path, orientation, spacing, grids)
    check_images(case)
    check_points(case)


# LIA has no in-plane part: its second axis runs along S.
@pytest.mark.parametrize(
    ("orientation", "grids"),
    [("RAS", "same"), ("LAS", "different"), ("LPS", "same"), ("oblique", "different")],
)
def test_2d(tmp_path, orientation, grids):
    case = make_case(tmp_path, orientation, "isotropic", grids, ndim=2)
    check_images(case)
    check_points(case)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Oblique fixed, anisotropic moving, and labels on moving."""
    case = make_case(tmp_path_factory.mktemp("case"), "oblique", "1x1x3", "different")
    labels = np.digitize(smooth_noise(case.moving.shape, 5, 3.0), [0.4, 0.5, 0.6]).astype(np.uint16) * 100
    case.paths["labels"] = str(case.folder / "labels.nii.gz")
    write_image(case.paths["labels"], labels, Volume(labels, case.moving))
    return case


@pytest.mark.parametrize(("ours", "theirs"), [("nearest", "nearestNeighbor"), ("label", "genericLabel")])
def test_labels(case, ours, theirs):
    inside = case.inside()
    same = apply(case, "--interpolation", ours, image="labels") == ants_apply(case, theirs, "labels")
    # Points half-way between voxels or labels may fall to either side by rounding.
    assert same[inside].mean() > 0.999


def test_bspline(case):
    inside = case.inside()
    ours, theirs = apply(case, "--interpolation", "bspline"), ants_apply(case, "bSpline")
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=0, atol=INTENSITY * 1000)


def test_an_inverted_affine_in_brackets(case):
    ours = apply(case, transforms=[f"[{case.paths['affine']},1]"])
    theirs = ants_apply(case, transforms=[case.paths["affine"]], whichtoinvert=[True])
    inverse = map_points([case.transforms[1].inverse()], voxel_centres(case.fixed))
    index = case.moving.ras_to_index(inverse)
    inside = ((index >= 1) & (index <= np.array(case.moving.shape) - 2)).all(-1)
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=0, atol=INTENSITY * 1000)


def test_inverted_points_come_back(case):
    index = np.random.default_rng(3).uniform(0.25, 0.75, (60, 3)) * case.fixed.shape
    lps = case.fixed.index_to_ras(index) * [-1, -1, 1]
    pandas.DataFrame(lps, columns=list("xyz")).to_csv(case.folder / "in.csv", index=False)
    there = points(case)
    pandas.DataFrame(there, columns=list("xyz")).to_csv(case.folder / "there.csv", index=False)
    np.testing.assert_allclose(points(case, "--invert", name="there"), lps, rtol=0, atol=POINT_MM)


def test_an_inverted_list_carries_fixed_back_onto_moving(case):
    weights = np.array([1.0, -2.0, 0.5])  # an image linear in the world: interpolation adds no error
    linear = (voxel_centres(case.fixed) @ weights).astype(np.float32)
    case.paths["linear"] = str(case.folder / "linear.nii.gz")
    write_image(case.paths["linear"], linear, Volume(linear, case.fixed))
    ours = apply(case, "--invert", image="linear", reference="moving")
    y = voxel_centres(case.moving)
    x, _ = inverse_points(case.transforms, y)
    index = case.fixed.ras_to_index(x)
    inside = ((index >= 1) & (index <= np.array(case.fixed.shape) - 2)).all(-1)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(map_points(case.transforms, x)[inside], y[inside], rtol=0, atol=POINT_MM)
    np.testing.assert_allclose(ours[inside], (x @ weights)[inside], rtol=0, atol=1e-3 * np.ptp(linear))
