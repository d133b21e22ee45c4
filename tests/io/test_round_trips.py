"""What is written, read and written again stays the same map, whatever the 3-D grid and the transform."""

import numpy as np
import pytest
from grids import voxel_centres
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, map_points
from r2reg.io.transforms import read_transform_list, write_transforms

SAME_MM = 1e-5  # of one round trip to the next; the first one rounds to the file's float32
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
angles = st.tuples(*[st.floats(-180, 180)] * 3)
spacings = st.tuples(*[st.floats(0.3, 8)] * 3)
places = st.tuples(*[st.floats(-300, 300)] * 3)
shapes = st.tuples(*[st.integers(2, 6)] * 3)
flips = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)


@st.composite
def grids(draw, turned=True):
    """Any placement: turned, flipped, anisotropic, far from the origin."""
    axes = np.diag(draw(flips))
    if turned:
        axes = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix() @ axes
    affine = np.eye(4)
    affine[:3, :3] = axes * draw(spacings)
    affine[:3, 3] = draw(places)
    return Grid(draw(shapes), affine)


@st.composite
def affines(draw):
    """Rotation, scales, shears and a shift."""
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = draw(st.tuples(*[st.floats(-0.3, 0.3)] * 3))
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix()
    matrix[:3, :3] = turn @ shear @ np.diag(draw(st.tuples(*[st.floats(0.5, 2)] * 3)))
    matrix[:3, 3] = draw(places)
    return Affine(matrix)


def field_on(grid, seed):
    vectors = np.random.default_rng(seed).uniform(-20, 20, (*grid.shape, 3))
    return Displacement(grid, vectors.astype(np.float32))


def twice(folder, name, transforms, tool, fixed, moving):
    """The map after one round trip and after two, at fixed's voxels."""
    found = []
    for path in (folder / f"1{name}", folder / f"2{name}"):
        write_transforms(path, transforms, tool=tool, fixed=fixed, moving=moving)
        transforms = read_transform_list([str(path)], fixed=fixed, moving=moving)
        found.append(map_points(transforms, voxel_centres(fixed)))
    return found


@pytest.mark.parametrize("name", ["a.mat", "a.tfm", "a.txt", "a.lta", "a.h5", "a.x5", "flirt.mat"])
@FEW
@given(affine=affines(), fixed=grids(), moving=grids())
def test_affines(name, tmp_path, affine, fixed, moving):
    once, again = twice(tmp_path, name, [affine], "fsl" if name == "flirt.mat" else "itk", fixed, moving)
    # Text and float64 hold the map; .lta and FLIRT's have fewer digits, for places up to a metre from the origin.
    np.testing.assert_allclose(once, map_points([affine], voxel_centres(fixed)), rtol=0, atol=2e-3)
    np.testing.assert_allclose(again, once, rtol=0, atol=SAME_MM)


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("w.nii.gz", "itk"),
        ("w.h5", "itk"),
        ("w.x5", "itk"),
        ("w.npz", "itk"),
        ("w.nii.gz", "fsl"),
        ("w.nii.gz", "afni"),
    ],
)
@FEW
@given(data=st.data(), seed=st.integers(0, 99))
def test_fields(name, tool, tmp_path, data, seed):
    fixed = data.draw(grids(turned=tool != "afni"))
    moving = data.draw(grids())
    field = field_on(fixed, seed)
    once, again = twice(tmp_path, name, [field], tool, fixed, moving)
    # float32 vectors, and .npz and FSL's through other frames with places of up to some hundred mm: 1e-7 of that.
    np.testing.assert_allclose(once, map_points([field], voxel_centres(fixed)), rtol=0, atol=2e-3)
    np.testing.assert_allclose(again, once, rtol=0, atol=SAME_MM)
