"""Losses against closed forms, independent float64 computations and finite differences."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from r2reg.flow import backend, reference
from r2reg.losses.overlap import soft_dice
from r2reg.losses.regularity import diffusion, folding
from r2reg.losses.similarity import LNCC_EPSILON, lncc, mse

pytestmark = pytest.mark.backends


def tensor(array):
    return ops.convert_to_tensor(np.asarray(array, dtype="float32"))


def reference_mse(fixed, moved):
    return np.mean((fixed - moved) ** 2)


def reference_lncc(fixed, moved, radius=2):
    """Window sums by scipy in float64."""

    def window(a):
        return ndimage.uniform_filter(a, (1, *[2 * radius + 1] * (a.ndim - 2), 1), mode="nearest")

    count = (2 * radius + 1) ** (fixed.ndim - 2)
    cross = count * (window(fixed * moved) - window(fixed) * window(moved))
    var_f = count * (window(fixed**2) - window(fixed) ** 2)
    var_m = count * (window(moved**2) - window(moved) ** 2)
    return 1 - np.mean(cross**2 / (var_f * var_m + LNCC_EPSILON))


def reference_folding(u):
    return np.mean([np.maximum(-reference.jacobian_determinant(item), 0).mean() for item in u])


def reference_diffusion(f):
    return sum(np.mean(np.sum(np.diff(f, axis=a) ** 2, axis=-1)) for a in range(1, f.ndim - 1))


def reference_soft_dice(fixed, moved):
    axes = tuple(range(1, fixed.ndim - 1))
    return 1 - np.mean(2 * (fixed * moved).sum(axes) / (fixed + moved).sum(axes))


@pytest.mark.parametrize("shape", [(9, 10), (7, 8, 6)])
@pytest.mark.parametrize(
    ("loss", "expected"),
    [(mse, reference_mse), (lncc, reference_lncc), (soft_dice, reference_soft_dice)],
)
def test_pair_losses(loss, expected, shape):
    rng = np.random.default_rng(0)
    fixed, moved = rng.uniform(size=(2, 2, *shape, 1))
    check(lambda m: loss(tensor(fixed), m), lambda m: expected(fixed, m), moved, rng)


@pytest.mark.parametrize("shape", [(9, 10), (7, 8, 6)])
@pytest.mark.parametrize(("loss", "expected"), [(folding, reference_folding), (diffusion, reference_diffusion)])
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


def test_flat_images_do_not_blow_up():
    flat = tensor(np.full((1, 8, 8, 8, 1), 0.3))
    gradient = ops.convert_to_numpy(backend.gradient(lambda m: lncc(flat, m), flat))
    assert float(lncc(flat, flat)) == pytest.approx(1)
    assert np.isfinite(gradient).all()


def test_mask_restricts_the_mean():
    fixed, moved = np.zeros((2, 1, 6, 6, 1))
    moved[:, 3:] = 1
    mask = np.zeros((1, 6, 6, 1))
    mask[:, :3] = 1
    assert float(mse(tensor(fixed), tensor(moved), tensor(mask))) == 0
    assert float(mse(tensor(fixed), tensor(moved), tensor(1 - mask))) == 1
    assert float(mse(tensor(fixed), tensor(moved), tensor(0 * mask))) == 0


def test_folding_of_a_reflection():
    """x -> -x along one axis has det -1 everywhere, so the folded volume is 1."""
    here = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"), axis=-1)[None]
    assert float(folding(tensor(here * [-2.0, 0, 0]))) == pytest.approx(1)
    assert float(folding(tensor(0 * here))) == 0


def test_soft_dice_ignores_absent_classes():
    one_hot = np.zeros((1, 4, 4, 3))
    one_hot[..., 0] = 1
    assert float(soft_dice(tensor(one_hot), tensor(one_hot))) == pytest.approx(0)
