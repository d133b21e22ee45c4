"""Composition of bounded steps, forwards and backwards."""

import math

import numpy as np
import pytest
from keras import ops

from r2reg.flow.certificate import Certificate
from r2reg.flow.diffeomorphism import LARGEST_BOUND, Diffeomorphism, advance, bounded, follow, identity
from r2reg.flow.jacobian import lipschitz_bound
from r2reg.flow.relaxation import FREE_BEND, LARGEST_HASTE, relaxation
from r2reg.flow.warp import compose

pytestmark = pytest.mark.backends
SHAPES = [(48, 40), (32, 36, 28)]


def smooth(shape, size, seed=0):
    """A few waves per axis, zero at the border: (1, *shape, d)."""
    rng = np.random.default_rng(seed)
    here = np.stack(np.meshgrid(*[np.linspace(0, np.pi, n) for n in shape], indexing="ij"), axis=-1)
    waves = [np.prod(np.sin(here * rng.integers(1, 3, len(shape))), axis=-1) for _ in shape]
    return ops.convert_to_tensor((size * np.stack(waves, axis=-1))[None].astype("float32"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_too_long_is_halved(shape):
    velocity = smooth(shape, 20.0)
    shorter, step = bounded(velocity)
    assert step.halved > 0
    assert step.largest_bound < LARGEST_BOUND
    assert float(lipschitz_bound(shorter)) == pytest.approx(step.largest_bound, rel=1e-5)  # float32
    expected = ops.convert_to_numpy(velocity) / 2**step.halved
    np.testing.assert_allclose(ops.convert_to_numpy(shorter), expected, rtol=1e-6)  # a power of two
    assert bounded(smooth(shape, 0.1))[1].halved == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_forwards_and_backwards_meet(shape):
    """Halving the steps (twice as many) takes at least a third off the first-order error of the inverse."""

    def error(steps):
        phi = identity(shape)
        for _ in range(steps):
            phi = advance(phi, smooth(shape, 4.0 / steps, seed=0))
        assert phi.certificate.steps == steps
        return float(ops.max(ops.abs(compose(phi.inverse, phi.displacement))))

    assert error(16) < 0.67 * error(8)


def test_follow_composes_both_ways():
    a, b = smooth((24, 20), 1.0, 1), smooth((24, 20), 1.0, 2)
    outer = Diffeomorphism(a, -a, Certificate(2, 0.3, 1))
    inner = Diffeomorphism(b, -b, Certificate(1, 0.5, 0))
    both = follow(outer, inner)
    np.testing.assert_allclose(ops.convert_to_numpy(both.displacement), ops.convert_to_numpy(compose(a, b)), atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(both.inverse), ops.convert_to_numpy(compose(-b, -a)), atol=1e-6)
    assert both.certificate == Certificate(3, 0.5, 1)


def test_a_step_without_bound_spoils_the_certificate():
    unknown = Certificate(1, math.nan)
    assert not unknown.holds
    assert not Certificate(1, 0.2).after(unknown).holds
    assert not unknown.after(Certificate(1, 0.2)).holds
    assert Certificate(1, 0.2).after(Certificate()).holds


@pytest.mark.parametrize("shape", SHAPES)
def test_relaxing_is_diffusion(shape):
    """J v is the Laplacian of u times a factor of at least 1, J by numpy's central differences."""
    u = smooth(shape, 1.0)
    inside = (*[slice(1, -1)] * len(shape), slice(None))
    field = ops.convert_to_numpy(u)[0].astype("float64")
    jacobian = np.stack([np.gradient(field, axis=a) for a in range(len(shape))], axis=-1) + np.eye(len(shape))
    spread = sum(np.roll(field, 1, a) - 2 * field + np.roll(field, -1, a) for a in range(len(shape)))[inside]
    velocity, room = (ops.convert_to_numpy(part)[0] for part in relaxation(u))
    carried = np.einsum("...ij,...j->...i", jacobian, velocity)[inside]
    factor = np.sum(carried * spread, axis=-1) / np.sum(spread * spread, axis=-1)
    # Where the Laplacian all but vanishes, float32 differences decide; compare on its own scale.
    np.testing.assert_allclose(carried, factor[..., None] * spread, atol=1e-4 * np.abs(spread).max())
    strong = np.linalg.norm(spread, axis=-1) > 0.1 * np.abs(spread).max()
    bent = 1 + (np.linalg.norm(spread, axis=-1) / FREE_BEND) ** 2
    assert (factor / np.minimum(bent, LARGEST_HASTE))[strong].min() > 0.99
    assert factor[strong].max() < 1.01 * LARGEST_HASTE
    assert room.min() >= 0
    assert room.max() == 1


def test_relaxing_opens_what_is_compressed():
    """Steps of relaxation raise the smallest Jacobian of a map that all but folds."""
    from r2reg.flow.jacobian import jacobian_determinant

    u = smooth((32, 32), 4.0)
    before = float(ops.min(jacobian_determinant(u)))
    for _ in range(12):
        u = compose(u, bounded(0.04 * relaxation(u)[0])[0])
    assert float(ops.min(jacobian_determinant(u))) > before + 0.02
