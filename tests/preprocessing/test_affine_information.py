"""Mutual information, its derivatives and the ranking of starts against closed forms, differences and ITK."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy.ndimage import gaussian_filter

from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine
from r2reg.io.images import Volume
from r2reg.preprocessing.affine.correlation import LocalCorrelation
from r2reg.preprocessing.affine.information import Information
from r2reg.preprocessing.affine.likeness import likeness
from r2reg.preprocessing.affine.pyramid import Level, Working
from r2reg.preprocessing.affine.sampling import Sampling, interpolate
from r2reg.preprocessing.affine.search import Increments
from r2reg.preprocessing.affine.starts import Body
from r2reg.resampling import resample


def texture(shape, seed=0, spacing=2.0):
    """A smooth random image in [0, 1] on an oblique grid about the origin."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    values = (values - values.min()) / np.ptp(values)
    ndim = len(shape)
    affine = np.eye(ndim + 1)
    affine[:2, :2] = np.array([[0.8, -0.6], [0.6, 0.8]])
    affine[:-1, :-1] *= spacing
    affine[:-1, -1] = -affine[:-1, :-1] @ ((np.array(shape) - 1) / 2)
    return Working(values.astype(np.float32), Grid(shape, affine))


def shifted(ndim, *shift):
    matrix = np.eye(ndim + 1)
    matrix[: len(shift), -1] = shift
    return matrix


def pair(ndim, masked):
    shape = (20, 24, 18)[:ndim]
    fixed, moving = texture(shape), texture(shape)
    moving = Working(1 - moving.array**2, moving.grid)  # another contrast
    if masked:
        fixed = Working(fixed.array, fixed.grid, fixed.array > 0.4)
        moving = Working(moving.array, moving.grid, moving.array > 0.3)
    return Level(fixed, moving)


@pytest.mark.parametrize("ndim", [2, 3])
def test_interpolation_is_exact_for_multilinear_images_and_level_outside(ndim):
    axes = np.meshgrid(*[np.arange(n, dtype=float) for n in (6, 7, 5)[:ndim]], indexing="ij")
    product = np.prod([1 + 0.3 * a for a in axes], axis=0)
    volumes = np.stack([product, axes[0]]).astype(np.float32)
    index = np.array([[1.3, 2.6, 3.2], [4.9, 0.1, 2.5], [-2.0, 1.5, 1.5]]).T[:ndim]
    values, slopes = interpolate(volumes, index)
    inside = index[:, :2]
    factors = 1 + 0.3 * inside
    np.testing.assert_allclose(values[0, :2], np.prod(factors, axis=0), rtol=1e-5)  # float32
    for axis in range(ndim):
        expected = 0.3 * np.prod(np.delete(factors, axis, axis=0), axis=0)
        np.testing.assert_allclose(slopes[0, axis, :2], expected, rtol=1e-5)
    assert values[1, 2] == 0
    assert slopes[1, 0, 2] == 0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_derivatives_are_those_of_finite_differences(ndim, masked):
    level = pair(ndim, masked)
    moving = level.moving
    other = moving.grid.affine @ np.diag([*[1.3, -0.7, 1.1, 1.0][:ndim], 1.0])  # other voxels, another handedness
    other[:-1, -1] = -other[:-1, :-1] @ ((np.array(moving.grid.shape) - 1) / 2)
    level = Level(level.fixed, Working(moving.array, Grid(moving.grid.shape, other), moving.mask))
    information = Information(level, 4000)
    matrix = shifted(ndim, 3.0, -2.0)
    matrix[:-1, :-1] += 0.02 * np.random.default_rng(1).normal(size=(ndim, ndim))
    for measure in (information, information.whole, LocalCorrelation(level, 1), LocalCorrelation(level, 3)):
        _, gradient = measure(matrix)
        for i in range(ndim):
            for j in range(ndim + 1):
                step = np.zeros_like(matrix)
                step[i, j] = 1e-3 if j == ndim else 1e-4
                difference = (measure(matrix + step)[0] - measure(matrix - step)[0]) / (2 * step[i, j])
                # The interpolated image has kinks at voxel borders, which a few samples cross within the step.
                assert gradient[i, j] == pytest.approx(difference, abs=0.02 * np.abs(gradient).max())


def test_information_is_largest_where_the_images_fit_and_0_without_overlap():
    information = Information(pair(3, False), 4000)
    values = [information(shifted(3, x))[0] for x in (-4.0, -1.0, 0.0, 1.0, 4.0)]
    assert np.argmax(values) == 2
    value, gradient = information(shifted(3, 500.0))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("radius", [1, 2])
