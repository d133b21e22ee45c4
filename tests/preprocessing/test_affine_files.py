"""Affines that SimpleITK, ANTsPy and others wrote, read for `--init FILE`: they carry points where their writers do."""

from __future__ import annotations

import numpy as np
import pytest

from r2reg.io.itk import lps_signs
from r2reg.io.transforms import read_affine

ENDINGS = ("mat", "tfm", "txt", "h5")


def parameters(ndim):
    """A linear part that is neither symmetric nor a rotation, a shift and a centre, LPS mm."""
    rng = np.random.default_rng(ndim)
    return np.eye(ndim) + 0.2 * rng.normal(size=(ndim, ndim)), rng.normal(size=ndim) * 20, rng.normal(size=ndim) * 50


def points(ndim):
    return np.random.default_rng(9).uniform(-80, 80, (5, ndim))


def mapped(affine, lps):
    signs = lps_signs(affine.ndim)
    return affine.map_points(lps * signs) * signs


def sitk_affine(ndim):
    import SimpleITK as sitk

    linear, shift, center = parameters(ndim)
    transform = sitk.AffineTransform(ndim)
    transform.SetMatrix(linear.ravel().tolist())
    transform.SetTranslation(shift.tolist())
    transform.SetCenter(center.tolist())
    return transform


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("ending", ENDINGS)
def test_affines_of_simpleitk(tmp_path, ending, ndim):
    import SimpleITK as sitk

    transform, path = sitk_affine(ndim), tmp_path / f"a.{ending}"
    sitk.WriteTransform(transform, str(path))
    expected = [transform.TransformPoint(p.tolist()) for p in points(ndim)]
    np.testing.assert_allclose(mapped(read_affine(path), points(ndim)), expected, atol=1e-6)  # printed digits


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("ending", ["tfm", "txt", "h5"])  # a .mat that SimpleITK makes of a composite nobody reads
def test_composites_of_affines_become_their_product(tmp_path, ending, ndim):
    import SimpleITK as sitk

    rigid = sitk.Euler2DTransform() if ndim == 2 else sitk.Euler3DTransform()
    rigid.SetParameters([0.3, 4.0, -5.0] if ndim == 2 else [0.1, 0.2, 0.3, 4.0, -5.0, 6.0])
    rigid.SetCenter(parameters(ndim)[2].tolist())
    composite, path = sitk.CompositeTransform(ndim), tmp_path / f"c.{ending}"
    for part in (sitk_affine(ndim), rigid, sitk.TranslationTransform(ndim, [1.0] * ndim)):
        composite.AddTransform(part)
    sitk.WriteTransform(composite, str(path))
    expected = [composite.TransformPoint(p.tolist()) for p in points(ndim)]
    np.testing.assert_allclose(mapped(read_affine(path), points(ndim)), expected, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("precision", ["float", "double"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_affines_of_antspy(tmp_path, ending, precision, ndim):
    ants = pytest.importorskip("ants")

    linear, shift, center = parameters(ndim)
    transform = ants.create_ants_transform("AffineTransform", dimension=ndim, precision=precision)
    ants.set_ants_transform_parameters(transform, np.concatenate([linear.ravel(), shift]))
    ants.set_ants_transform_fixed_parameters(transform, center)
    path = tmp_path / f"a.{ending}"
    ants.write_transform(transform, str(path))
    expected = [ants.apply_ants_transform_to_point(transform, p.tolist()) for p in points(ndim)]
    tolerance = 1e-4 if precision == "float" else 1e-6
    np.testing.assert_allclose(mapped(read_affine(path), points(ndim)), expected, atol=tolerance)


@pytest.mark.parametrize("kind", ["Rigid", "Affine"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_ants_registration_writes(tmp_path, ndim, kind):
    ants = pytest.importorskip("ants")
    import SimpleITK as sitk

    values = np.random.default_rng(0).normal(size=(16,) * ndim)
    fixed, moving = ants.from_numpy(values), ants.from_numpy(np.roll(values, 1, axis=0))
    single = ants.registration(fixed, moving, kind, outprefix=str(tmp_path / "s"))["fwdtransforms"][0]
    out = ants.registration(fixed, moving, kind, outprefix=str(tmp_path / "c"), write_composite_transform=True)
    for path in (single, out["fwdtransforms"]):
        reader = sitk.ReadTransform(path)
        expected = [reader.TransformPoint(p.tolist()) for p in points(ndim)]
        np.testing.assert_allclose(mapped(read_affine(path), points(ndim)), expected, atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_kinds_without_a_class_in_simpleitk(tmp_path, ndim):
    """c3d and ITK-SNAP write MatrixOffsetTransformBase, ANTsPy's Rigid2DTransform is another."""
    linear, shift, center = parameters(ndim)

    def text(values):
        return " ".join(f"{v:.17g}" for v in np.ravel(values))

    path = tmp_path / "snap.txt"
    path.write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_{ndim}_{ndim}\n"
        f"Parameters: {text(linear)} {text(shift)}\nFixedParameters: {text(center)}\n",
        encoding="utf-8",
    )
    expected = (points(ndim) - center) @ linear.T + center + shift
    np.testing.assert_allclose(mapped(read_affine(path), points(ndim)), expected, atol=1e-6)
