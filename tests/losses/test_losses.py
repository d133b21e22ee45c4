"""Losses against closed forms, independent float64 computations and finite differences."""

from functools import partial

import numpy as np
import pytest
from keras import ops

from r2reg.flow import backend
from r2reg.flow.reference import jacobian_determinant
from r2reg.losses import reference
from r2reg.losses.overlap import soft_dice
from r2reg.losses.regularity import (
    bending,
    diffusion,
    flow_consistency,
    folding,
    gradicon,
    inverse_consistency,
    kinetic,
    kl_divergence,
)
from r2reg.losses.similarity import SIMILARITIES, lncc, mi, mind, mse, ngf

pytestmark = pytest.mark.backends


def tensor(array):
    return ops.convert_to_tensor(np.asarray(array, dtype="float32"))


def per_item(loss):
    """The mean over a batch's items of a loss that is global in each."""
    return lambda fixed, moved: np.mean([loss(fixed[i : i + 1], moved[i : i + 1]) for i in range(len(fixed))])


def reference_mind(fixed, moved):
    return reference.mse(reference.mind_ssc(fixed), reference.mind_ssc(moved))


def reference_folding(u):
    return np.mean([np.maximum(-jacobian_determinant(item), 0).mean() for item in u])


def reference_diffusion(f):
    return sum(np.mean(np.sum(np.diff(f, axis=a) ** 2, axis=-1)) for a in range(1, f.ndim - 1))


@pytest.mark.parametrize("shape", [(9, 10), (7, 8, 6)])
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (mse, reference.mse),
        (lncc, reference.lncc),
        (partial(ngf, epsilon=0.3), partial(reference.ngf, epsilon=(0.3, 0.3))),
        (mi, per_item(reference.mi)),
        (mind, reference_mind),
        (soft_dice, per_item(reference.soft_dice)),
    ],
)
def test_pair_losses(loss, expected, shape):
    rng = np.random.default_rng(0)
    fixed, moved = rng.uniform(size=(2, 2, *shape, 1))
    check(lambda m: loss(tensor(fixed), m), lambda m: expected(fixed, m), moved, rng)


def reference_bending(f):
    """By NumPy's own differences of differences, interior voxels of each."""
    axes, total = range(1, f.ndim - 1), 0.0
    for a in axes:
        total += np.mean(np.sum(np.diff(f, n=2, axis=a) ** 2, axis=-1))
        for b in axes:
            if b != a:
                inner = tuple(slice(1, -1) if axis in (a, b) else slice(None) for axis in range(f.ndim))
                mixed = np.gradient(np.gradient(f, axis=a), axis=b)[inner]
                total += np.mean(np.sum(mixed**2, axis=-1))
    return total


@pytest.mark.parametrize("shape", [(9, 10), (7, 8, 6)])
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (folding, reference_folding),
        (diffusion, reference_diffusion),
        (kinetic, lambda f: np.mean(np.sum(f**2, axis=-1))),
        (bending, reference_bending),
    ],
)
def test_field_losses(loss, expected, shape):
    rng = np.random.default_rng(1)
    check(loss, expected, rng.normal(size=(2, *shape, len(shape))), rng)


def check(loss, expected, at, rng):
    """The value to 1e-5, and the gradient along a random direction against central differences in float64."""
    assert float(loss(tensor(at))) == pytest.approx(expected(at), rel=1e-5, abs=1e-5)
    gradient = ops.convert_to_numpy(backend.gradient(loss, tensor(at)))
    direction = rng.normal(size=at.shape)
    step = 1e-5  # small enough not to cross a kink of relu, large enough for float64
    slope = (expected(at + step * direction) - expected(at - step * direction)) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=2e-3, abs=1e-5)  # float32 sums


def test_lncc_of_a_linear_change_of_contrast_is_zero():
    image = np.random.default_rng(2).uniform(size=(1, 12, 12, 12, 1))
    assert float(lncc(tensor(image), tensor(0.9 - 0.7 * image))) < 1e-3  # epsilon in the ratio


@pytest.mark.parametrize(("name", "value"), [("mse", 0), ("lncc", 1), ("ngf", 0), ("mi", 0), ("mind", 0)])
def test_flat_images_do_not_blow_up(name, value):
    """Nothing is known of flat images: no correlation, no information, nothing unlike."""
    flat = tensor(np.full((1, 8, 8, 8, 1), 0.3))
    loss = SIMILARITIES[name]
    gradient = ops.convert_to_numpy(backend.gradient(lambda m: loss(flat, m), flat))
    assert float(loss(flat, flat)) == pytest.approx(value, abs=1e-6)  # float32's rounding of shares that sum to 1
    assert np.isfinite(gradient).all()


def test_default_edge_parameter_is_the_mean_gradient_of_each_image():
    rng = np.random.default_rng(3)
    fixed, moved = rng.uniform(size=(2, 1, 9, 10, 1)) * np.array([1.0, 0.2]).reshape(2, 1, 1, 1, 1)
    epsilon = (reference.mean_gradient(fixed), reference.mean_gradient(moved))
    check(lambda m: ngf(tensor(fixed), m), lambda m: reference.ngf(fixed, m, epsilon=epsilon), moved, rng)


def test_mask_restricts_the_mean():
    fixed, moved = np.zeros((2, 1, 6, 6, 1))
    moved[:, 3:] = 1
    mask = np.zeros((1, 6, 6, 1))
    mask[:, :3] = 1
    assert float(mse(tensor(fixed), tensor(moved), tensor(mask))) == 0
    assert float(mse(tensor(fixed), tensor(moved), tensor(1 - mask))) == 1
    assert float(mse(tensor(fixed), tensor(moved), tensor(0 * mask))) == 0


