"""Spectral norms against the singular values of the dense operator."""

import numpy as np
import pytest
from keras import ops

from r2reg.flow import backend
from r2reg.networks.spectral import SpectralConvolution, kernel_norm_bound, operator_norm_bound

pytestmark = pytest.mark.backends


def dense_norm(kernel, size):
    """Largest singular value of the zero-padded convolution as a matrix, column by column from unit images."""
    *widths, inputs, _ = kernel.shape
    voxels = size ** len(widths)
    units = np.eye(voxels * inputs, dtype="float32").reshape(-1, *(size,) * len(widths), inputs)
    images = ops.conv(ops.convert_to_tensor(units), ops.convert_to_tensor(kernel), padding="same")
    return np.linalg.norm(ops.convert_to_numpy(images).reshape(len(units), -1), 2)


@pytest.mark.parametrize(("ndim", "size"), [(2, 12), (3, 6)])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_operator_norm_is_at_most_one(ndim, size, width, seed):
    kernel = np.random.default_rng(seed).normal(size=(*(width,) * ndim, ndim, ndim)).astype("float32")
    bound = float(operator_norm_bound(ops.convert_to_tensor(kernel)))
    norm = dense_norm(kernel / bound, size)
    assert norm <= 1 + 1e-3
    assert norm > 0.75  # tight: a small zero-padded grid's norm is below the infinite one's


@pytest.mark.parametrize("pattern", ["constant", "alternating"])
def test_extreme_kernels(pattern):
    """The norm is attained at frequency 0 or pi: sum |k| exactly, known in closed form."""
    sign = 1 if pattern == "constant" else -1
    line = np.array([1.0, sign, 1.0])
    kernel = (line[:, None, None] * line[None, :, None] * line[None, None, :])[..., None, None]
    bound = float(operator_norm_bound(ops.convert_to_tensor(kernel.astype("float32"))))
    assert 27 <= bound <= 27 * 1.08  # factor 1.06 between frequencies, 1 % of the trace norm


def test_kernel_norm_is_the_reshaped_matrix():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 3, 3)).astype("float32")
    expected = np.linalg.norm(kernel.reshape(-1, 3), 2)
    assert float(kernel_norm_bound(ops.convert_to_tensor(kernel))) == pytest.approx(expected, rel=0.01)


def test_kernel_norm_does_not_bound_the_operator():
    """The reason for `operator`: an averaging kernel is amplified sqrt(27) times."""
    kernel = np.ones((3, 3, 3, 1, 1), dtype="float32")
    scaled = kernel / float(kernel_norm_bound(ops.convert_to_tensor(kernel)))
    assert dense_norm(scaled, 9) > 4


@pytest.mark.parametrize("bound", [operator_norm_bound, kernel_norm_bound])
def test_gradient(bound):
    """Against finite differences along random directions."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 2)).astype("float32")
    slope = ops.convert_to_numpy(backend.gradient(bound, ops.convert_to_tensor(kernel)))
    for _ in range(3):
        along = rng.normal(size=kernel.shape).astype("float32")
        ahead, behind = (float(bound(ops.convert_to_tensor(kernel + h * along))) for h in (1e-2, -1e-2))
        assert (ahead - behind) / 2e-2 == pytest.approx(np.vdot(slope, along), rel=0.02, abs=0.01)


def test_zero_kernel_stays_finite():
    layer = SpectralConvolution(2, 3, 2, "operator")
    layer.build((None, 8, 8, 2))
    layer.kernel.assign(ops.zeros((3, 3, 2, 2)))
    assert np.isfinite(ops.convert_to_numpy(layer.normalised_kernel())).all()
