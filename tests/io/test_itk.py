"""LPS and reversed axes: values that can be read off."""

import numpy as np
import pytest
import SimpleITK as sitk

from r2reg.errors import TransformError
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement, map_points
from r2reg.io import itk

GRID = Grid((4, 5, 6), [[-2, 0, 0, 10], [0, 0, 3, 20], [0, 1, 0, 30], [0, 0, 0, 1]])


def test_an_image_keeps_its_voxels_and_place():
    array = np.arange(120, dtype=np.int16).reshape(GRID.shape)
    image = itk.to_sitk_image(array, GRID)
    assert image.GetPixel([1, 2, 3]) == array[1, 2, 3]
    assert image.TransformContinuousIndexToPhysicalPoint([0.0, 0, 0]) == (-10, -20, 30)
    assert image.TransformContinuousIndexToPhysicalPoint([1.0, 2, 3]) == (-8, -29, 32)
    assert itk.grid_from_sitk(image) == GRID
    np.testing.assert_array_equal(itk.from_sitk_image(image), array)


def test_bool_and_half_floats_have_no_itk_type_of_their_own():
    assert itk.to_sitk_image(np.ones((2, 2), bool), Grid((2, 2), np.eye(3))).GetPixelID() == sitk.sitkUInt8
    assert itk.to_sitk_image(np.ones((2, 2), "f2"), Grid((2, 2), np.eye(3))).GetPixelID() == sitk.sitkFloat32


def test_an_affine_in_lps():
    shift_and_turn = Affine(np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]))
    transform = itk.to_sitk_transform([shift_and_turn], 3)
    # RAS (5, 7, 9) -> (-6, 7, 12), in LPS (-5, -7, 9) -> (6, -7, 12)
    np.testing.assert_allclose(transform.TransformPoint((-5.0, -7.0, 9.0)), (6, -7, 12))
    np.testing.assert_allclose(itk.from_sitk_transform(transform)[0].matrix, shift_and_turn.matrix, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_list_there_and_back(count):
    rng = np.random.default_rng(0)
    field = Displacement(GRID, rng.standard_normal((*GRID.shape, 3)).astype(np.float32))
    affine = Affine(np.array([[1.1, 0.2, 0, 1], [0, 0.9, 0, 2], [0.1, 0, 1, 3], [0, 0, 0, 1]]))
    transforms = [field, affine, field][:count]
    transform = itk.to_sitk_transform(transforms, 3)
    ras = GRID.index_to_ras(rng.uniform(-1, 5, (50, 3)))  # partly outside the field
    lps = np.array([transform.TransformPoint(p) for p in (ras * [-1, -1, 1]).tolist()])
    np.testing.assert_allclose(map_points(transforms, ras), lps * [-1, -1, 1], atol=1e-5)  # float32 vectors
    back = itk.from_sitk_transform(transform)
    assert [type(t) for t in back] == [type(t) for t in transforms]
    np.testing.assert_allclose(map_points(back, ras), map_points(transforms, ras), atol=1e-5)


@pytest.mark.parametrize(
    "transform",
    [
        sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3, (4, 5, 6)),
        sitk.VersorRigid3DTransform((0, 0, 1), 0.4, (4, 5, 6), (1, 2, 3)),
        sitk.Similarity3DTransform(1.2, (0, 0, 1), 0.4, (4, 5, 6), (1, 2, 3)),
        sitk.TranslationTransform(3, (4, 5, 6)),
        sitk.ScaleTransform(3, (1.1, 0.9, 1.2)),
        sitk.Euler2DTransform((1, 2), 0.3, (4, 5)),
        sitk.Transform(2, sitk.sitkIdentity),
    ],
    ids=lambda t: t.GetName(),
)
def test_every_linear_kind_is_an_affine(transform):
    (affine,) = itk.from_sitk_transform(transform)
    lps = [1.5, -2.0, 70.0][: transform.GetDimension()]
    signs = itk.lps_signs(transform.GetDimension())
    np.testing.assert_allclose(affine.map_points(np.array(lps) * signs) * signs, transform.TransformPoint(lps))


def test_other_kinds_are_named():
    with pytest.raises(TransformError, match="holds a BSplineTransform"):
        itk.from_sitk_transform(sitk.BSplineTransform(3))