def test_local_correlation_asks_for_no_contrast_in_common(radius):
    """Bright in one place is dark in another: it is as high as without, and highest where the images fit."""
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(48, 56)), 1.5)
    texture /= np.abs(texture).max()
    contrast = gaussian_filter(np.random.default_rng(1).normal(size=texture.shape), 12)
    contrast /= np.abs(contrast).max()
    fixed, plain, other = (
        Working((0.5 + 0.5 * image).astype(np.float32), Grid(texture.shape, np.eye(3)))
        for image in (texture, texture, contrast * texture)
    )
    one, two = LocalCorrelation(Level(fixed, plain), radius), LocalCorrelation(Level(fixed, other), radius)
    values = [two(shifted(2, x))[0] for x in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert np.argmax(values) == 2
    assert one(np.eye(3))[0] == pytest.approx(1, abs=0.01)
    assert values[2] > 0.8
    assert two(shifted(2, 500.0))[0] == 0


@pytest.mark.parametrize("radius", [1, 3])
def test_local_correlation_is_the_mean_over_windows_that_tell_something(radius):
    level = pair(2, masked=False)
    fixed = np.where(np.indices((20, 24))[0] < 8, 0.5, level.fixed.array).astype(np.float32)  # a part without structure
    level = Level(Working(fixed, level.fixed.grid), level.moving)
    matrix = shifted(2, 6.0, -2.0)
    points = np.argwhere(np.ones_like(fixed)).astype(float)
    (values, weights), _ = Sampling(level.moving, level.fixed.grid.index_to_ras(points))(matrix)
    moved, total, count = values.reshape(fixed.shape).astype(float), 0.0, 0.0
    for (i, j), weight in zip(points.astype(int), weights, strict=True):
        window = tuple(slice(max(k - radius, 0), k + radius + 1) for k in (i, j))
        one, two = fixed[window].astype(float), moved[window]
        covariance = ((one - one.mean()) * (two - two.mean())).mean()
        share = one.var() / (one.var() + 1e-3)
        share = weight * share if share > 0.05 else 0.0
        total += share * covariance**2 / (one.var() * two.var() + 1e-8)
        count += share
    measure = LocalCorrelation(level, radius)
    assert measure(matrix)[0] == pytest.approx(total / count, rel=1e-4)
    one, two = measure.of_both(matrix, np.eye(3))
    assert two > one > 0
    assert measure.of_both(matrix, matrix)[0] == pytest.approx(measure(matrix)[0])
    assert measure.of_both(np.eye(3), shifted(2, 500.0)) == (0, 0)


def test_information_agrees_with_itk():
    import SimpleITK as sitk

    from r2reg.io.itk import to_sitk_image

    level = pair(3, False)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(sitk.TranslationTransform(3, (-1.0, 0.0, 0.0)))  # LPS
    images = [to_sitk_image(w.array, w.grid) for w in (level.fixed, level.moving)]
    information = -method.MetricEvaluate(*images)
    moved = resample(Volume(level.moving.array, level.moving.grid), level.fixed.grid, [Affine(shifted(3, 1.0))])
    counts = np.histogram2d(level.fixed.array.ravel(), moved.ravel(), bins=28)[0]
    expected = information / scipy.stats.entropy(counts.ravel())
    # ITK uses all voxels' centres, 28 bins of its 32 within the range and a wider window, which lowers its information;
    # the plain histogram has no window, which lowers the entropy.
    assert Information(level, 20_000)(shifted(3, 1.0))[0] == pytest.approx(expected, rel=0.15)


def test_likeness_is_the_entropy_of_an_image_with_itself_and_counts_the_overlap():
    image = texture((16, 16, 16), spacing=1.0)
    steps = np.floor(image.array * 4).clip(0, 3) / 4 + 0.01  # the same four values whatever the number of bins
    level = Level(Working(steps.astype(np.float32), image.grid), Working(steps.astype(np.float32), image.grid))
    counts = np.unique(steps, return_counts=True)[1] / steps.size
    whole, none = likeness(level, [np.eye(4), shifted(3, 900.0)])
    assert whole == pytest.approx(-(counts * np.log(counts)).sum(), rel=0.03)  # 2000 of 4096 voxels
    assert none == 0
    # Half of moving's view: the half that is left tells half as much.
    half = Grid((8, 16, 16), image.grid.affine)
    cut = Level(level.fixed, Working(steps[:8].astype(np.float32), half))
    assert likeness(cut, [np.eye(4)])[0] == pytest.approx(whole / 2, rel=0.1)
    masked = Level(level.fixed, Working(level.moving.array, image.grid, np.arange(16)[:, None, None] < 8 + 0 * steps))
    assert likeness(masked, [np.eye(4)])[0] == pytest.approx(likeness(cut, [np.eye(4)])[0])


def test_likeness_weighs_the_volume_change():
    """A ramp of which half is seen: shrunk into that half, the whole ramp would tell more than the half does."""
    image = texture((32, 16, 16), spacing=1.0)
    ramp = np.broadcast_to(np.linspace(0, 0.99, 32, dtype=np.float32)[:, None, None], image.array.shape)
    half = Working(np.ascontiguousarray(ramp[:16]), Grid((16, 16, 16), image.grid.affine))
    level = Level(Working(np.ascontiguousarray(ramp), image.grid), half)
    shrunk = np.diag([0.5, 0.5, 0.5, 1.0])
    shrunk[:-1, -1] = half.grid.center_ras - shrunk[:-1, :-1] @ image.grid.center_ras
    right, wrong = likeness(level, [np.eye(4), shrunk])
    assert right > wrong
    assert wrong / np.sqrt(0.5**3) > right  # the volume change alone decides


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_increments_start_at_the_identity_and_their_derivatives_hold(ndim, kind):
    rng = np.random.default_rng(0)
    increments = Increments(kind, Body(rng.normal(size=ndim) * 10, 30.0), 4.0)
    np.testing.assert_array_equal(increments.matrix(np.zeros(increments.count)), np.eye(ndim + 1))
    parameters, by_matrix = rng.normal(size=increments.count), np.zeros((ndim + 1, ndim + 1))
    by_matrix[:-1] = rng.normal(size=(ndim, ndim + 1))
    found = increments.by_parameters(parameters, by_matrix)
    for k, step in enumerate(1e-6 * np.eye(increments.count)):
        ends = [(increments.matrix(parameters + s) * by_matrix).sum() for s in (step, -step)]
        assert found[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)
    linear = increments.matrix(parameters)[:-1, :-1]
    if kind != "affine":
        np.testing.assert_allclose(linear @ linear.T, np.eye(ndim) * np.linalg.det(linear) ** (2 / ndim), atol=1e-12)
    if kind == "rigid":
        assert np.linalg.det(linear) == pytest.approx(1)