@pytest.mark.parametrize("name", SIMILARITIES)
def test_mask_of_every_similarity(name):
    """What moved holds far from the mask does not matter: 5 voxels are beyond MIND's patches and neighbours."""
    rng = np.random.default_rng(4)
    fixed, moved = rng.uniform(size=(2, 1, 16, 9, 1))
    mask = np.zeros((1, 16, 9, 1))
    mask[:, :6] = 1
    other = moved.copy()
    other[:, 11:] = moved[:, 11:][:, ::-1]  # as bright on average as before, for the scales taken from all voxels
    loss = partial(SIMILARITIES[name], **({"epsilon": 0.3} if name == "ngf" else {}))
    values = [float(loss(tensor(fixed), tensor(m), tensor(mask))) for m in (moved, other)]
    assert values[0] == pytest.approx(values[1], rel=0.02)  # MIND bounds a voxel's variance by the whole image's
    assert values[0] != pytest.approx(float(loss(tensor(fixed), tensor(moved))), rel=0.02)


def test_folding_of_a_reflection():
    """x -> -x along one axis has det -1 everywhere, so the folded volume is 1."""
    here = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"), axis=-1)[None]
    assert float(folding(tensor(here * [-2.0, 0, 0]))) == pytest.approx(1)
    assert float(folding(tensor(0 * here))) == 0


def test_soft_dice_ignores_absent_classes():
    one_hot = np.zeros((1, 4, 4, 3))
    one_hot[..., 0] = 1
    assert float(soft_dice(tensor(one_hot), tensor(one_hot))) == pytest.approx(0)


def test_bending_of_a_quadratic():
    """f = (x^2, xy): second derivatives 2, and twice the mixed 1."""
    x, y = np.meshgrid(np.arange(7.0), np.arange(8.0), indexing="ij")
    assert float(bending(tensor(np.stack([x * x, x * y], axis=-1)[None]))) == pytest.approx(4 + 2)
    assert float(bending(tensor(np.stack([3 * x + y, y - x], axis=-1)[None]))) == pytest.approx(0, abs=1e-10)


def dense_laplacian(shape):
    """D - A of the grid's graph, from its pairs of neighbours."""
    number = np.arange(np.prod(shape)).reshape(shape)
    matrix = np.zeros((number.size, number.size))
    for axis in range(len(shape)):
        first, second = (np.take(number, range(k, shape[axis] - 1 + k), axis=axis).ravel() for k in (0, 1))
        for i, j in ((first, second), (second, first)):
            matrix[i, j] -= 1
            np.add.at(matrix, (i, i), 1)
    return matrix


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2)])
def test_kl_is_that_of_gaussians(shape):
    """Against the closed form with dense matrices, in which the prior's constants are put back by a ridge.

    The Laplacian has no inverse. The difference of two divergences is free of the constant, so lambda (L + tiny I)
    as the precision gives the same difference.
    """
    rng = np.random.default_rng(5)
    ndim, precision = len(shape), 3.0
    prior = precision * (dense_laplacian(shape) + 1e-9 * np.eye(np.prod(shape)))

    def exact(mean, log_variance):
        total = 0.0
        for c in range(ndim):
            m, variance = mean[..., c].ravel(), np.exp(log_variance[..., c].ravel())
            logdet = np.linalg.slogdet(prior)[1] + np.log(variance).sum()
            total += 0.5 * (np.sum(np.diag(prior) * variance) + m @ prior @ m - m.size - logdet)
        return total / np.prod(shape)

    draws = [(rng.normal(size=(1, *shape, ndim)), rng.normal(size=(1, *shape, ndim))) for _ in range(2)]
    ours = [float(kl_divergence(tensor(m), tensor(v), precision)) for m, v in draws]
    theirs = [exact(m[0], v[0]) for m, v in draws]
    assert ours[0] - ours[1] == pytest.approx(theirs[0] - theirs[1], rel=1e-4)


def test_consistencies_of_translations():
    """There by (1, 0) and back by (-1, 0.5) leaves (0, 0.5): consistent up to a translation."""
    there, back = (tensor(np.broadcast_to(np.array(v), (1, 6, 7, 2))) for v in ([1.0, 0.0], [-1.0, 0.5]))
    assert float(inverse_consistency(there, back)) == pytest.approx(0.25)
    assert float(gradicon(there, back)) == pytest.approx(0, abs=1e-10)
    points = tensor(np.random.default_rng(6).uniform(0, 5, size=(1, 20, 2)))
    assert float(flow_consistency(there, back, points)) == pytest.approx(0.25, rel=1e-5)


def test_gradicon_of_a_linear_map():
    """x -> 1.2 x and back by 0.9 gives 1.08 x: gradient 0.08 where nothing leaves the grid."""
    here = np.stack(np.meshgrid(*[np.arange(-3.0, 4.0)] * 2, indexing="ij"), axis=-1)[None]
    grow, shrink = tensor(0.2 * here), tensor(-0.1 * here)
    assert float(gradicon(grow, shrink)) == pytest.approx(2 * 0.08**2, rel=1e-3)
    assert float(inverse_consistency(grow, shrink)) == pytest.approx(np.mean(np.sum((0.08 * here) ** 2, -1)), rel=1e-3)
